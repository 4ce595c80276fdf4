"""Calibration: monotone curves, refused for another model, left out for other words."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.calibration import (
    CLAMP,
    Calibration,
    Curve,
    Identity,
    Isotonic,
    Platt,
    Temperature,
    calibration_json,
    read_calibration,
)
from moderation.content import Content, TextPart
from moderation.errors import ModelRefused, ModelUnavailable
from moderation.moderator import Moderator
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import verdict_to_dict
from policies import Action, PolicyLibrary, Surface
from tests.moderation.scripted import WordEngine, word_classifier
from tests.moderation.test_moderator import LIBRARY, WORDS, policy, policy_set

ANY = LIBRARY.policy("any")

finite = st.floats(-50, 50)
positive = st.floats(0.01, 100)


@st.composite
def isotonic(draw: st.DrawFn) -> Isotonic:
    raw = sorted(draw(st.lists(finite, min_size=1, max_size=8, unique=True)))
    calibrated = sorted(draw(st.lists(finite, min_size=len(raw), max_size=len(raw))))
    return Isotonic(raw=tuple(raw), calibrated=tuple(calibrated))


curves = st.one_of(
    st.just(Identity()),
    st.builds(Temperature, temperature=positive),
    st.builds(Platt, slope=positive, intercept=finite),
    isotonic(),
)
scores = st.floats(0, 1)
priors = st.none() | st.floats(0.001, 0.999)


def calibration(
    curve: Curve,
    *,
    prior: float | None = None,
    policy_hash: str = ANY.hash,
    revision: str = "1",
    fitted_on: str | None = "surface",
) -> Calibration:
    """For prompts under the policy `any` of the tests' library and a `WordEngine`."""
    entry: dict[str, Any] = {
        "curve": curve,
        "fitted_on": fitted_on,
        "records": 100,
        "positives": 20,
        "reason": None if fitted_on else "2 positives; expected 50",
    }
    return Calibration.model_validate(
        {
            "model": {"name": "words", "revision": revision, "template": "compact"},
            "data": [{"name": "dev.jsonl", "sha256": "0" * 64}],
            "folds": 5,
            "seed": 0,
            "prior": prior,
            "policies": {"any": {"hash": policy_hash, "surfaces": {"prompt": entry}}},
        }
    )


def apply(curve: Curve, raw: float, prior: float | None = None) -> float:
    found = calibration(curve, prior=prior).curve(ANY, Surface.PROMPT)
    assert found is not None
    return found(raw)


@given(curves, priors, scores, scores)
def test_a_higher_score_never_gets_a_lower_probability(
    curve: Curve, prior: float | None, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert 0 <= apply(curve, low, prior) <= apply(curve, high, prior) <= 1


@given(curves, priors)
def test_a_file_says_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, curve: Curve, prior: float | None
) -> None:
    path = tmp_path_factory.mktemp("calibration") / "calibration.json"
    written = calibration(curve, prior=prior)
    path.write_text(calibration_json(written))
    read = read_calibration(path)
    assert read == written
    assert read.id == written.id
    assert json.loads(path.read_text())["id"] == written.id


@given(scores)
def test_the_identity_changes_nothing(raw: float) -> None:
    assert apply(Identity(), raw) == raw


def test_curves_against_numbers_worked_out_by_hand() -> None:
    # logit(0.8) = ln 4, so half of it is ln 2 and its probability 2/3
    assert apply(Temperature(temperature=2), 0.8) == pytest.approx(2 / 3)
    # ln 4 - ln 2 = ln 2
    assert apply(Platt(slope=1, intercept=-math.log(2)), 0.8) == pytest.approx(2 / 3)
    # half way between the knots at 0 and ln 4 lies 0 for a raw logit of ln 2
    bent = Isotonic(raw=(0.0, math.log(4)), calibrated=(-1.0, 1.0))
    assert apply(bent, 2 / 3) == pytest.approx(0.5)
    assert apply(bent, 0.999) == pytest.approx(1 / (1 + math.exp(-1)))


def test_scores_beyond_the_clamp_are_alike() -> None:
    for curve in (Temperature(temperature=3), Platt(slope=2, intercept=1)):
        assert apply(curve, 0.0) == apply(curve, CLAMP) < apply(curve, 2 * CLAMP)
        assert apply(curve, 1.0) == apply(curve, 1 - CLAMP)


def test_a_prior_multiplies_the_odds() -> None:
    # of the data 20% violate: odds 1/4; with a prior of 50% all odds are four times as high
    assert apply(Identity(), 0.2, prior=0.5) == pytest.approx(0.5)
    assert apply(Identity(), 0.5, prior=0.2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"raw": [1.0, 0.0], "calibrated": [0.0, 1.0]},
        {"raw": [0.0, 1.0], "calibrated": [1.0, 0.0]},
        {"raw": [0.0, 0.0], "calibrated": [0.0, 1.0]},
        {"raw": [0.0, 1.0], "calibrated": [0.0]},
        {"raw": [], "calibrated": []},
    ],
)
def test_a_curve_that_falls_is_refused(wrong: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match=r"knots|at least 1"):
        Isotonic.model_validate(wrong)


