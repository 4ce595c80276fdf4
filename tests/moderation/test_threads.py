"""Threads are counted by what the process may use, not by what the machine has."""

import os
from pathlib import Path

import pytest

from moderation.threads import usable_cores


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("100000 100000", 1), ("150000 100000", 1), ("50000 100000", 1), ("nonsense", None)],
)
def test_a_limit_of_the_control_group_counts(
    tmp_path: Path, quota: str, expected: int | None
) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    assert usable_cores(path) == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("quota", ["max 100000", "6400000 100000"])
def test_without_a_smaller_limit_the_affinity_counts(tmp_path: Path, quota: str) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores(path) == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores(path) == len(before)
