"""Policies that change while the service runs: what begins is judged by the new ones, what has
begun by the old ones, and what is wrong with the new ones changes nothing."""

import asyncio
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from moderation.calibration import Calibration, Identity
from moderation.media.recognisers import Recognisers
from moderation.moderator import Moderator
from moderation.prompts import JudgePrompt
from policies import Policy
from service.policy_files import PolicyFiles
from service.runtime import Runtime
from tests.moderation.test_moderator_evidence import Finder
from tests.service.gate.test_proxy import behind
from tests.service.scripted import (
    TOKENIZER,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    scripted_moderator,
    serving_server,
    stream_events,
    streamed_text,
)
from tests.service.upstream_server import Json, Pause, Told, completion, said, upstream_server
from tests.waiting import wait_until

POLICY = """\
id: own
version: 1
title: Own
definition: The text shall not mention {word} at all, in whatever words that may be.
severity: low
"""
SET = """\
id: closed
version: 1
policies:
  - {id: own, threshold: 0.5, action: block}
"""


class ReadingEngine(ScriptedEngine):
    """A text violates a policy that names one of its words in capitals."""

    def answer(self, prompt: JudgePrompt) -> list[float]:
        (base,) = set(super().answer(prompt))
        text = self.asked[-1].text
        words = {word.strip(".") for word in text.split() if word.isupper()}
        policies = [TOKENIZER.decode(list(leaf)) for leaf in prompt.leaves]
        return [max(base, float(any(word in policy for word in words))) for policy in policies]


