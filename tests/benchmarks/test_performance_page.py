"""The tables of docs/performance.md are the committed results."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "engine"
TABLES = sorted(RESULTS.glob("W*.json"))


def row(side: dict[str, Any]) -> str:
    """A line of a table; scores of another layout are not comparable."""
    gap, rate = "-", "-"
    if side["max_dp"] is not None:
        gap = f"{side['max_dp']:.3f}" if side["max_dp"] >= 5e-4 else f"{side['max_dp']:.0e}"
        rate = f"{side['of_matrix_rate']:.0%}"
    numbers = (side["tokens"], f"{side['cpu_s']:.3f}", f"{side['ratio']:.2f}", rate)
    cells = (side["side"], *numbers, side["peak_mib"], gap)
    return f"| {' | '.join(map(str, cells))} |"


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_every_measured_side_stands_in_the_page(file: Path) -> None:
    lines = (ROOT / "docs" / "performance.md").read_text().splitlines()
    for name, workload in json.loads(file.read_text())["workloads"].items():
        for side in workload["sides"]:
            assert row(side) in lines, name


def test_there_are_results() -> None:
    assert len(TABLES) >= 2
