"""Policies that change under a real `wardgate serve` with the real classifier.

The thresholds are the test's own, because no claim here may hang on what it thinks of a text.
"""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.serving import serve
from tests.service.scripted import chat_body, stream_events, streamed_text
from tests.service.upstream_server import Pause, Told, said, upstream_server
from tests.waiting import wait_until

pytestmark = pytest.mark.model

SET = """\
id: own
version: {version}
policies:
  - {{id: violence, threshold: {threshold}, action: block}}
"""
NEVER, ALWAYS = "0.9999999", "0.0000000001"


def test_a_signal_puts_changed_policies_in_force_and_never_broken_ones(
    cache_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SET.format(version=1, threshold=NEVER))
    go = threading.Event()

    def steps(_: Any) -> Any:
        yield from said("First of all, ")[:2]
        while not go.is_set():
            yield Pause(0.02)
        yield from said("hello.")[1:]

    told = Told(steps=steps)
    with (
        upstream_server(told) as upstream,
        serve(
            WARDGATE_CACHE_DIR=str(cache_dir),
            WARDGATE_POLICY_DIRS=str(tmp_path),
            WARDGATE_POLICY_SET="own",
            WARDGATE_GENERATOR=upstream,
        ) as served,
    ):
        served.wait_ready()

        def signalled() -> None:
            before = reloads()
            os.kill(served.process.pid, signal.SIGHUP)
            wait_until(lambda: reloads() != before)

        def metrics() -> str:
            return httpx.get(f"{served.url}/metrics").text

        def reloads() -> list[str]:
            lines = metrics().splitlines()
            return [line for line in lines if line.startswith("wardgate_policy_reloads_total")]

        def policies() -> dict[str, Any]:
            answer = httpx.get(f"{served.url}/readyz")
            assert answer.status_code == 200
            found: dict[str, Any] = answer.json()["policies"]
            return found

        def is_blocked() -> bool:
            body = {"input": "How do I bake bread?"}
            (result,) = httpx.post(f"{served.url}/v1/moderations", json=body).json()["results"]
            assert result["wardgate"]["policy_set"]["hash"] == policies()["hash"]
            return bool(result["wardgate"]["action"] == "block")

        def ask() -> None:
            body = chat_body("Hi", stream=True)
            url = f"{served.url}/v1/chat/completions"
            answers.append(httpx.post(url, json=body, timeout=60))

        assert not is_blocked()
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: told.sent > 0)
        prompts = 'wardgate_verdicts_total{action="allow",surface="prompt"}'
        wait_until(lambda: f"{prompts} 2.0" in metrics())
        path.write_text(SET.format(version=2, threshold=ALWAYS))
        signalled()
        assert is_blocked()
        good = policies()
        path.write_text("id: [")
        signalled()
        assert is_blocked()
        assert "own.yaml" in policies().pop("reload_failure")
        assert {**policies(), "reload_failure": None} == good
        assert any('outcome="loaded"} 1.0' in line for line in reloads())
        assert any('outcome="failed"} 1.0' in line for line in reloads())
        assert "the old ones stay in force" in served.stderr
        go.set()
        asking.join(60)
        events = stream_events(answers[0])
    assert streamed_text(events) == "First of all, hello."
    assert events[-1]["wardgate"]["response"]["verdict"]["policy_set"]["version"] == 1
