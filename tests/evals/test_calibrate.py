"""Fitting a calibration: what is chosen, what is refused, and that probabilities are ones."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from evals.calibrate import METHODS, MIN_OF_EACH, Method, calibrate, fit
from evals.errors import RunError
from evals.finished import read_runs
from evals.metrics import Bools, Floats, ece
from moderation.calibration import Calibration, Identity, Isotonic, Platt, Temperature, to_logit
from policies import Surface, load_library
from tests.evals.runs_on_disk import POLICY, overconfident, rows, sigmoid, write_run

HARASSMENT = load_library().policy(POLICY)


def fitted(folder: Path, *, methods: tuple[Method, ...] = METHODS) -> Calibration:
    return calibrate(read_runs([folder]), methods=methods)


def probabilities(calibration: Calibration, raw: Floats, surface: Surface) -> Floats:
    curve = calibration.curve(HARASSMENT, surface)
    assert curve is not None
    return np.array([curve(each) for each in raw])


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_overconfident_scores_become_probabilities_on_records_never_seen(
    tmp_path: Path, method: Method
) -> None:
    calibration = fitted(
        write_run(tmp_path / "run", *overconfident(4000, seed=1)), methods=(method,)
    )
    labels, raw = overconfident(20_000, seed=2)
    assert ece(labels, raw) > 0.1
    assert ece(labels, probabilities(calibration, raw, Surface.PROMPT)) < 0.02


def test_the_cross_validated_error_is_that_of_records_never_seen(tmp_path: Path) -> None:
    calibration = fitted(write_run(tmp_path / "run", *overconfident(4000, seed=3)))
    entry = calibration.policies[POLICY].surfaces[Surface.PROMPT]
    assert entry.before is not None
    assert entry.after is not None
    labels, raw = overconfident(40_000, seed=4)
    calibrated = probabilities(calibration, raw, Surface.PROMPT)
    assert entry.before.ece == pytest.approx(ece(labels, raw), abs=0.02)
    assert entry.after.brier == pytest.approx(np.mean((calibrated - labels) ** 2), abs=0.01)
    assert entry.after.log_loss < entry.before.log_loss


def test_the_method_that_made_the_scores_is_chosen(tmp_path: Path) -> None:
    def chosen(name: str, labels: Bools, raw: Floats) -> str:
        calibration = fitted(write_run(tmp_path / name, labels, raw))
        return calibration.policies[POLICY].surfaces[Surface.PROMPT].curve.method

    assert chosen("shifted", *overconfident(3000, seed=5, slope=2, shift=2)) == "platt"
    rng = np.random.default_rng(6)
    raw = rng.random(3000)
    stairs = np.where(raw < 0.3, 0.02, np.where(raw < 0.7, 0.5, 0.6))
    assert chosen("stairs", rng.random(3000) < stairs, raw) == "isotonic"


def test_nothing_is_bent_where_nothing_is_gained() -> None:
    labels, raw = overconfident(3000, seed=7, slope=1, shift=0)
    logits = np.log(raw / (1 - raw))
    temperature = fit("temperature", logits, labels)
    assert isinstance(temperature, Temperature)
    assert temperature.temperature == pytest.approx(1, abs=0.1)
    assert isinstance(fit("identity", logits, labels), Identity)


def test_platt_is_a_logistic_regression() -> None:
    labels, raw = overconfident(3000, seed=8)
    logits = np.log(raw / (1 - raw))
    found = fit("platt", logits, labels)
    plain = LogisticRegression(C=np.inf, max_iter=1000).fit(logits[:, None], labels)
    assert isinstance(found, Platt)
    assert found.slope == pytest.approx(plain.coef_[0, 0], rel=0.02)
    assert found.intercept == pytest.approx(plain.intercept_[0], abs=0.02)


def test_separable_scores_have_a_finite_curve() -> None:
    logits = np.concatenate([np.full(60, -9.0), np.full(60, 9.0)])
    labels = logits > 0
    for method in METHODS:
        curve = fit(method, logits, labels)
        assert curve is not None
        assert abs(curve.logit(9.0)) < 20


def test_scores_that_are_upside_down_get_no_falling_curve() -> None:
    labels, raw = overconfident(2000, seed=9)
    logits = np.log(raw / (1 - raw))
    assert fit("platt", logits, ~labels) is None
    assert fit("temperature", logits, ~labels) is None
    level = fit("isotonic", logits, ~labels)
    assert isinstance(level, Isotonic)
    assert level.calibrated == tuple(sorted(level.calibrated))


def test_a_surface_with_few_records_takes_the_curve_of_all_and_says_so(tmp_path: Path) -> None:
    labels, raw = overconfident(1000, seed=10)
    few = rows(labels[:30], raw[:30], surface="response")
    calibration = fitted(write_run(tmp_path / "run", labels, raw, more=few))
    surfaces = calibration.policies[POLICY].surfaces
    assert surfaces[Surface.PROMPT].fitted_on == "surface"
    pooled = surfaces[Surface.RESPONSE]
    assert (pooled.fitted_on, pooled.records) == ("all_surfaces", 1030)
    assert pooled.reason is not None
    assert pooled.reason.endswith(f"{MIN_OF_EACH} of each are needed")
    assert calibration.gaps([HARASSMENT]) == []


def test_too_few_records_leave_scores_raw_and_say_so(tmp_path: Path) -> None:
    labels, raw = overconfident(60, seed=11)
    calibration = fitted(write_run(tmp_path / "run", labels, raw))
    entry = calibration.policies[POLICY].surfaces[Surface.PROMPT]
    assert (entry.fitted_on, entry.before, entry.after) == (None, None, None)
    assert calibration.curve(HARASSMENT, Surface.PROMPT) is None
    assert "positives and" in calibration.gaps([HARASSMENT])[0]


def test_the_same_runs_give_the_same_calibration(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", *overconfident(500, seed=12))
    assert fitted(folder).id == fitted(folder).id
    assert calibrate(read_runs([folder]), seed=1).id != fitted(folder).id


def test_a_prior_moves_the_mean_to_another_share(tmp_path: Path) -> None:
    """Scores of rarer violations, which the calibration never saw, are right under the prior."""
    common = overconfident(6000, seed=13)
    folder = write_run(tmp_path / "run", *common)
    labels, raw = overconfident(60_000, seed=14)
    rare = ~labels | (np.random.default_rng(15).random(len(labels)) < 0.1)
    labels, raw = labels[rare], raw[rare]
    right = calibrate(read_runs([folder]), methods=["platt"], prior=float(labels.mean()))
    wrong = calibrate(read_runs([folder]), methods=["platt"])
    assert ece(labels, probabilities(right, raw, Surface.PROMPT)) < 0.02
    assert ece(labels, probabilities(wrong, raw, Surface.PROMPT)) > 0.1


def test_runs_of_several_data_sets_count_together(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / name, *overconfident(200, seed=seed))
        for seed, name in enumerate(("one", "two"))
    ]
    calibration = calibrate(read_runs(folders))
    assert [each.name for each in calibration.data] == ["one.jsonl", "two.jsonl"]
    assert calibration.policies[POLICY].surfaces[Surface.PROMPT].records == 400


def test_runs_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", *overconfident(200, seed=1))
    other = write_run(tmp_path / "other", *overconfident(200, seed=1), revision="2")
    again = write_run(tmp_path / "x" / "one", *overconfident(200, seed=1))
    with pytest.raises(RunError, match=r"with revision '1', .* with '2'; expected"):
        read_runs([one, other])
    with pytest.raises(RunError, match="scored the same data"):
        read_runs([one, again])
    (other / "summary.json").unlink()
    with pytest.raises(RunError, match="holds no finished run"):
        read_runs([other])


def test_a_model_without_a_revision_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", *overconfident(200, seed=1), revision="unstated")
    with pytest.raises(RunError, match="add `revision:` to its file"):
        fitted(folder)


def test_sharp_scores_are_told_apart_down_to_the_clamp() -> None:
    assert to_logit(1e-6) < to_logit(2e-6) < to_logit(1e-5)
    assert sigmoid(np.array([to_logit(1e-5)]))[0] == pytest.approx(1e-5)
