"""A training run: what it writes, that it goes on where it stopped, and what is made of several."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moderation.training.average import average
from moderation.training.plot import draw
from moderation.training.train import main as train
from tests.moderation.training_records import write_records


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("data") / "records.jsonl")


def run(base: Path, records: Path, out: Path, *more: str) -> dict[str, torch.Tensor]:
    train(
        [
            *("--base", str(base), "--data", str(records), "--out", str(out)),
            *("--batch", "4", "--rank", "4", "--save-every", "2", *more),
        ]
    )
    return load_file(out / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def whole(
    checkpoint_dirs: dict[str, Path], records: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of three steps, measured on its own records."""
    out = tmp_path_factory.mktemp("run") / "whole"
    measured = ("--dev", str(records), "--measure-every", "2")
    run(checkpoint_dirs["gemma3"], records, out, "--steps", "3", *measured)
    return out


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_writes_its_losses_and_what_it_was_measured_by(whole: Path) -> None:
    assert [line["step"] for line in lines(whole / "log.jsonl")] == list(range(3))
    curve = lines(whole / "curve.jsonl")
    assert [line["step"] for line in curve] == [1, 2]
    for line in curve:
        assert set(line) == {"step", "harassment", "prompt_injection"}
    assert json.loads((whole / "arguments.json").read_text())["batch"] == 4


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    whole: Path, checkpoint_dirs: dict[str, Path], records: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    base = checkpoint_dirs["gemma3"]
    expected = load_file(whole / "adapter" / "adapter_model.safetensors")
    run(base, records, out, "--steps", "3", "--stop-after", "2")
    assert len(lines(out / "log.jsonl")) == 2
    resumed = run(base, records, out, "--steps", "3", "--workers", "2")
    assert resumed.keys() == expected.keys()
    for name, weight in resumed.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=0)


def test_a_run_of_one_question_a_content(
    whole: Path, checkpoint_dirs: dict[str, Path], records: Path, tmp_path: Path
) -> None:
    run(checkpoint_dirs["gemma3"], records, tmp_path, "--steps", "1", "--questions", "1")
    assert [line["answers"] for line in lines(tmp_path / "log.jsonl")] == [4]
    first, *_ = lines(whole / "log.jsonl")
    assert int(str(first["answers"])) > 4


def test_another_seed_gives_another_adapter_and_the_mean_lies_between(
    whole: Path, checkpoint_dirs: dict[str, Path], records: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    run(checkpoint_dirs["gemma3"], records, other, "--steps", "3", "--seed", "2")
    average([whole / "adapter", other / "adapter"], tmp_path / "mean")
    first, second, mean = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (whole / "adapter", other / "adapter", tmp_path / "mean")
    )
    moved = [name for name in first if not torch.equal(first[name], second[name])]
    assert moved
    for name in moved:
        torch.testing.assert_close(
            mean[name].float(), (first[name].float() + second[name].float()) / 2, rtol=0, atol=1e-2
        )
    assert (tmp_path / "mean" / "adapter_config.json").exists()


def test_learning_curves_show_every_run_and_every_policy(whole: Path, tmp_path: Path) -> None:
    draw([whole], tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text()
    for label in ("whole", "whole: harassment", "whole: prompt_injection"):
        assert f"<!-- {label} -->" in text
