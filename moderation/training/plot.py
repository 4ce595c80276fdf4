"""Draws the learning curves of runs: the loss of their steps, and what they were measured by.

python -m moderation.training.plot runs/v3 --out curves.svg
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

SMOOTHED = 10
"""Steps whose mean loss is one point: the loss of a single step depends on what it drew."""


def main() -> None:
    """Reads the command line and writes `--out`, whose ending says the format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of the runs")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    draw(args.runs, args.out)


def draw(runs: Sequence[Path], out: Path) -> None:
    """One line of loss a run; below it, where a run was measured, a line of AU-PRC a policy."""
    measured = [run for run in runs if (run / "curve.jsonl").exists()]
    figure = Figure(figsize=(8, 4 * (1 + bool(measured))), layout="constrained")
    axes = figure.subplots(1 + bool(measured), squeeze=False)[:, 0]
    for run in runs:
        _draw_loss(axes[0], run)
    axes[0].set(xlabel="contents seen", ylabel="loss", ylim=(0, None))
    axes[0].legend()
    for run in measured:
        _draw_measures(axes[1], run)
    if measured:
        axes[1].set(xlabel="contents seen", ylabel="AU-PRC", ylim=(0, 1))
        axes[1].legend(ncols=2, fontsize="small")
    figure.savefig(out)


def _draw_loss(axes: Axes, run: Path) -> None:
    losses = [line["loss"] for line in _lines(run / "log.jsonl")]
    means = [
        sum(losses[first : first + SMOOTHED]) / len(losses[first : first + SMOOTHED])
        for first in range(0, len(losses), SMOOTHED)
    ]
    seen = [min((n + 1) * SMOOTHED, len(losses)) * _batch(run) for n in range(len(means))]
    axes.plot(seen, means, label=run.name)


def _draw_measures(axes: Axes, run: Path) -> None:
    lines = _lines(run / "curve.jsonl")
    seen = [(line["step"] + 1) * _batch(run) for line in lines]
    for policy_id in (key for key in lines[-1] if key != "step"):
        values = [line[policy_id]["au_prc"] for line in lines]
        axes.plot(seen, values, label=f"{run.name}: {policy_id}")


def _batch(run: Path) -> int:
    return int(json.loads((run / "arguments.json").read_text())["batch"])


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
