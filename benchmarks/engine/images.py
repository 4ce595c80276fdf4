"""I1: images under policies, beside transformers' ShieldGemma 2 as it is shipped.

Both sides are in this process and share one set of weights, with the same prompts. transformers
gets one image a call, as its documentation shows: it encodes the image once a policy, and computes
262,208 logits at every position. This engine gets all images at once.

    python -m benchmarks.engine.images [--images 8] [--rounds 1] [--checkpoint FOLDER]
        [--device cuda] [--out FILE.json]

Without --checkpoint, random weights of the full size are written to a folder that is deleted at
the end (8.6 GB of disk, as much memory): what is measured does not depend on their values. The
prompts need a tokenizer; random weights take that of the embedded base.
"""

import argparse
import json
import platform
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    Gemma3ImageProcessorPil,
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
    ShieldGemma2Processor,
)

from benchmarks.engine.memory import forget_peak, peak_mib
from benchmarks.engine.random_checkpoint import write_random_checkpoint
from benchmarks.environments import default_cache
from moderation.checkpoints import Classifier, load_checkpoint
from moderation.embedded.base import ensure_base
from moderation.engine import Ask
from policies import Surface, load_library
from tests.moderation.shieldgemma2_template import CHAT_TEMPLATE

POLICIES = ("dangerous_content", "sexually_explicit", "violence")
IMAGE_TOKENS = 256
SIDE = 896


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="after one image to warm up")
    parser.add_argument("--checkpoint", type=Path, help="a ShieldGemma 2; random by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, help="also write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.checkpoint
        if folder is None:
            folder = Path(scratch)
            write_random_checkpoint(folder, full_size(), tokenizer_of=ensure_base(args.cache))
        classifier = load_checkpoint(folder, dtype=torch.bfloat16, device=args.device)
        processor = processor_of(folder)
    result = {
        "machine": f"{platform.machine()}, {args.threads} thread(s), {args.device}",
        "versions": f"torch {torch.__version__}",
        "weights": str(args.checkpoint or "random, of the full size"),
        "images": args.images,
        "policies": POLICIES,
        "sides": measure(classifier, processor, pictures(args.images), rounds=args.rounds),
    }
    print(f"{result['machine']}; {args.images} images, {len(POLICIES)} policies")
    print(f"{'':<28} {'CPU s':>9} {'wall s':>9} {'ratio':>6} {'MiB':>7} {'max dP':>8}  an image")
    for row in result["sides"]:
        print(
            f"{row['side']:<28} {row['cpu_s']:>9.2f} {row['wall_s']:>9.2f} {row['ratio']:>6.2f}"
            f" {row['peak_mib']:>7} {row['max_dp']:>8.1e}"
        )
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class _Cost:
    scores: list[list[float]]
    cpu_s: float
    wall_s: float
    peak_mib: int


def measure(
    classifier: Classifier, processor: Any, images: Sequence[Image.Image], *, rounds: int
) -> list[dict[str, Any]]:
    """A row a side, the costs an image; the sides take turns.

    Seconds are those of the quickest round. On an accelerator the ratio is of wall seconds, on a
    CPU of processor seconds.
    """
    model = shipped(classifier)
    library = load_library()
    texts = {name: library.policy(name).definition_for(Surface.IMAGE) or "" for name in POLICIES}
    sides: dict[str, Callable[[Sequence[Image.Image]], list[list[float]]]] = {
        "wardgate": lambda some: ask_engine(classifier, list(texts.values()), some),
        "transformers, as shipped": lambda some: ask_shipped(model, processor, texts, some),
    }
    best: dict[str, _Cost] = {}
    for score in sides.values():
        score(images[:1])
    for _ in range(rounds):
        for name, score in sides.items():
            cost = _cost(lambda score=score: score(images))  # type: ignore[misc]
            if name not in best or cost.wall_s < best[name].wall_s:
                best[name] = cost
    on_cpu = next(classifier.model.parameters()).device.type == "cpu"

    def seconds(cost: _Cost) -> float:
        return cost.cpu_s if on_cpu else cost.wall_s

    own, right = best["wardgate"], best["transformers, as shipped"].scores
    return [
        {
            "side": name,
            "cpu_s": cost.cpu_s / len(images),
            "wall_s": cost.wall_s / len(images),
            "ratio": seconds(cost) / seconds(own),
            "peak_mib": cost.peak_mib,
            "max_dp": max(
                abs(a - b)
                for ours, theirs in zip(cost.scores, right, strict=True)
                for a, b in zip(ours, theirs, strict=True)
            ),
        }
        for name, cost in best.items()
    ]


def ask_engine(
    classifier: Classifier, texts: Sequence[str], images: Sequence[Image.Image]
) -> list[list[float]]:
    """P(Yes) by image and policy, from this project's engine."""
    assert classifier.to_pixels is not None, "the checkpoint has images"
    prompt = classifier.builder.image_prompt(texts)
    return classifier.engine.p_yes([Ask(prompt, classifier.to_pixels(each)) for each in images])


@torch.inference_mode()
def ask_shipped(
    model: Any, processor: Any, texts: dict[str, str], images: Sequence[Image.Image]
) -> list[list[float]]:
    """P(Yes) by image and policy, from transformers with its defaults."""
    found = []
    for image in images:
        inputs = processor(
            images=[image], custom_policies=texts, policies=list(texts), return_tensors="pt"
        ).to(model.device)
        found.append([float(each) for each in model(**inputs).probabilities[:, 0]])
    return found


def shipped(classifier: Classifier) -> Any:
    """transformers' own class around the classifier's weights."""
    inner: Any = classifier.model
    tokenizer = classifier.builder.tokenizer
    config = ShieldGemma2Config(**{**inner.config.to_dict(), "model_type": "shieldgemma2"})
    config.yes_token_index = tokenizer.token_id("Yes")
    config.no_token_index = tokenizer.token_id("No")
    with torch.device("meta"):
        model: Any = ShieldGemma2ForImageClassification(config)
    model.model = inner
    return model.eval()


def processor_of(folder: Path) -> Any:
    """The processor of a checkpoint, with ShieldGemma 2's chat template."""
    config = ShieldGemma2Config.from_pretrained(folder)
    processor: Any = ShieldGemma2Processor  # transformers leaves it untyped
    return processor(
        Gemma3ImageProcessorPil.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        chat_template=CHAT_TEMPLATE,
        image_seq_length=config.mm_tokens_per_image,
    )


def pictures(number: int) -> list[Image.Image]:
    """Images that differ, of a photo's usual sizes."""
    rng = random.Random(0)
    found = []
    for _ in range(number):
        image = Image.effect_noise((1280, 960), 60).convert("RGB")
        for _ in range(12):
            left, top = rng.randrange(1100), rng.randrange(800)
            colour = tuple(rng.randrange(256) for _ in range(3))
            image.paste(colour, (left, top, left + 180, top + 160))
        found.append(image)
    return found


def full_size() -> ShieldGemma2Config:
    """The shape of google/shieldgemma-2-4b-it.

    Source: huggingface/transformers, convert_shieldgemma2_weights_orbax_to_hf.py.
    """
    return ShieldGemma2Config(
        architectures=["ShieldGemma2ForImageClassification"],
        text_config={
            "model_type": "gemma3_text",
            "vocab_size": 262_208,
            "hidden_size": 2560,
            "intermediate_size": 10_240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "sliding_window": 1024,
            "query_pre_attn_scalar": 256,
            "max_position_embeddings": 8192,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": SIDE,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=IMAGE_TOKENS,
        boi_token_index=255_999,
        eoi_token_index=256_000,
        image_token_index=262_144,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )


def _cost(work: Callable[[], list[list[float]]]) -> _Cost:
    """What a piece of work gives and costs in this process, the weights' memory included."""
    on_gpu = torch.cuda.is_available()
    forget_peak()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    scores = work()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    peak = torch.cuda.max_memory_allocated() // 2**20 if on_gpu else peak_mib()
    return _Cost(scores, cpu_s, wall_s, peak)


if __name__ == "__main__":
    main()
