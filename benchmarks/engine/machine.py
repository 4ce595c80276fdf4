"""What a benchmark runs on."""

import platform
from pathlib import Path

import torch

from benchmarks.engine.timing import timed


def matrix_rate(dtype: torch.dtype) -> float:
    """GFLOP a processor second of a product of the model's shape, the best of five."""
    left, right = torch.randn(2048, 640).to(dtype), torch.randn(640, 2048).to(dtype)
    seconds = min(timed(lambda: [left @ right for _ in range(5)]) / 5 for _ in range(5))
    return 2 * 2048 * 640 * 2048 / seconds / 1e9


def cpu_name() -> str:
    """What the system calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")
