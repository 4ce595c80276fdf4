"""Thresholds by target: right on the data, certified beyond it, refused where it is too little."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.metrics import Bools, Floats, best_f1, wilson
from evals.thresholds import (
    Refusal,
    Target,
    choose,
    find_threshold,
    parse_target,
)

ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 1e-5, 0.25, 0.3, 0.9, 1.0]) | st.floats(0, 1)),
    min_size=60,
    max_size=120,
).map(lambda rows: [(label, 1.0 if score > 1 - 1e-9 else score) for label, score in rows])
RATES = st.floats(0.1, 0.9)


def draw(size: int, share: float, rng: np.random.Generator) -> tuple[Bools, Floats]:
    """Negatives are uniform, so that their rate above t is 1 - t; positives lean to 1."""
    labels = rng.random(size) < share
    return labels, np.where(labels, rng.beta(4, 1, size), rng.random(size))


def bounds(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's interval, which has tests of its own."""
    found = wilson(successes, trials)
    assert found is not None
    return found.low, found.high


def as_arrays(rows: list[tuple[bool, float]]) -> tuple[Bools, Floats]:
    return np.array([label for label, _ in rows]), np.array([score for _, score in rows])


@settings(deadline=None)
@given(ROWS, RATES)
def test_max_fpr_is_the_lowest_threshold_whose_interval_is_within_it(
    rows: list[tuple[bool, float]], rate: float
) -> None:
    labels, scores = as_arrays(rows)
    num_neg = int((~labels).sum())
    try:
        threshold = find_threshold(Target("max_fpr", rate), labels, scores)
    except Refusal:
        certain = num_neg > 0 and bounds(0, num_neg)[1] <= rate
        # what is left is that so many negatives score 1 that no threshold excludes them
        at_the_end = int(np.sum(scores[~labels] >= np.nextafter(1.0, 0.0)))
        assert not certain or bounds(at_the_end, num_neg)[1] > rate
        return
    assert 0 < threshold < 1

    def high(at: float) -> float:
        return bounds(int(np.sum(scores[~labels] >= at)), num_neg)[1]

    assert high(threshold) <= rate + 1e-9
    lower = scores[(scores < threshold) & (scores > 0)]
    assert all(high(each) > rate - 1e-9 or _same(scores, each, threshold) for each in lower)


def test_max_fpr_is_refused_where_negatives_score_next_to_1() -> None:
    labels, scores = np.arange(200) < 20, np.full(200, np.nextafter(1.0, 0.0))
    with pytest.raises(Refusal, match="so that no threshold can reach"):
        find_threshold(Target("max_fpr", 0.1), labels, scores)


def _same(scores: Floats, one: float, other: float) -> bool:
    return bool(np.sum(scores >= one) == np.sum(scores >= other))


@settings(deadline=None)
@given(ROWS, RATES)
def test_min_recall_is_the_highest_threshold_whose_interval_is_within_it(
    rows: list[tuple[bool, float]], rate: float
) -> None:
    labels, scores = as_arrays(rows)
    num_pos = int(labels.sum())
    try:
        threshold = find_threshold(Target("min_recall", rate), labels, scores)
    except Refusal:
        certain = num_pos > 0 and bounds(num_pos, num_pos)[0] >= rate
        assert not certain or bounds(int(np.sum(scores[labels] > 0)), num_pos)[0] < rate
        return
    assert 0 < threshold < 1

    def low(at: float) -> float:
        return bounds(int(np.sum(scores[labels] >= at)), num_pos)[0]

    assert low(threshold) >= rate - 1e-9
    higher = scores[(scores > threshold) & (scores < 1)]
    assert all(low(each) < rate + 1e-9 or _same(scores, each, threshold) for each in higher)


