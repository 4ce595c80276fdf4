"""`wardgate models`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moderation.media.recognisers import are_installed
from tests.moderation.checkpoints_on_disk import edit_config, write_shieldgemma2
from wardgate.environment import default_cache_dir
from wardgate.main import app


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["models", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_list_names_every_model() -> None:
    code, out, _ = run("list")
    assert code == 0
    assert all(name in out for name in ("embedded", "shieldgemma-2-4b", "shieldgemma-27b"))


def test_the_list_as_json_says_where_models_come_from() -> None:
    models = {model["name"]: model for model in json.loads(run("list", "--json")[1])["models"]}
    assert models["shieldgemma-2-4b"]["source"] == "google/shieldgemma-2-4b-it"
    assert models["shieldgemma-2-4b"]["modalities"] == ["image"]
    assert models["shieldgemma-2-4b"]["by_evidence"] is False
    assert models["shieldgemma-2b"]["modalities"] == ["text"]


@pytest.mark.parametrize("installed", [True, False])
def test_the_embedded_models_judge_images_where_the_recognisers_are_installed(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert are_installed()  # as in every environment that runs these tests
    if not installed:
        monkeypatch.setattr("moderation.media.recognisers.find_spec", lambda _: None)
    models = {model["name"]: model for model in json.loads(run("list", "--json")[1])["models"]}
    for name in ("embedded", "embedded-base"):
        assert models[name]["modalities"] == ["text", "image"][: 1 + installed]
        assert models[name]["by_evidence"] is installed
    out = " ".join(run("list")[1].split())
    assert ("text, image (by evidence)" in out) is installed
    assert ("With the extra 'evidence'" in out) is not installed


def test_a_folder_that_is_no_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    code, out, err = run("check", tmp_path)
    assert (code, out) == (1, "")
    assert f"error: '{tmp_path}'" in err
    assert "config.json" in err


def test_another_architecture_is_refused_as_json(tmp_path: Path) -> None:
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, out, _ = run("check", tmp_path, "--json")
    error = json.loads(out)["error"]
    assert code == 1
    assert error["code"] == "model_refused"
    assert "BertForMaskedLM" in error["message"]


def test_a_shieldgemma_2_checkpoint_passes_its_checks(tmp_path: Path) -> None:
    write_shieldgemma2(tmp_path)
    code, out, _ = run("check", tmp_path, "--dtype", "float32", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["judges"] == ["image"]
    assert "output head tied to the embedding" in found["checks"]


def test_a_checkpoint_with_other_answer_ids_is_refused(tmp_path: Path) -> None:
    write_shieldgemma2(tmp_path)
    edit_config(tmp_path, yes_token_index=7)
    code, out, _ = run("check", tmp_path, "--json")
    assert code == 1
    assert "says that 'Yes' is token 7" in json.loads(out)["error"]["message"]


@pytest.mark.model
def test_the_embedded_model_passes_its_checks(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDGATE_CACHE_DIR", str(cache_dir))
    code, out, _ = run("check", "embedded", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["ok"] is True
    assert found["model"]["calibrated"] is False
    assert "answer ids Yes=10784 No=3771" in found["checks"]
    assert found["judges"] == ["image", "prompt", "response"]  # of images, what was found


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WARDGATE_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
        ({"XDG_CACHE_HOME": "/b"}, Path("/b/wardgate")),
        ({}, Path.home() / ".cache" / "wardgate"),
        ({"WARDGATE_CACHE_DIR": ""}, Path.home() / ".cache" / "wardgate"),
    ],
)
def test_the_cache_is_where_the_environment_says(environ: dict[str, str], expected: Path) -> None:
    assert default_cache_dir(environ) == expected
