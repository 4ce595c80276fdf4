"""llama.cpp as a worker of the benchmark. Runs in an environment of its own, which has
llama-cpp-python and nothing of this project.

    python llama_worker.py MODEL.gguf YES_ID NO_ID MAX_TOKENS

The content is decoded once; each question continues a copy of its sequence (`seq_cp`), which was
the fastest of the library's ways. Logits are computed for the last token of a question only.
"""

import ctypes
import json
import math
import os
import sys
from typing import Any

import llama_cpp as lib

MAX_BATCH = 2048
FILE_TYPES = {"float32": lib.LLAMA_FTYPE_ALL_F32, "bfloat16": lib.LLAMA_FTYPE_MOSTLY_BF16}


def main() -> None:
    """Answers a line of JSON with a line of JSON until its input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints is no answer
    path, yes_id, no_id, max_tokens = sys.argv[1:]
    scorer = Scorer(path, int(yes_id), int(no_id), int(max_tokens))
    print(json.dumps({"ready": f"llama-cpp-python {lib.__version__}"}), file=answers, flush=True)
    for line in sys.stdin:
        prompts = json.loads(line)["prompts"]
        scores = [p_yes for prompt in prompts for p_yes in scorer.scores(prompt)]
        print(json.dumps({"scores": scores}), file=answers, flush=True)


class Scorer:
    """One model and one context."""

    def __init__(self, path: str, yes_id: int, no_id: int, max_tokens: int) -> None:
        self._ids = (yes_id, no_id)
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(
            path.encode(), lib.llama_model_default_params()
        )
        params = lib.llama_context_default_params()
        params.n_ctx = max_tokens
        params.n_batch = MAX_BATCH
        params.n_seq_max = 2
        params.n_threads = params.n_threads_batch = 1
        params.kv_unified = True  # sequences share the cells of the content
        # with the small cache of the sliding layers, cells that sequences share are never freed:
        # llama_decode finds no room for a content of 6,000 tokens
        params.swa_full = True
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp made no context")
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(MAX_BATCH, 0, 1)

    def scores(self, prompt: dict[str, Any]) -> list[float]:
        """P(Yes) of every question of one content."""
        lib.llama_memory_clear(self._memory, False)
        prefix = prompt["prefix"]
        self._decode(prefix, 0, 0, wants_logits=False)
        found = []
        for leaf in prompt["leaves"]:
            lib.llama_memory_seq_cp(self._memory, 0, 1, -1, -1)
            last = self._decode(leaf, len(prefix), 1, wants_logits=True)
            logits = lib.llama_get_logits_ith(self._context, last)
            yes, no = (logits[each] for each in self._ids)
            found.append(1 / (1 + math.exp(no - yes)))
            lib.llama_memory_seq_rm(self._memory, 1, -1, -1)
        return found

    def _decode(self, tokens: list[int], start: int, sequence: int, *, wants_logits: bool) -> int:
        """Adds tokens to a sequence; returns the place of the last one in the last batch."""
        batch = self._batch
        for first in range(0, len(tokens), MAX_BATCH):
            part = tokens[first : first + MAX_BATCH]
            for place, token in enumerate(part):
                batch.token[place] = token
                batch.pos[place] = start + first + place
                batch.n_seq_id[place] = 1
                batch.seq_id[place][0] = sequence
                batch.logits[place] = 0
            if wants_logits and first + len(part) == len(tokens):
                batch.logits[len(part) - 1] = 1
            batch.n_tokens = len(part)
            status = lib.llama_decode(self._context, batch)
            if status != 0:
                raise RuntimeError(f"llama_decode returned {status}")
        return int(batch.n_tokens) - 1


def convert(dtype: str, source: str, target: str) -> None:
    """Writes the weights of a GGUF in one of `FILE_TYPES`."""
    params = lib.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[dtype]
    params.allow_requantize = True
    if lib.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) != 0:
        raise RuntimeError("llama_model_quantize failed")


if __name__ == "__main__":
    if sys.argv[1] == "--convert":
        convert(*sys.argv[2:])
    else:
        main()