def test_best_f1_is_the_best_and_a_short_number() -> None:
    labels, scores = draw(400, 0.4, np.random.default_rng(0))
    choice = choose(Target("best_f1"), labels, scores)
    best = best_f1(labels, scores)
    assert best is not None
    assert choice.f1 == pytest.approx(best.f1)
    assert len(repr(choice.threshold)) <= 8
    assert choice.f1_interval is not None
    assert choice.f1_interval.low < best.f1 < choice.f1_interval.high


@pytest.mark.parametrize("target", ["max_fpr=0.05", "min_recall=0.8"])
def test_a_chosen_threshold_holds_its_target_on_all_that_is_still_to_come(target: str) -> None:
    """Of 1000 drawn data sets at most 4% may choose a threshold that breaks the target: 2.5% is
    what a 95% interval leaves on one side, and Wilson's is near it only."""
    wanted = parse_target(target)
    broken, rates = 0, []
    for seed in range(1000):
        labels, scores = draw(400, 0.5, np.random.default_rng(seed))
        threshold = find_threshold(wanted, labels, scores)
        # of uniform negatives 1 - t are flagged; of beta(4, 1) positives 1 - t^4
        rate = 1 - threshold if wanted.kind == "max_fpr" else 1 - threshold**4
        rates.append(rate)
        assert wanted.rate is not None
        broken += rate > wanted.rate if wanted.kind == "max_fpr" else rate < wanted.rate
    assert broken <= 40
    # and it is no idle promise: the target is used, not just kept
    assert wanted.rate is not None
    assert abs(np.mean(rates) - wanted.rate) < 0.08


def test_the_point_estimate_would_break_the_target_half_of_the_time() -> None:
    """That the simulation above can fail."""
    broken = 0
    for seed in range(200):
        labels, scores = draw(400, 0.5, np.random.default_rng(seed))
        broken += bool(1 - np.quantile(scores[~labels], 0.95) > 0.05)
    assert broken > 60


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "max_fpr=0.01",
            "20 negatives cannot certify max_fpr=0.01: .* at least 381, so add benign",
        ),
        ("min_recall=0.99", "20 positives cannot certify min_recall=0.99: .* at least 381,"),
        ("best_f1", "20 positives and 20 negatives are too few"),
    ],
)
def test_too_little_data_is_refused_with_what_is_missing(target: str, message: str) -> None:
    labels = np.arange(40) % 2 == 0
    with pytest.raises(Refusal, match=message):
        choose(parse_target(target), labels, np.linspace(0.1, 0.9, 40))


def test_one_record_less_than_needed_is_refused_and_none_less_is_not() -> None:
    for size, enough in ((380, False), (381, True)):
        scores, labels = np.linspace(0.01, 0.5, size), np.zeros(size, dtype=np.bool_)
        if enough:
            assert choose(Target("max_fpr", 0.01), labels, scores).counts.fp == 0
        else:
            with pytest.raises(Refusal, match="at least 381"):
                choose(Target("max_fpr", 0.01), labels, scores)


@pytest.mark.parametrize(
    ("target", "labels", "score"),
    [("max_fpr=0.1", False, 1.0), ("min_recall=0.9", True, 0.0)],
)
def test_scores_that_no_threshold_tells_apart_are_refused(
    target: str, labels: bool, score: float
) -> None:
    with pytest.raises(Refusal, match="no threshold can reach"):
        choose(parse_target(target), np.full(500, labels), np.full(500, score))


def test_benign_records_take_the_place_of_the_negatives() -> None:
    labels, scores = draw(200, 0.5, np.random.default_rng(1))
    benign = np.linspace(0.0, 0.2, 1000)
    choice = choose(Target("max_fpr", 0.01), labels, scores, benign=benign)
    assert choice.threshold < 0.2
    assert choice.counts.fp + choice.counts.tn == 1000
    assert choice.counts.tp + choice.counts.fn == labels.sum()
    assert choice.fpr is not None
    assert choice.fpr.high <= 0.01


