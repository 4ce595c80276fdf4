import json
import logging
import subprocess
import sys

import httpx
import pytest

from moderation.errors import EngineError, UnreadableImage
from service.logs import JsonFormatter
from tests.service.scripted import (
    RecitingGenerator,
    ScriptedEngine,
    chat_body,
    scripted_moderator,
    serving,
)
from tests.service.test_body_limit import begun_upload
from tests.waiting import wait_until

SECRET = "what somebody wrote in confidence"


def entry(record: logging.LogRecord) -> dict[str, object]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, object] = json.loads(line)
    return found


def failed(exc: BaseException) -> logging.LogRecord:
    info = (type(exc), exc, exc.__traceback__)
    return logging.LogRecord("a", logging.ERROR, "a.py", 1, "it failed", None, info)


def test_an_entry_is_one_line_of_json() -> None:
    record = logging.LogRecord("service.x", logging.INFO, "a.py", 1, "%s\n%d", ("a", 1), None)
    record.request_id = "req-1"
    found = entry(record)
    assert found.pop("time")
    assert found == {
        "level": "info",
        "logger": "service.x",
        "message": "a\n1",
        "request_id": "req-1",
    }


def test_the_words_of_foreign_exceptions_are_left_out_and_ours_kept() -> None:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as exc:
            raise EngineError("failed on this item") from exc
    except EngineError as exc:
        found = str(entry(failed(exc))["error"])
    assert "EngineError: failed on this item" in found
    assert "KeyError" in found
    assert "test_logs.py" in found
    assert SECRET not in found
    assert "truncated" in str(entry(failed(UnreadableImage("truncated")))["error"])


@pytest.mark.parametrize("fails", [False, True])
def test_content_never_reaches_the_log(caplog: pytest.LogCaptureFixture, fails: bool) -> None:
    def score(text: str) -> float:
        if fails:
            raise ZeroDivisionError(text)
        return 0.0

    def speak(index: int) -> None:
        if fails and index:
            raise ZeroDivisionError(SECRET)

    caplog.set_level(logging.DEBUG)
    generator = RecitingGenerator([SECRET, SECRET], before_piece=speak)
    moderator = scripted_moderator(ScriptedEngine(score))
    with serving(moderator, generator, policy_set="opened") as url:
        httpx.post(f"{url}/v1/moderations", json={"input": SECRET})
        httpx.post(f"{url}/v1/moderations", json={"input": "a", SECRET: 1})
        httpx.post(f"{url}/v1/chat/completions", json=chat_body(SECRET))
        httpx.post(f"{url}/v1/chat/completions", json=chat_body(SECRET, stream=True))
    ours = [record for record in caplog.records if record.name.startswith(("service", "uvicorn"))]
    assert ours
    formatter = JsonFormatter()
    assert SECRET not in "\n".join(formatter.format(record) for record in ours)


def test_probes_do_not_bury_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(scripted_moderator(ScriptedEngine(lambda _: 0.0))) as url:
        for path in ("/healthz", "/readyz", "/metrics", "/v1/models"):
            assert httpx.get(url + path).status_code == 200
    levels = {
        record.getMessage(): record.levelname
        for record in caplog.records
        if record.name == "service.access"
    }
    assert levels == {
        "GET /healthz": "DEBUG",
        "GET /readyz": "DEBUG",
        "GET /metrics": "DEBUG",
        "GET /v1/models": "INFO",
    }


@pytest.mark.parametrize("path", ["moderations", "chat/completions"])
def test_a_500_leaves_its_cause_and_its_place_in_the_log(
    caplog: pytest.LogCaptureFixture, path: str
) -> None:
    def score(text: str) -> float:
        raise ZeroDivisionError(text)

    moderator = scripted_moderator(ScriptedEngine(score))
    with serving(moderator, RecitingGenerator(), blocked_prompt="error") as url:
        body = {"input": SECRET} if path == "moderations" else chat_body(SECRET)
        response = httpx.post(f"{url}/v1/{path}", json=body)
    assert response.status_code == 500
    (record,) = [record for record in caplog.records if record.name == "service.app"]
    found = entry(record)
    assert found["level"] == "error"
    assert found["request_id"] == response.headers["x-request-id"]
    error = str(found["error"])
    assert "EngineError" in error
    assert "ZeroDivisionError" in error
    assert "test_logs.py" in error
    assert SECRET not in json.dumps(found)


def test_a_client_who_leaves_during_its_upload_is_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with serving(scripted_moderator(ScriptedEngine(lambda _: 0.0))) as url:
        with begun_upload(url, sent=10, stated=1000):
            assert httpx.get(f"{url}/readyz").status_code == 200  # the upload was accepted before
        wait_until(
            lambda: any(
                record.name == "service.access" and record.levelname == "INFO"
                for record in caplog.records
            )
        )
    (record,) = [r for r in caplog.records if r.name.startswith("service.access")]
    assert entry(record)["status"] == 499
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_warnings_of_libraries_are_entries_of_the_log_without_their_words() -> None:
    script = f"""
import warnings
from service.logs import configure_logging
configure_logging("info")
warnings.warn({SECRET!r}, UserWarning)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    assert (found["level"], found["message"]) == ("warning", "a UserWarning from <string>:5")
