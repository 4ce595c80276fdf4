"""Weighted metrics are those of rows written out as often as they weigh; records stay together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

from evals.resampling import METRICS, Scored, resample, weighted_metrics

SCORES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1))
ROWS = st.lists(
    st.tuples(st.booleans(), SCORES, st.booleans(), st.integers(0, 3)), min_size=2, max_size=30
)


@settings(deadline=None)
@given(rows=ROWS)
def test_weighted_metrics_are_those_of_sklearn_on_repeated_rows(
    rows: list[tuple[bool, float, bool, int]],
) -> None:
    columns = list(zip(*rows, strict=True))
    labels, flagged = np.array(columns[0], dtype=np.bool_), np.array(columns[2], dtype=np.bool_)
    scores, weights = np.array(columns[1], dtype=np.float64), np.array(columns[3])
    found = weighted_metrics(labels, scores, flagged, weights[None].astype(np.float64))[:, 0]
    repeated = [np.repeat(each, weights) for each in (labels, scores, flagged)]
    if len(np.unique(repeated[0])) < 2:
        assert np.isnan(found[:2]).all()
        return
    expected = [
        average_precision_score(repeated[0], repeated[1]),
        roc_auc_score(repeated[0], repeated[1]),
        f1_score(repeated[0], repeated[2], zero_division=0),
        1 - recall_score(repeated[0], repeated[2], pos_label=0),
    ]
    assert found == pytest.approx(expected)


def test_the_rows_of_a_record_are_drawn_together_and_both_runs_alike() -> None:
    """Twins of every row under a second policy: as if there were one policy only."""
    rng = np.random.default_rng(0)
    labels, scores = rng.random(80) < 0.5, rng.random(80)
    run = Scored(scores, scores >= 0.5)
    once = resample(np.arange(80), labels, [run], [np.arange(80)], seed=3, resamples=50)
    twins = Scored(np.tile(scores, 2), np.tile(scores >= 0.5, 2))
    record = np.tile(np.arange(80), 2)
    twice = resample(
        record, np.tile(labels, 2), [twins, twins], [np.arange(160)], seed=3, resamples=50
    )
    assert twice.shape == (2, 1, len(METRICS), 50)
    assert twice[0] == pytest.approx(once[0])
    assert (twice[0] == twice[1]).all()
    assert np.unique(once[0, 0, 0]).size > 40