@dataclass
class Service:
    url: str
    runtime: Runtime
    loop: asyncio.AbstractEventLoop
    folder: Path
    engine: ReadingEngine

    def forbid(self, word: str) -> None:
        self.write(POLICY.format(word=word))

    def write(self, policy: str) -> None:
        """At once: a service that looks while a file is written sees two changes."""
        beside = self.folder.with_name(f"{self.folder.name}.yaml")
        beside.write_text(policy)
        beside.replace(self.folder / "own.yaml")

    def reload(self) -> None:
        asyncio.run_coroutine_threadsafe(self.runtime.reload_policies(), self.loop).result(20)

    def blocks(self, text: str) -> bool:
        """Whether a prompt is blocked, as all who judge it say."""
        verdict = self.moderated(text)[0]["wardgate"]
        whole = self.chat(chat_body(text)).json()["wardgate"]["prompt"]
        face = self.post("analyze/prompt", {"prompt": text})
        assert verdict["flagged"] is not whole["passed"] is face["is_valid"]
        return bool(verdict["flagged"])

    def moderated(self, *texts: str) -> list[Json]:
        results: list[Json] = self.post("v1/moderations", {"input": list(texts)})["results"]
        return results

    def chat(self, body: Json) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=20)

    def post(self, path: str, body: Json) -> Json:
        answer = httpx.post(f"{self.url}/{path}", json=body, timeout=20)
        assert answer.status_code == 200, answer.text
        made: Json = answer.json()
        return made

    def ready(self) -> Json:
        answer = httpx.get(f"{self.url}/readyz")
        assert answer.status_code == 200
        policies: Json = answer.json()["policies"]
        return policies

    def reloads(self) -> tuple[float, float]:
        """Loaded and failed, as the metrics say."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        name = 'wardgate_policy_reloads_total{{outcome="{}"}}'
        return float(values[name.format("loaded")]), float(values[name.format("failed")])


@contextmanager
def service(
    folder: Path,
    told: Told | None = None,
    *,
    recognisers: Recognisers | None = None,
    calibration: Calibration | None = None,
    **changes: Any,
) -> Iterator[Service]:
    (folder / "own.yaml").write_text(POLICY.format(word="RAIN"))
    (folder / "closed.yaml").write_text(SET)
    engine = ReadingEngine(bad_is_bad)
    text = scripted_moderator(engine).text
    if calibration is not None:
        text = text.calibrated(calibration)
    moderator = Moderator(PolicyFiles([folder]).read(), text, recognisers=recognisers)
    told = told or Told(whole=completion("Fine."))
    with (
        upstream_server(told) as upstream,
        serving_server(moderator, policy_dirs=[folder], **changes, **behind(upstream)) as (
            url,
            runtime,
            server,
        ),
    ):
        yield Service(url, runtime, server.servers[0].get_loop(), folder, engine)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path) as found:
        found.reload()  # until now the set was that of the tests' library
        assert found.reloads() == (1, 0)
        yield found


def test_changed_words_of_a_policy_count_from_then_on(served: Service) -> None:
    assert (served.blocks("No RAIN."), served.blocks("No SNOW.")) == (True, False)
    before = served.ready()
    served.forbid("SNOW")
    assert (served.blocks("No RAIN."), served.blocks("No SNOW.")) == (True, False)
    served.reload()
    assert (served.blocks("No RAIN."), served.blocks("No SNOW.")) == (False, True)
    after = served.ready()
    assert before["policies"].keys() == after["policies"].keys() == {"own"}
    assert before["policies"] != after["policies"]
    assert after["reload_failure"] is None
    assert served.reloads() == (2, 0)


def test_a_changed_set_and_new_policies_count_from_then_on(served: Service) -> None:
    before = served.ready()
    (served.folder / "more.yaml").write_text(
        POLICY.format(word="SNOW").replace("own", "more").replace("Own", "More")
    )
    (served.folder / "closed.yaml").write_text(
        SET.replace("version: 1", "version: 2") + "  - {id: more, threshold: 0.5, action: block}\n"
    )
    served.reload()
    assert (served.blocks("No RAIN."), served.blocks("No SNOW.")) == (True, True)
    after = served.ready()
    assert (before["version"], after["version"]) == (1, 2)
    assert before["hash"] != after["hash"]
    assert served.moderated("Hi")[0]["wardgate"]["policy_set"]["hash"] == after["hash"]


def test_new_policies_are_read_by_the_classifier_before_anyone_asks(served: Service) -> None:
    served.forbid("SNOW")
    num_asked = len(served.engine.asked)
    served.reload()
    assert [asked.text for asked in served.engine.asked[num_asked:]] == ["Hello."] * 2


def test_new_policies_for_images_are_read_before_anyone_asks(tmp_path: Path) -> None:
    recognisers = Recognisers(tags=Finder(daisy=0.4), nudity=Finder())
    with service(tmp_path, recognisers=recognisers) as served:
        served.reload()
        *texts, image = [asked.text for asked in served.engine.asked]
        assert texts == ["Hello."] * 2
        assert "daisy" in image

        def blind(text: str) -> float:
            return math.nan if "daisy" in text else 0.0

        served.forbid("SNOW")
        served.engine.score = blind
        served.reload()
        assert served.reloads() == (1, 1)


def calibration_of(policy: Policy) -> Calibration:
    """For the scripted classifier; leaves the scores of prompts and responses as they are."""
    curve = {"curve": Identity(), "fitted_on": "surface", "records": 100, "positives": 20}
    entry = {"hash": policy.hash, "surfaces": {"prompt": curve, "response": curve}}
    return Calibration.model_validate(
        {
            "model": {"name": "scripted", "revision": "1", "template": "compact"},
            "data": [{"name": "dev.jsonl", "sha256": "0" * 64}],
            "folds": 5,
            "seed": 0,
            "policies": {policy.id: entry},
        }
    )


def test_a_policy_that_loses_its_calibration_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own.yaml").write_text(POLICY.format(word="RAIN"))
    own = PolicyFiles([tmp_path]).read().policy("own")
    with service(tmp_path, calibration=calibration_of(own)) as served:
        served.reload()
        assert served.ready()["not_calibrated"] == []
        served.forbid("SNOW")
        for _ in range(2):
            served.reload()
        (gap,) = served.ready()["not_calibrated"]
        assert gap.startswith("own has other words now")
        warned = [record for record in caplog.records if "leaves scores raw" in record.message]
        assert [record.levelname for record in warned] == ["WARNING"]  # once, not at each reload
        assert gap in warned[0].message
        served.forbid("RAIN")
        served.reload()
        assert served.ready()["not_calibrated"] == []


BROKEN = {
    "no YAML": ("own.yaml", "id: [", "is not valid YAML"),
    "a misspelt key": ("own.yaml", POLICY.replace("title", "titel"), "titel: unknown key"),
    "an unknown policy": ("closed.yaml", SET.replace("own", "other"), "no policy 'other'"),
    "no such set": ("closed.yaml", SET.replace("closed", "open"), "unknown policy set 'closed'"),
    "no text": ("own.yaml", "\x00", "is not valid YAML"),
    "too long": ("own.yaml", POLICY.format(word="SNOW " * 4000), "fills the model's context"),
}


@pytest.mark.parametrize(("name", "text", "why"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_used_leaves_the_old_policies_in_force(
    served: Service, name: str, text: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = served.ready()
    good = (served.folder / name).read_text()
    (served.folder / name).write_text(text)
    served.reload()
    assert (served.blocks("No RAIN."), served.blocks("No SNOW.")) == (True, False)
    after = served.ready()
    assert why in after.pop("reload_failure")
    assert after == {k: v for k, v in before.items() if k != "reload_failure"}
    assert served.reloads() == (1, 1)
    assert why in caplog.text
    assert "the old ones stay in force" in caplog.text
    (served.folder / name).write_text(good)
    served.reload()
    assert served.ready()["reload_failure"] is None
    assert served.reloads() == (2, 1)


def test_a_folder_that_is_gone_leaves_the_old_policies_in_force(served: Service) -> None:
    served.folder.rename(served.folder.with_name("elsewhere"))
    served.reload()
    assert served.blocks("No RAIN.")
    assert "is not a folder" in served.ready()["reload_failure"]


def test_a_classifier_that_fails_on_new_policies_leaves_the_old_ones(served: Service) -> None:
    def fails(text: str) -> float:
        raise RuntimeError

    served.forbid("SNOW")
    served.engine.score = fails
    served.reload()
    served.engine.score = bad_is_bad
    assert (served.blocks("No RAIN."), served.blocks("No SNOW.")) == (True, False)
    assert "failed on this item" in served.ready()["reload_failure"]


class Begun:
    """A call in a thread of its own."""

    def __init__(self, call: Any) -> None:
        self._answers: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._answers.append(call()))
        self._thread.start()

    def answer(self) -> Any:
        self._thread.join(20)
        (answer,) = self._answers
        return answer


def until(go: threading.Event) -> Any:
    """Steps of an upstream that goes on with its answer once it may."""
    yield from said("First of all, hello to everyone. ")[:2]
    while not go.is_set():
        yield Pause(0.02)
    yield from said("Then SNOW comes down, and that is all there is.")[1:]


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_stream_that_has_begun_ends_under_the_old_policies(tmp_path: Path, is_gone: bool) -> None:
    """Also where the policy that it began under is no more."""
    go = threading.Event()
    told = Told(whole=completion("Fine."), steps=lambda _: until(go))
    with service(tmp_path, told, idle_check_s=0.05) as served:
        served.reload()
        old = served.ready()["policies"]["own"]
        stream = Begun(lambda: served.chat(chat_body(stream=True)))
        wait_until(lambda: "First" in " ".join(asked.text for asked in served.engine.asked))
        if is_gone:
            (tmp_path / "own.yaml").unlink()
            (tmp_path / "closed.yaml").write_text(SET.replace("own", "violence"))
        else:
            served.forbid("SNOW")
        served.reload()
        assert served.reloads() == (2, 0)
        assert served.blocks("No RAIN.") is False
        assert served.blocks("No SNOW.") is not is_gone
        go.set()
        events = stream_events(stream.answer())
    assert streamed_text(events).endswith("Then SNOW comes down, and that is all there is.")
    (score,) = events[-1]["wardgate"]["response"]["verdict"]["scores"]
    assert (score["policy"], score["hash"]) == ("own", old)


def test_a_list_that_has_begun_is_judged_by_the_old_policies_to_its_end(served: Service) -> None:
    def slowly(text: str) -> float:
        time.sleep(0.05)
        return 0.0

    served.engine.score = slowly
    texts = [f"{number}, RAIN and SNOW" for number in range(40)]
    num_asked = len(served.engine.asked)
    asked = Begun(lambda: served.moderated(*texts))
    wait_until(lambda: len(served.engine.asked) > num_asked)
    served.forbid("HAIL")
    served.reload()
    assert served.reloads() == (2, 0)
    assert served.engine.asked[-1].text != texts[-1], "the reload was to be in between"
    assert all(result["flagged"] for result in asked.answer())
    assert not served.moderated(texts[-1])[0]["flagged"]


def test_changed_files_are_found_and_loaded(tmp_path: Path) -> None:
    with service(tmp_path, policy_reload_s=0.05) as served:
        time.sleep(0.3)
        assert served.reloads() == (0, 0)
        served.forbid("SNOW")
        wait_until(lambda: served.reloads() == (1, 0))
        assert (served.blocks("No RAIN."), served.blocks("No SNOW.")) == (False, True)
        served.write("id: [")
        wait_until(lambda: served.reloads() == (1, 1))
        time.sleep(0.3)
        assert served.reloads() == (1, 1)  # once, however often it is looked at
        assert served.blocks("No SNOW.")
        served.forbid("HAIL")
        wait_until(lambda: served.reloads() == (2, 1))
        assert served.blocks("No HAIL.")


def test_files_that_are_being_written_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(POLICY)
    files = PolicyFiles([tmp_path])
    assert not files.have_changed()
    for length in range(3):
        (tmp_path / "own.yaml").write_text(POLICY[: length + 1])
        assert not files.have_changed()
    assert files.have_changed()
    assert files.have_changed()
    (tmp_path / "own.yaml").write_text(POLICY)
    files.read()
    assert not files.have_changed()
    assert not files.have_changed()


@contextmanager
def config_map(folder: Path, versions: Sequence[str]) -> Iterator[None]:
    """Files as Kubernetes mounts them, the second version put in place when the block ends."""
    for number, text in enumerate(versions):
        version = folder / f"..version_{number}"
        version.mkdir()
        (version / "own.yaml").write_text(text)
    (folder / "..data").symlink_to("..version_0")
    (folder / "own.yaml").symlink_to("..data/own.yaml")
    yield
    (folder / "..new").symlink_to("..version_1")
    (folder / "..new").rename(folder / "..data")


@pytest.mark.parametrize("words", [("RAIN", "SNOW"), ("RAIN", "HAIL and ice")])
def test_a_config_map_that_is_swapped_is_a_change(tmp_path: Path, words: tuple[str, str]) -> None:
    with config_map(tmp_path, [POLICY.format(word=word) for word in words]):
        files = PolicyFiles([tmp_path])
    assert not files.have_changed()
    assert files.have_changed()
    assert words[1] in str(files.read().policy("own").definition)


def test_a_reload_waits_for_the_models(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(POLICY.format(word="SNOW"))
    (tmp_path / "closed.yaml").write_text(SET)
    go = threading.Event()
    engine = ReadingEngine(bad_is_bad)

    def load() -> Any:
        go.wait(10)
        return scripted_moderator(engine)

    with serving_server(load, wait_ready=False, policy_dirs=[tmp_path]) as (url, runtime, server):
        loop = server.servers[0].get_loop()
        reloading = asyncio.run_coroutine_threadsafe(runtime.reload_policies(), loop)
        time.sleep(0.1)
        assert not reloading.done()
        go.set()
        reloading.result(20)
        assert runtime.policy_set.policies[0].id == "own"
        answer = httpx.post(f"{url}/v1/moderations", json={"input": "SNOW"}, timeout=20).json()
        assert answer["results"][0]["flagged"]
