"""How long a large picture takes that no model sees: it is read, recognisers look at it, and the
embedded classifier judges what they find.

Three pictures of 12 megapixels as JPEG files: a photograph without words, the same with a line of
text, and a page of text, which is the worst case of reading. Wall seconds from the file's bytes to
the verdict of the default set, on an otherwise idle machine; printed is the median of the rounds.

    python -m benchmarks.pictures [--threads 2] [--out benchmarks/results/pictures.json]
"""

import argparse
import io
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from benchmarks.engine.machine import cpu_name
from moderation.content import Content, ImagePart
from moderation.moderator import Moderator
from policies import PolicySet, Surface, load_library
from wardgate.loading import ModelChoice, open_moderator

SIZE = (4000, 3000)
WORDS = "The harbour office is open from nine to five, and the ferry leaves at noon."


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    library = load_library()
    moderator = open_moderator(
        library, ModelChoice(name="embedded"), reads_images=True, report=print
    )
    policy_set = library.policy_set("default")
    found = {
        name: seconds(moderator, policy_set, picture, args.rounds)
        for name, picture in pictures().items()
    }
    for name, rounds in found.items():
        print(f"{name}: {statistics.median(rounds):.2f} s")
    if args.out:
        result = {
            "machine": f"{platform.machine()}, {cpu_name()}, {args.threads} threads",
            "versions": {name: version(name) for name in ("torch", "onnxruntime", "rapidocr")},
            "model": moderator.text.info.revision,
            "dtype": moderator.text.info.dtype,
            "seconds": found,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def pictures() -> dict[str, bytes]:
    """The pictures by what is on them."""
    photo = Image.fromarray(load_sample_image("china.jpg")).resize(SIZE, Image.Resampling.LANCZOS)
    captioned = photo.copy()
    ImageDraw.Draw(captioned).text((200, 2600), WORDS, "white", ImageFont.load_default(100))
    page = Image.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(48)
    for line in range(45):
        draw.text((150, 100 + 62 * line), f"{line + 1}. {WORDS} {WORDS}", "black", font)
    drawn = {"a photograph": photo, "with a line of text": captioned, "a page of text": page}
    return {name: _jpeg(picture) for name, picture in drawn.items()}


def seconds(
    moderator: Moderator, policy_set: PolicySet, picture: bytes, rounds: int
) -> list[float]:
    """Wall seconds of each round, after one that is not counted."""
    content = Content(surface=Surface.PROMPT, parts=(ImagePart(picture),))
    found = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        moderator.judge(content, policy_set)
        found.append(round(time.perf_counter() - started, 3))
    return found[1:]


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
