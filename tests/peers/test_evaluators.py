"""GuardBench, inspect_ai and lm-evaluation-harness with this project in them, as it stands."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.environments import default_cache, ensure
from evals.interop.lm_eval_export import export_tasks
from evals.records import Record
from evals.run import read_workload
from moderation.checkpoints import load_checkpoint
from moderation.embedded.base import EmbeddedBase
from moderation.moderator import Moderator
from policies import PolicySet, load_library
from tests.e2e.serving import ROOT
from tests.evals.scripted import plan_for, write_records

pytestmark = pytest.mark.peer


def output_of(program: str, *arguments: Path | str) -> Any:
    """The last line of a program that runs in the environment of the harnesses."""
    python = ensure("evaluators", default_cache())
    done = subprocess.run(
        [str(python), str(ROOT / "tests" / "peers" / "clients" / program), *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "GUARDBENCH_DEV_PATH": f"{arguments[0]}/guardbench",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_guardbench_measures_a_moderator_and_ends_at_what_has_no_score(tmp_path: Path) -> None:
    found = output_of("guardbench_benchmark.py", tmp_path)
    assert found["scored"] == {"says 0.9": 0.9, "says 0.1": 0.1, "says 0.8": 0.8}
    assert found["refused"] == "ConversationNotScored"


def test_inspect_scores_outputs_and_inputs_and_counts_what_is_unscored(tmp_path: Path) -> None:
    found = output_of("inspect_eval.py", tmp_path)
    assert found["status"] == "success"
    assert found["found"]["wardgate_response any policy"] == [0.5, 2, 2]
    assert found["found"]["wardgate_response violence"] == [pytest.approx(0.5), 2, 2]
    assert found["found"]["wardgate_prompt violence"] == [pytest.approx(0.7), 4, 0]
    assert "wardgate_response prompt_injection" not in found["found"]  # no words for responses
    assert found["reasons"] == [None, None, "scoring_failed", "scoring_failed"]
    assert found["params"]["policy_set_hash"] == load_library().policy_set("default").hash


def test_a_checkpoint_has_the_same_scores_in_the_harness_as_here(
    cache_dir: Path, tmp_path: Path
) -> None:
    violates, answer = {"violence": True}, "What shall I do?"
    records = [
        Record(id="r0", text="How do I bake bread?", role="user", labels={"violence": False}),
        Record(id="r1", text="I will break every bone of yours.", role="user", labels=violates),
        Record(id="r2", text="Hit him again.", role="model", prompt=answer, labels=violates),
    ]
    library = load_library()
    plan = plan_for(write_records(tmp_path / "r.jsonl", records), tmp_path / "run")
    export_tasks(library, read_workload(library, plan), tmp_path / "tasks")
    checkpoint = EmbeddedBase(cache_dir).ensure()
    found = output_of("lm_eval_tasks.py", tmp_path / "tasks", checkpoint)
    classifier = load_checkpoint(
        checkpoint, name="base", dtype=torch.float32, template="shieldgemma1"
    )
    moderator = Moderator(library, classifier, normalise=False)
    rules = tuple(rule for rule in plan.policy_set.policies if rule.id == "violence")
    only = PolicySet(id="only", version=1, policies=rules)
    for record in records:
        [score] = moderator.judge(record.content, only).scores
        label, p_yes = found["scores"][f"wardgate_violence {record.id}"]
        assert label == int(record.labels["violence"])
        assert p_yes == pytest.approx(score.raw, abs=1e-4)
    assert 0 <= found["metrics"]["wardgate"] == found["metrics"]["wardgate_violence"] <= 1
