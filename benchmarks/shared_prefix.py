"""The shared-prefix engine against transformers as shipped, on the embedded 270M.

Workload: contents of about 30, 150 and 600 tokens under the seven policies of the default set.
Both sides get the same token ids, run in turns in one process, and are timed in CPU seconds of
this process (wall seconds are shown beside them). The peer is `Gemma3ForCausalLM.forward`, one
prompt at a time, once with its defaults (logits for every position) and once with
`logits_to_keep=1`.

    python -m benchmarks.shared_prefix [--short] [--dtype bfloat16] [--out FILE.json]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from moderation.checkpoints import Classifier, preferred_dtype
from moderation.embedded.base import EmbeddedBase
from moderation.embedded.models import load_embedded
from moderation.prompts import JudgePrompt
from policies import Surface, load_library

TEXT = (
    "The council met on Tuesday to discuss the new tram line, which will run from the harbour to"
    " the university and is expected to open in four years. "
)


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="two rounds instead of five")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "wardgate")
    parser.add_argument("--out", type=Path, help="also write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype) if args.dtype else preferred_dtype("cpu")
    classifier = load_embedded(EmbeddedBase(args.cache), dtype=dtype)
    result = measure(classifier, rounds=2 if args.short else 5)
    result["machine"] = f"{platform.machine()}, {args.threads} thread(s), {classifier.info.dtype}"
    result["versions"] = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{'tokens':>7} {'side':<28} {'CPU s':>7} {'wall s':>7} {'ratio':>6} {'max |dP|':>9}")
    for row in result["rows"]:
        print(
            f"{row['content_tokens']:>7} {row['side']:<28} {row['cpu_s']:>7.2f}"
            f" {row['wall_s']:>7.2f} {row['ratio']:>6.2f} {row['max_dp']:>9.1e}"
        )
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(classifier: Classifier, *, rounds: int) -> dict[str, object]:
    """CPU and wall seconds an item for each side and length, medians over the rounds."""
    library = load_library()
    definitions = [
        text
        for rule in library.policy_set("default").policies
        if (text := library.policy(rule.id).definition_for(Surface.PROMPT)) is not None
    ]
    rows = []
    for num_tokens in (30, 150, 600):
        ids = classifier.builder.content_tokens(TEXT * 30).ids[:num_tokens]
        prompt = classifier.builder.text_prompt(Surface.PROMPT, ids, definitions)
        sides: dict[str, Callable[[], list[float]]] = {
            "wardgate": lambda prompt=prompt: classifier.engine.p_yes(prompt),  # type: ignore[misc]
            "transformers, last logits": lambda prompt=prompt: _plain(classifier, prompt, 1),  # type: ignore[misc]
            "transformers, as shipped": lambda prompt=prompt: _plain(classifier, prompt, 0),  # type: ignore[misc]
        }
        cpu: dict[str, list[float]] = {name: [] for name in sides}
        wall: dict[str, list[float]] = {name: [] for name in sides}
        scores: dict[str, list[float]] = {}
        for index in range(rounds + 1):
            for name, run in sides.items():
                before_cpu, before_wall = time.process_time(), time.perf_counter()
                scores[name] = run()
                if index:  # the first round warms up
                    cpu[name].append(time.process_time() - before_cpu)
                    wall[name].append(time.perf_counter() - before_wall)
        ours = statistics.median(cpu["wardgate"])
        for name in sides:
            seconds = statistics.median(cpu[name])
            gaps = [abs(a - b) for a, b in zip(scores[name], scores["wardgate"], strict=True)]
            rows.append(
                {
                    "content_tokens": num_tokens,
                    "policies": len(definitions),
                    "side": name,
                    "cpu_s": seconds,
                    "wall_s": statistics.median(wall[name]),
                    "ratio": seconds / ours,
                    "max_dp": max(gaps),
                }
            )
    return {"rounds": rounds, "rows": rows}


@torch.inference_mode()
def _plain(classifier: Classifier, prompt: JudgePrompt, logits_to_keep: int) -> list[float]:
    tokenizer = classifier.builder.tokenizer
    yes_no = [tokenizer.token_id("Yes"), tokenizer.token_id("No")]
    scores = []
    for leaf in prompt.leaves:
        ids = torch.tensor([[*prompt.prefix, *leaf]])
        logits = classifier.model(input_ids=ids, logits_to_keep=logits_to_keep).logits
        scores.append(torch.softmax(logits[0, -1, yes_no].float(), dim=-1)[0].item())
    return scores


if __name__ == "__main__":
    main()
