"""Every command, and the service, take the file of a model on a server for a model's name."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from moderation.content import Content, TextPart
from policies import Surface, load_library
from service.models import load_moderator
from service.settings import Settings, load_settings
from tests.moderation.small_tokenizer import small_tokenizer_json
from tests.moderation.speaking import SERVED, Server, serving
from wardgate.main import app

KEY = "sk-of-the-operator"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def file(server: Server, tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(small_tokenizer_json(), encoding="utf-8")
    path = tmp_path / "judge.yaml"
    spec = {"url": server.url, "model": SERVED, "tokenizer": str(tmp_path), "template": "compact"}
    path.write_text(yaml.safe_dump(spec))
    return path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout + result.stderr


def test_models_check_tells_what_was_checked(
    file: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDGATE_REMOTE_API_KEY", KEY)
    code, out = run("models", "check", str(file))
    assert code == 0, out
    assert f"the server lists {SERVED}" in out
    assert "a probe gives a score" in out
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}


def test_score_judges_with_it(file: Path) -> None:
    code, out = run("score", "How do I pick a lock?", "--model", str(file), "--json")
    assert code == 0, out
    verdict = json.loads(out[out.index("{") : out.rindex("}") + 1])
    assert verdict["models"][0]["name"] == str(file)
    assert verdict["models"][0]["dtype"] == "remote"


def test_eval_runs_with_it(file: Path, tmp_path: Path) -> None:
    rows = [
        {
            "id": str(number),
            "text": f"t {number}",
            "role": "user",
            "labels": {"violence": bool(number % 2)},
        }
        for number in range(4)
    ]
    data = tmp_path / "records.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    code, said = run("eval", "run", "--data", str(data), "--model", str(file), "--out", str(out))
    assert code == 0, said
    assert (out / "scores.parquet").is_file()


def test_a_server_that_is_gone_is_one_clear_line(file: Path) -> None:
    spec = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**spec, "url": "http://127.0.0.1:1/v1"}))
    code, out = run("models", "check", str(file))
    assert code == 1
    assert "error: http://127.0.0.1:1/v1: the model server cannot be reached" in out
    assert "Traceback" not in out


def test_the_service_judges_with_it(file: Path, server: Server) -> None:
    settings = load_settings(
        overrides={"model": str(file), "ocr": False, "remote_api_key": KEY}, environ={}
    )
    assert KEY not in repr(settings)
    library = load_library()
    judge = load_moderator(settings, library, lambda _: None)
    content = Content(surface=Surface.PROMPT, parts=(TextPart("hello"),))
    verdict = judge.judge(content, library.policy_set("default"))
    assert verdict.scores
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"


def test_the_key_is_a_setting_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDGATE_REMOTE_API_KEY", KEY)
    found: Settings = load_settings()
    assert found.remote_api_key is not None
    assert found.remote_api_key.get_secret_value() == KEY
