"""What `wardgate serve` takes of memory with the embedded models and all extras.

For each dtype, with the embedded generator and without, a service of its own is started and called
one call at a time. Printed after each: the most resident memory so far (VmHWM), and that of the
moment (VmRSS), which is anonymous memory and pages of files; Linux alone tells.

    python -m benchmarks.memory [--out benchmarks/results/engine/memory.json]
"""

import argparse
import base64
import io
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageOps

from benchmarks.engine.machine import cpu_name
from benchmarks.engine.memory import status_mib
from benchmarks.engine.workloads import TEXT
from tests.e2e.serving import ROOT, serve

DTYPES = ("bfloat16", "float32")
GENERATORS = ("embedded", "none")
SIGN = ROOT / "docs" / "examples" / "sign.png"
SHORT_TEXTS = [f"How do I get from the harbour to house number {number}?" for number in range(20)]
LONG_TEXT = TEXT * 28
"""Of some 900 tokens."""
_KINDS = {"peak": "VmHWM", "now": "VmRSS", "anonymous": "RssAnon", "files": "RssFile"}
"""Our names, and those of `/proc/PID/status`."""

Step = tuple[str, Callable[[httpx.Client], None]]
"""What is called, in words, and how."""


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    runs = [measure(dtype, generator) for dtype in DTYPES for generator in GENERATORS]
    print(table(runs))
    if args.out:
        packages = ("torch", "transformers", "tokenizers", "onnxruntime")
        result = {
            "machine": f"{platform.machine()}, {cpu_name()}, one thread",
            "versions": {name: version(name) for name in packages},
            "unit": "MiB",
            "runs": runs,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(dtype: str, generator: str) -> dict[str, Any]:
    """One service from its start through all steps."""
    run: dict[str, Any] = {"dtype": dtype, "generator": generator, "after": {}}
    patient = {"WARDGATE_DEADLINE_S": "300", "WARDGATE_GENERATION_DEADLINE_S": "300"}
    with serve(WARDGATE_DTYPE=dtype, WARDGATE_GENERATOR=generator, **patient) as served:
        served.wait_ready()
        with httpx.Client(base_url=f"{served.url}/v1", timeout=300) as client:
            for name, call in steps(has_generator=generator != "none"):
                call(client)
                run["after"][name] = {
                    ours: status_mib(served.process.pid, theirs) for ours, theirs in _KINDS.items()
                }
                print(dtype, generator, name, run["after"][name], flush=True)
    return run


def steps(*, has_generator: bool) -> Iterator[Step]:
    """What is called, in turn."""
    sign = Image.open(SIGN).convert("RGB")
    yield "the start, `/readyz` 200", lambda _: None
    yield "20 short texts", lambda client: judge(client, *SHORT_TEXTS)
    yield (
        f"an image with text (`{SIGN.relative_to(ROOT)}`)",
        lambda client: judge(client, [image_part(sign, "PNG")]),
    )
    yield (
        "a JPEG of 4000x3000 pixels",
        lambda client: judge(client, [image_part(sign.resize((4000, 3000)), "JPEG")]),
    )
    yield "a text of some 900 tokens", lambda client: judge(client, LONG_TEXT)
    if has_generator:
        yield "a chat of 40 tokens", chat
    yield (
        "another JPEG of that size",
        lambda client: judge(
            client, [image_part(ImageOps.invert(sign).resize((4000, 3000)), "JPEG")]
        ),
    )


def judge(client: httpx.Client, *contents: Any) -> None:
    """A verdict on each, one after the other: a text, or parts."""
    for content in contents:
        client.post("/moderations", json={"input": content}).raise_for_status()


def chat(client: httpx.Client) -> None:
    """An answer of 40 tokens through the gate."""
    message = {"role": "user", "content": "What is the capital of Australia?"}
    body = {"model": "gemma-3-270m", "max_tokens": 40, "messages": [message]}
    client.post("/chat/completions", json=body).raise_for_status()


def image_part(image: Image.Image, form: str) -> dict[str, Any]:
    """An image as a client sends it."""
    file = io.BytesIO()
    image.save(file, form)
    url = f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def table(runs: Sequence[dict[str, Any]]) -> str:
    """One row a step, one column a service, in Markdown."""
    steps = dict.fromkeys(step for run in runs for step in run["after"])
    names = [
        f"{run['dtype']}, {'no' if run['generator'] == 'none' else 'with'} generator"
        for run in runs
    ]
    lines = [["after", *names], ["---"] * (1 + len(runs))]
    for step in steps:
        found = [run["after"].get(step) for run in runs]
        cells = [f"peak {mib['peak']}, now {mib['now']}" if mib else "-" for mib in found]
        lines.append([step, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
