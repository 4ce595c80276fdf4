"""Averages the adapters of runs that began with the same one and drew with different seeds.

What is common to all stays, what one seed has by chance becomes less (Wortsman et al., "Model
soups", ICML 2022). It stands in for the end of a schedule that there was no time for.

    python -m moderation.training.average runs/a runs/b --out runs/average
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_WEIGHTS = "adapter_model.safetensors"


def main() -> None:
    """Reads the command line and writes `--out`/adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of the runs")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    average([run / "adapter" for run in args.runs], args.out / "adapter")


def average(adapters: Sequence[Path], out: Path) -> None:
    """Writes the mean of the adapters, which have the same shapes, in the first one's dtype."""
    weights = [load_file(adapter / _WEIGHTS) for adapter in adapters]
    mean = {
        name: torch.stack([each[name].float() for each in weights]).mean(0).to(weight.dtype)
        for name, weight in weights[0].items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(mean, out / _WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(adapters[0] / "adapter_config.json", out / "adapter_config.json")


if __name__ == "__main__":
    main()
