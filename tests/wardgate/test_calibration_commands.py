"""`wardgate eval calibrate` and `thresholds`, and what every command makes of a calibration."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from moderation.calibration import read_calibration
from moderation.content import Content
from policies import PolicySet, Surface, load_file, load_library
from service.models import load_moderator
from service.settings import load_settings
from tests.evals.runs_on_disk import POLICY, overconfident, rows, write_run
from tests.moderation.small_tokenizer import small_tokenizer_json
from tests.moderation.speaking import SERVED, serving
from wardgate.main import app

HARASSMENT = load_library().policy(POLICY)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels, raw = overconfident(1000, seed=1)
    few = rows(labels[:20], raw[:20], policy="hate_speech")
    return write_run(tmp_path / "run", labels, raw, more=few)


@pytest.fixture
def calibration(folder: Path, tmp_path: Path) -> Path:
    out = tmp_path / "calibration.json"
    assert run("eval", "calibrate", folder, "--out", out)[0] == 0
    return out


def test_calibrate_writes_a_file_and_says_what_it_gained(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "calibration.json"
    code, shown, _ = run("eval", "calibrate", folder, "--out", out, "--method", "platt")
    assert code == 0
    found = read_calibration(out)
    assert f"{found.id}: {out}" in shown
    entry = found.policies[POLICY].surfaces[Surface.PROMPT]
    assert entry.before is not None
    assert entry.after is not None
    (line,) = [each for each in shown.splitlines() if POLICY in each]
    assert f"{entry.before.ece:.3f} -> {entry.after.ece:.3f}" in line
    assert "platt" in line
    assert "none: raw" in shown
    assert "hate_speech, prompt:" in shown


def test_calibrate_prints_the_file_with_json(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "calibration.json"
    code, shown, _ = run("eval", "calibrate", folder, "--out", out, "--json")
    assert (code, json.loads(shown)) == (0, json.loads(out.read_text()))


def test_nothing_to_fit_is_a_failure(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", *overconfident(20, seed=1))
    assert run("eval", "calibrate", folder, "--out", tmp_path / "c.json")[0] == 1


@pytest.mark.parametrize("options", [["--prior", "0"], ["--prior", "1.5"], ["--folds", "1"]])
def test_wrong_options_are_wrong_use(folder: Path, tmp_path: Path, options: list[str]) -> None:
    assert run("eval", "calibrate", folder, "--out", tmp_path / "c.json", *options)[0] == 2


def test_a_folder_without_a_run_is_a_clear_error(tmp_path: Path) -> None:
    code, shown, _ = run("eval", "calibrate", tmp_path, "--out", tmp_path / "c.json", "--json")
    assert code == 1
    assert json.loads(shown)["error"]["code"] == "run_error"
    assert "holds no finished run" in json.loads(shown)["error"]["message"]


def test_thresholds_prints_a_policy_set_that_loads(folder: Path, tmp_path: Path) -> None:
    code, shown, _ = run(
        *("eval", "thresholds", folder, "--target", "max_fpr=0.05", "--policies", POLICY),
        *("--action", "flag"),
    )
    assert code == 0
    path = tmp_path / "chosen.yaml"
    path.write_text(shown[shown.index("# max_fpr") :])
    loaded = load_file(path)
    assert isinstance(loaded, PolicySet)
    [rule] = loaded.policies
    assert (rule.id, rule.action) == (POLICY, "flag")
    assert f" {rule.threshold:g} (raw)" in shown


def test_thresholds_by_cost_show_the_cost(folder: Path) -> None:
    options = ("eval", "thresholds", folder, "--policies", POLICY, "--target", "cost")
    code, shown, _ = run(*options, "--fp-cost", 1, "--fn-cost", 20, "--json")
    found = json.loads(shown)["policies"][POLICY]
    assert code == 0
    share = (found["tp"] + found["fn"]) / 1000
    missed, fpr = found["fn"] / (found["tp"] + found["fn"]), found["fpr"]
    assert found["cost"] == pytest.approx(20 * share * missed + (1 - share) * fpr)
    assert found["cost_ci95"][0] < found["cost"] < found["cost_ci95"][1]
    _, table, _ = run(*options, "--fp-cost", 1, "--fn-cost", 20)
    assert f"{found['cost']:.3f} [" in table
    assert "# cost (fp 1, fn 20) on run.jsonl" in table
    assert run(*options)[0] == 2
    assert run(*options[:4], "--target", "best_f1", "--fp-cost", 1)[0] == 2


def test_a_refusal_of_all_policies_prints_no_empty_table(folder: Path) -> None:
    options = ("eval", "thresholds", folder, "--target", "max_fpr=0.01")
    code, shown, _ = run(*options, "--policies", "hate_speech")
    assert code == 1
    assert shown.startswith("refused  hate_speech: ")
    assert "thresholds for" not in shown


def test_thresholds_are_those_of_the_calibrated_scores(folder: Path, calibration: Path) -> None:
    options = ("eval", "thresholds", folder, "--target", "best_f1", "--policies", POLICY, "--json")
    raw = json.loads(run(*options)[1])
    calibrated = json.loads(run(*options, "--calibration", calibration)[1])
    assert raw["calibration"] is None
    assert calibrated["calibration"] == read_calibration(calibration).id
    curve = read_calibration(calibration).curve(HARASSMENT, Surface.PROMPT)
    assert curve is not None
    same = [found["policies"][POLICY]["tp"] for found in (raw, calibrated)]
    assert same[0] == same[1]
    below = curve(raw["policies"][POLICY]["threshold"])
    assert calibrated["policies"][POLICY]["threshold"] == pytest.approx(below, abs=0.02)


def test_a_policy_that_cannot_be_certified_fails_and_the_others_are_printed(folder: Path) -> None:
    code, shown, _ = run("eval", "thresholds", folder, "--target", "max_fpr=0.05", "--json")
    found = json.loads(shown)
    assert code == 1
    assert list(found["policies"]) == [POLICY]
    assert "negatives cannot certify max_fpr=0.05" in found["refused"]["hate_speech"]
    assert "hate_speech:" in found["policy_set"]
    assert [rule["id"] for rule in yaml.safe_load(found["policy_set"])["policies"]] == [POLICY]


def test_false_positives_of_a_benign_run(folder: Path, tmp_path: Path) -> None:
    _, raw = overconfident(3000, seed=2)
    benign = write_run(tmp_path / "benign", raw < 0, raw / 10)
    code, shown, _ = run(
        *("eval", "thresholds", folder, "--target", "max_fpr=0.01", "--policies", POLICY),
        *("--benign-run", benign, "--json"),
    )
    assert code == 0
    found = json.loads(shown)
    assert found["benign_data"] == "benign.jsonl"
    assert found["policies"][POLICY]["threshold"] <= 0.1
    other = write_run(tmp_path / "other", raw < 0, raw, revision="2")
    code, _, error = run(
        *("eval", "thresholds", folder, "--target", "best_f1", "--benign-run", other)
    )
    assert code == 1
    assert "expected runs of one model" in error


def test_wrong_targets_and_policies_are_wrong_use(folder: Path) -> None:
    assert run("eval", "thresholds", folder, "--target", "max_fpr=2")[0] == 2
    code, _, error = run(
        "eval", "thresholds", folder, "--target", "best_f1", "--policies", "violence"
    )
    assert code == 2
    assert "'violence'" in error


def test_a_run_of_another_model_takes_no_calibration(tmp_path: Path, calibration: Path) -> None:
    other = write_run(tmp_path / "other", *overconfident(500, seed=3), revision="2")
    code, _, error = run(
        "eval", "thresholds", other, "--target", "best_f1", "--calibration", calibration
    )
    assert code == 1
    assert "was fitted for scripted of revision '1'" in error


def test_a_model_on_a_server_is_calibrated_by_every_command(
    tmp_path: Path, calibration: Path
) -> None:
    with serving() as server:
        (tmp_path / "tokenizer.json").write_text(small_tokenizer_json(), encoding="utf-8")
        spec = {"url": server.url, "model": SERVED, "tokenizer": str(tmp_path)}
        spec |= {"template": "compact", "revision": "1"}
        judge, other = tmp_path / "judge.yaml", tmp_path / "other.yaml"
        judge.write_text(yaml.safe_dump(spec))
        other.write_text(yaml.safe_dump(spec | {"revision": "2"}))
        fitted = read_calibration(calibration)
        curve = fitted.curve(HARASSMENT, Surface.PROMPT)
        assert curve is not None
        options = ("--policies", "all", "--calibration", calibration)

        code, shown, warned = run("score", "hello", "--model", judge, *options, "--json")
        assert code == 0, shown
        verdict = json.loads(shown)
        assert verdict["models"][0]["calibration"] == fitted.id
        for score in verdict["scores"]:
            assert score["is_calibrated"] is (score["policy"] == POLICY)
            expected = curve(score["raw"]) if score["is_calibrated"] else score["raw"]
            assert score["calibrated"] == expected
        assert f"warning: {fitted.id} leaves scores raw" in warned
        assert "violence is not in it" in warned

        code, shown, warned = run("score", "hello", "--model", other, *options)
        assert code == 1
        assert "was fitted for scripted of revision '1'" in shown + warned

        code, shown, _ = run("score", "hello", "--model", judge, *options)
        assert "(raw)" in shown
        assert fitted.id in shown

        data = tmp_path / "data.jsonl"
        data.write_text(
            json.dumps({"id": "a", "text": "hi", "role": "user", "labels": {POLICY: False}})
        )
        out = tmp_path / "evaluated"
        code, _, _ = run("eval", "run", "--data", data, "--out", out, "--model", judge, *options)
        assert code == 0
        assert json.loads((out / "run.json").read_text())["model"]["calibration"] == fitted.id

        settings = load_settings(
            overrides={
                "model": str(judge),
                "calibration": calibration,
                "policy_set": "all",
                "ocr": False,
            }
        )
        told: list[str] = []
        library = load_library()
        moderator = load_moderator(settings, library, told.append)
        judged = moderator.judge(Content.prompt("hello"), library.policy_set("all"))
        assert {score.policy_id for score in judged.scores if score.is_calibrated} == {POLICY}
        assert any(f"{fitted.id} leaves scores raw" in line for line in told)
