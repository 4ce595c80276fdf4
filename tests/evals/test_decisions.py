"""What a set does to a run's records is what the moderator would decide on the same scores."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.decisions import Kind, decide_run
from evals.errors import RunError
from evals.finished import FinishedRun, read_run
from moderation.verdict import PartCoverage, WindowScore, decide, score_policy
from policies import Action, PolicySet, Surface, load_library
from tests.evals.runs_on_disk import rows, write_run

LIBRARY = load_library()
IDS = ("harassment", "violence", "self_harm")
SET = PolicySet.model_validate(
    {
        "id": "tried",
        "version": 1,
        "policies": [
            {"id": "harassment", "threshold": {"flag": 0.3, "review": 0.6, "block": 0.9}},
            {"id": "violence", "threshold": 0.5, "action": "redact"},
            {"id": "self_harm", "threshold": 0.2, "action": "block", "mode": "shadow"},
        ],
    }
)
ASKED = st.fixed_dictionaries(
    {},
    optional={
        policy: st.tuples(st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.59, 0.6, 0.9, 1.0]), st.booleans())
        for policy in IDS
    },
)
RECORDS = st.lists(
    st.tuples(ASKED, st.sampled_from(["scored", "partial"])).filter(lambda each: bool(each[0])),
    min_size=1,
    max_size=30,
)


def finished(folder: Path, frame: pl.DataFrame) -> FinishedRun:
    empty = np.zeros(0)
    return read_run(write_run(folder, empty.astype(bool), empty, more=frame))


def frame_of(records: list[tuple[dict[str, tuple[float, bool]], str]]) -> pl.DataFrame:
    parts = []
    for number, (asked, coverage) in enumerate(records):
        for policy, (score, label) in asked.items():
            row = rows(np.array([label]), np.array([score]), policy=policy)
            parts.append(
                row.with_columns(record_id=pl.lit(f"r{number}"), coverage=pl.lit(coverage))
            )
    return pl.concat(parts)


def expected(asked: dict[str, tuple[float, bool]], coverage: str) -> Action:
    scores = [
        score_policy(
            LIBRARY.policy(rule.id),
            rule,
            [WindowScore(part=0, surface=Surface.PROMPT, start=0, end=1, raw=asked[rule.id][0])],
        )
        for rule in SET.policies
        if rule.id in asked
    ]
    part = PartCoverage(
        part=0,
        modality="text",
        status="partial" if coverage == "partial" else "scored",
        tokens=1,
        windows=1,
    )
    return decide(SET, scores, [part])


def counts(kind: Kind) -> dict[Action, int]:
    return {action: share.count for action, share in kind.actions.items() if share.count}


@settings(deadline=None)  # each example is a run on disk
@given(RECORDS)
def test_each_record_gets_what_the_moderator_would_decide(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[dict[str, tuple[float, bool]], str]],
) -> None:
    folder = tmp_path_factory.mktemp("run") / "run"
    found = decide_run(finished(folder, frame_of(records)), SET, LIBRARY)
    for kind, harmful in ((found.harmless, False), (found.violating, True)):
        members = [
            each for each in records if any(label for _, label in each[0].values()) == harmful
        ]
        assert kind.n == len(members)
        assert counts(kind) == Counter(expected(*each) for each in members)
        assert kind.partial == sum(coverage == "partial" for _, coverage in members)
        assert kind.partly_asked == sum(
            not {"harassment", "violence"} <= asked.keys() for asked, _ in members
        )
        blocked = sum(asked.get("self_harm", (0, False))[0] >= 0.2 for asked, _ in members)
        if members:  # what a policy in shadow would do alone
            assert kind.policies["self_harm"][Action.BLOCK].count == blocked
            assert sum(share.share for share in kind.actions.values()) == pytest.approx(1)


def test_what_could_not_be_scored_is_counted_apart(tmp_path: Path) -> None:
    frame = rows(np.array([False, True, True]), np.array([0.95, 0.1, 0.1]))
    broken = pl.col("record_id") == "prompt-2"
    frame = frame.with_columns(
        raw=pl.when(broken).then(None).otherwise("raw"),
        calibrated=pl.when(broken).then(None).otherwise("calibrated"),
        error=pl.when(broken).then(pl.lit("too_large")),
    )
    found = decide_run(finished(tmp_path / "run", frame), SET, LIBRARY)
    assert (found.harmless.n, found.harmless.not_scored) == (1, 0)
    assert (found.violating.n, found.violating.not_scored) == (1, 1)
    assert found.harmless.actions[Action.BLOCK].count == 1


def test_scores_by_other_words_decide_nothing(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", rows(np.array([True]), np.array([0.5])))
    policies = {**run.manifest.policy_set.policies, "violence": "other"}
    run.manifest.policy_set.policies.update(policies)
    with pytest.raises(RunError, match="'violence' by other words"):
        decide_run(run, SET, LIBRARY)


def test_a_run_without_the_policies_of_the_set_is_refused(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", rows(np.array([True]), np.array([0.5]), policy="hate_speech"))
    with pytest.raises(RunError, match=r"no labelled scores of a policy of 'tried'.*hate_speech"):
        decide_run(run, SET, LIBRARY)