def test_a_file_with_a_curve_that_falls_is_refused(tmp_path: Path) -> None:
    data = json.loads(calibration_json(calibration(Platt(slope=1, intercept=0))))
    data["policies"]["any"]["surfaces"]["prompt"]["curve"]["slope"] = -1
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ModelRefused, match=r"is no calibration: policies\.any.*greater than 0"):
        read_calibration(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "expected a JSON object"),
        ('{"format": 2}', "is no calibration: format"),
    ],
)
def test_what_is_no_calibration_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(ModelRefused, match=message):
        read_calibration(path)


def test_a_file_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    text = calibration_json(calibration(Temperature(temperature=2)))
    path.write_text(text.replace('"temperature": 2.0', '"temperature": 3.0'))
    with pytest.raises(ModelRefused, match="changed by hand"):
        read_calibration(path)


def test_a_missing_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be read: No such file"):
        read_calibration(tmp_path / "none.json")


@pytest.fixture
def engine(small_tokenizer: SafeTokenizer) -> WordEngine:
    return WordEngine(small_tokenizer, WORDS)


HALVED = Temperature(temperature=2)
"""Makes 0.551 of 0.6."""


def test_the_verdict_is_decided_by_the_calibrated_score(engine: WordEngine) -> None:
    fitted = calibration(Platt(slope=1, intercept=-3))
    moderator = Moderator(LIBRARY, word_classifier(engine).calibrated(fitted))
    verdict = moderator.judge(Content.prompt("a knife"), policy_set())
    (score,) = verdict.scores
    assert (score.raw, score.is_calibrated) == (0.6, True)
    assert score.calibrated == pytest.approx(1 / (1 + math.exp(3) / 1.5))
    assert (score.violates, verdict.action) == (False, Action.ALLOW)
    assert verdict.models[0].calibration == fitted.id
    raw = Moderator(LIBRARY, word_classifier(engine)).judge(Content.prompt("a knife"), policy_set())
    assert (raw.scores[0].calibrated, raw.scores[0].is_calibrated) == (0.6, False)
    assert raw.action is Action.BLOCK


@pytest.mark.parametrize(
    ("fitted", "why"),
    [
        (calibration(HALVED, policy_hash="0" * 12), "has other words now"),
        (calibration(HALVED, fitted_on=None), "no curve for a prompt (2 positives"),
    ],
)
def test_what_was_not_fitted_stays_raw_and_says_so(
    engine: WordEngine, fitted: Calibration, why: str
) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine).calibrated(fitted))
    verdict = moderator.judge(Content.prompt("a knife"), policy_set())
    score: dict[str, object] = verdict_to_dict(verdict)["scores"][0]  # type: ignore[index]
    assert score["calibrated"] == score["raw"] == 0.6
    assert score["is_calibrated"] is False
    assert why in fitted.gaps([ANY])[0]


def test_gaps_name_surfaces_and_policies_that_are_missing() -> None:
    fitted = calibration(HALVED)
    other = policy("other", prompt="No cake.", response="No cake.")
    assert fitted.gaps([ANY, other]) == ["any has no curve for a response", "other is not in it"]


def test_other_surfaces_stay_raw(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine).calibrated(calibration(HALVED)))
    (score,) = moderator.judge(Content.response("a knife"), policy_set()).scores
    assert (score.calibrated, score.is_calibrated) == (0.6, False)


def test_of_several_windows_the_highest_probability_counts(engine: WordEngine) -> None:
    classifier = word_classifier(engine).calibrated(calibration(HALVED))
    content = Content(
        surface=Surface.PROMPT, parts=(TextPart("cake"), TextPart("a knife"), TextPart("cake"))
    )
    (score,) = Moderator(LIBRARY, classifier).judge(content, policy_set()).scores
    assert score.raw == 0.6
    assert score.calibrated == apply(HALVED, 0.6)


@pytest.mark.parametrize("revision", ["2", ""])
def test_another_model_is_refused(engine: WordEngine, revision: str) -> None:
    with pytest.raises(ModelRefused, match=r"of revision .* make one for this model with wardgate"):
        word_classifier(engine).calibrated(calibration(HALVED, revision=revision))


def test_another_template_is_refused(engine: WordEngine) -> None:
    classifier = word_classifier(engine, template="shieldgemma1")
    with pytest.raises(ModelRefused, match="template shieldgemma1"):
        classifier.calibrated(calibration(HALVED))


def test_a_library_without_the_policy_is_no_error(engine: WordEngine) -> None:
    other = PolicyLibrary({"any": policy("any", prompt="No tea.", response="No tea.")}, {})
    moderator = Moderator(other, word_classifier(engine).calibrated(calibration(HALVED)))
    (score,) = moderator.judge(Content.prompt("a knife"), policy_set()).scores
    assert not score.is_calibrated
