"""Real clients of OpenAI's API, with nothing but their base URL changed, through a running gate.

The service is a real `wardgate serve` with the embedded classifier; the server behind it says what
the test wants, or is a real llama.cpp. Each test prints what the client got; `pytest -s` shows it.
"""

import base64
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.environments import default_cache, ensure
from tests.e2e.serving import ROOT, serve
from tests.peers.servers import LLAMA_CPP_PYTHON, Running
from tests.service.scripted import stream_events
from tests.service.upstream_server import (
    DONE,
    Json,
    Pause,
    Step,
    Told,
    chunk,
    completion,
    said,
    upstream_server,
)

pytestmark = pytest.mark.peer

CLIENTS = Path(__file__).parent / "clients"
POLICIES = """\
id: strict
version: 1
policies:
  - {id: dangerous_content, threshold: 0.8, action: block}
  - {id: violence, threshold: 0.8, action: block}
on_incomplete: allow
"""
SENTENCES = (
    "Bread needs flour, water, salt and yeast. ",
    "Knead the dough, and let it rise in a warm place until it is twice as large. ",
    "Then bake it for forty minutes, and let it cool down before you cut it. ",
)
GOOD = "".join(SENTENCES)
BAD = "To build a pipe bomb at home, pack a steel pipe with black powder and add a fuse."
REFUSED = "I can't answer this: the request was blocked by the content policy."


def answer(body: Json) -> Json:
    if body["messages"][-1]["content"] != "call a tool":
        return completion(GOOD)
    function = {"name": "search", "arguments": json.dumps({"query": BAD})}
    call = {"id": "call_1", "type": "function", "function": function}
    whole = completion("", tool_calls=[call])
    whole["choices"][0]["finish_reason"] = "tool_calls"
    return whole


def stream(_: Json) -> Sequence[Step]:
    bad = [chunk({"content": word + " "}) for word in BAD.split()]
    return [*said(*SENTENCES)[:-2], Pause(3), *bad, chunk({}, "stop"), DONE]


@pytest.fixture(scope="module")
def told() -> Told:
    return Told(steps=stream, whole=answer)


@pytest.fixture(scope="module")
def url(told: Told, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("policies")
    (folder / "strict.yaml").write_text(POLICIES)
    with (
        upstream_server(told) as upstream,
        serve(
            WARDGATE_CACHE_DIR=str(cache_dir),
            WARDGATE_GENERATOR=upstream,
            WARDGATE_POLICY_DIRS=str(folder),
            WARDGATE_POLICY_SET="strict",
        ) as served,
    ):
        served.wait_ready()
        yield f"{served.url}/v1"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the data URL of a sign that threatens."""
    data = base64.b64encode((ROOT / "docs" / "examples" / "sign.png").read_bytes()).decode()
    path = tmp_path_factory.mktemp("image") / "url"
    path.write_text(f"data:image/png;base64,{data}")
    return path


@pytest.mark.parametrize(
    "client", ["openai_python.py", "openai_node.mjs", "litellm_sdk.py", "langchain_chat.py"]
)
def test_a_client_sees_what_passes_and_what_does_not(
    client: str, url: str, image: Path, told: Told
) -> None:
    python = ensure("clients", default_cache())
    program = CLIENTS / client
    command = [str(python), str(program)]
    if program.suffix == ".mjs":  # node looks for packages beside the program
        beside = python.parent.parent / client
        beside.write_text(program.read_text())
        command = ["node", str(beside)]
    told.asked.clear()
    done = subprocess.run(
        [*command, url, str(image)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    print(client, json.dumps(got))
    assert got["allowed"] == [GOOD, "stop"]
    assert got["blocked"] == [REFUSED, "content_filter"]
    text, reason = got["stream"]
    assert reason == "content_filter"
    assert GOOD.startswith(text)
    assert text
    assert got["tool"] == [False, "content_filter"]
    assert got["image"] == "content_filter"


def test_a_real_llama_server_behind_the_gate_and_killed(cache_dir: Path, tmp_path: Path) -> None:
    running = Running(LLAMA_CPP_PYTHON, default_cache(), cache_dir, tmp_path / "log")
    try:
        with serve(WARDGATE_CACHE_DIR=str(cache_dir), WARDGATE_GENERATOR=running.url) as served:
            served.wait_ready()
            path = f"{served.url}/v1/completions"

            def body(max_tokens: int, **more: Any) -> Json:
                prompt = "The rivers of Europe, from the longest to the shortest, with their seas: "
                return {"model": "gemma", "prompt": prompt, "max_tokens": max_tokens, **more}

            whole = httpx.post(path, json=body(20), timeout=120).json()
            print("whole:", json.dumps(whole["choices"]))
            assert whole["wardgate"]["response"]["passed"]
            response = httpx.post(path, json=body(40, stream=True), timeout=120)
            events = stream_events(response)
            streamed = "".join(event["choices"][0]["text"] for event in events if event["choices"])
            print("stream:", streamed)
            assert streamed
            with httpx.stream("POST", path, json=body(900, stream=True), timeout=120) as response:
                lines = response.iter_lines()
                assert next(line for line in lines if '"text":' in line)
                running.kill()
                rest = [line for line in lines if line.startswith("data: ")]
            print("killed:", rest[-2])
            assert rest[-1] == "data: [DONE]"
            assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "upstream_broke"
            after = httpx.post(path, json=body(20), timeout=120)
            assert after.status_code == 502
            assert after.json()["error"]["code"] == "upstream_unavailable"
    finally:
        running.kill()
