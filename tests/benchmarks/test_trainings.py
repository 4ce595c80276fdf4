"""Adapters of training runs are scored in their own layouts, on the same records."""

import json
from pathlib import Path

import pytest

from benchmarks.trainings import main
from moderation.training.train import main as train
from tests.moderation.checkpoints_on_disk import write_gemma3
from tests.moderation.training_records import write_records


def test_two_layouts_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_records(tmp_path / "records.jsonl")
    base = write_gemma3(tmp_path / "base")
    for template in ("compact", "compositional"):
        run = str(tmp_path / template)
        about = ("--batch", "2", "--rank", "4", "--steps", "1", "--template", template)
        train(["--base", str(base), "--data", str(data), "--out", run, *about])
    runs = [str(tmp_path / template) for template in ("compact", "compositional")]
    out = tmp_path / "compared"
    main([*runs, "--data", str(data), "--out", str(out), "--base", str(base)])
    printed = capsys.readouterr().out
    found = json.loads((out / "trainings.json").read_text())
    for template in ("compact", "compositional"):
        assert f"| {template} | " in printed
        manifest = json.loads((out / template / "run.json").read_text())
        assert manifest["model"]["template"] == template
        assert set(found[template]["policies"]) == {"harassment", "prompt_injection"}
        assert len(found[template]["cpu_s_a_text"]) == 3
        assert min(found[template]["cpu_s_a_text"]) > 0