def test_without_positives_recall_is_unknown_and_not_zero() -> None:
    choice = choose(Target("max_fpr", 0.5), np.zeros(50, dtype=np.bool_), np.linspace(0, 1, 50))
    assert (choice.recall, choice.f1, choice.counts.recall) == (None, None, None)


@pytest.mark.parametrize("text", ["max_fpr", "max_fpr=0", "min_recall=1", "best_f1=1", "f=0.5"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no target; expected max_fpr=RATE"):
        parse_target(text)


COST = Target("cost", fp_cost=1.0, fn_cost=20.0)


@settings(deadline=None, max_examples=50)
@given(ROWS, st.floats(0.1, 10), st.floats(0.1, 10))
def test_the_least_cost_is_the_least_of_all_thresholds(
    rows: list[tuple[bool, float]], fp_cost: float, fn_cost: float
) -> None:
    labels, scores = as_arrays(rows)
    labels = np.concatenate([labels, np.arange(60) % 2 == 0])  # enough of each
    scores = np.concatenate([scores, np.linspace(0, 1, 60)])

    def cost(at: float) -> float:
        flagged = scores >= at
        return float(np.mean(np.where(labels, fn_cost * ~flagged, fp_cost * flagged)))

    least = min(map(cost, (*scores, 2.0)))
    target = Target("cost", fp_cost=fp_cost, fn_cost=fn_cost)
    try:
        choice = choose(target, labels, scores)
    except Refusal:
        assert least >= min(cost(0.0), cost(2.0)) - 1e-9
        return
    assert cost(choice.threshold) == pytest.approx(least)
    assert choice.cost == pytest.approx(least)
    assert choice.cost_interval is not None
    assert choice.cost_interval.low <= choice.cost_interval.high
    assert least <= choice.cost_interval.high


def test_with_benign_records_the_cost_keeps_the_share_of_violations() -> None:
    labels, scores = draw(400, 0.25, np.random.default_rng(3))
    choice = choose(COST, labels, scores, benign=np.linspace(0.0, 0.5, 4000))
    counts, share = choice.counts, float(labels.mean())
    missed, fpr = counts.fn / (counts.tp + counts.fn), counts.fp / 4000
    assert choice.cost == pytest.approx(20 * share * missed + (1 - share) * fpr)


def test_with_benign_records_one_negative_is_enough() -> None:
    labels, target = np.arange(50) > 0, Target("cost", fp_cost=100.0, fn_cost=1.0)
    choice = choose(target, labels, np.linspace(0.4, 1.0, 50), benign=np.linspace(0.0, 0.6, 100))
    assert choice.cost_interval is not None
    assert choice.recall is not None
    assert 0 < choice.recall.low < choice.recall.high < 1


def test_costs_at_which_no_threshold_pays_are_refused() -> None:
    labels, scores = np.arange(100) % 2 == 0, np.linspace(0.1, 0.9, 100)[::-1].copy()
    scores[labels], scores[~labels] = 0.2, 0.8  # upside down
    with pytest.raises(Refusal, match=r"costs less than to flag everything \(0.5 a record\)"):
        choose(COST, labels, scores)
    with pytest.raises(Refusal, match=r"costs less than to flag nothing \(0.5 a record\)"):
        choose(Target("cost", fp_cost=20.0, fn_cost=1.0), labels, scores)
    with pytest.raises(
        Refusal, match="20 positives and 20 negatives are too few to choose by cost"
    ):
        choose(COST, labels[:40], scores[:40])


@pytest.mark.parametrize("costs", [{}, {"fp_cost": 1.0}, {"fp_cost": 1.0, "fn_cost": 0.0}])
def test_a_cost_target_needs_both_costs(costs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs --fp-cost and --fn-cost, both over 0"):
        parse_target("cost", **costs)


def test_costs_without_their_target_are_refused() -> None:
    with pytest.raises(ValueError, match="belong to the target cost, not to 'best_f1'"):
        parse_target("best_f1", fp_cost=1.0, fn_cost=2.0)
