import json
import logging

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
