"""Disguised text at the doors of the service: both spellings reach the classifier."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.service.scripted import (
    RecitingGenerator,
    ScriptedEngine,
    chat_body,
    scripted_moderator,
    serving,
)


@dataclass
class Stage:
    url: str
    engine: ScriptedEngine
    generator: RecitingGenerator


def kills(text: str) -> float:
    """1.0 for a threat in plain letters, as a model has seen them in training."""
    return float("kill you" in text)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    engine, generator = ScriptedEngine(kills), RecitingGenerator()
    with serving(scripted_moderator(engine), generator, check_every_chars=8) as url:
        yield Stage(url, engine, generator)


@pytest.mark.parametrize("threat", ["I will k1ll y0u", "I will k\u200bi\u200bll you"])
def test_a_disguised_threat_is_flagged_and_both_spellings_were_asked(
    stage: Stage, threat: str
) -> None:
    stage.engine.asked.clear()
    answer = httpx.post(f"{stage.url}/v1/moderations", json={"input": threat}).json()
    (result,) = answer["results"]
    assert result["flagged"] is True
    assert result["category_scores"]["harassment"] == 1.0
    windows = result["wardgate"]["scores"][0]["windows"]
    assert [(each["raw"], each.get("form")) for each in windows] == [
        (0.0, None),
        (1.0, "normalised"),
    ]
    assert all((each["start"], each["end"]) == (0, len(threat)) for each in windows)
    given, normal = (asked.text for asked in stage.engine.asked)
    assert threat in given
    assert "I will kill you" in normal


def test_the_gate_lets_no_disguised_prompt_through(stage: Stage) -> None:
    body = chat_body("I will k!ll you")
    answer = httpx.post(f"{stage.url}/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["finish_reason"] == "content_filter"


def test_a_stream_ends_before_a_disguised_threat(stage: Stage) -> None:
    stage.engine.asked.clear()
    stage.generator.before_piece = lambda _: time.sleep(0.1)  # a check between the pieces
    stage.generator.pieces = ["Well, my friend. ", "I will k.", "i.l.", "l y", "\u200bou now."]
    body = chat_body("What will you do?", stream=True)
    lines = httpx.post(f"{stage.url}/v1/chat/completions", json=body).text
    assert "content_filter" in lines
    assert any("I will kill you" in asked.text for asked in stage.engine.asked)
    assert len(stage.engine.asked) > 4
    assert "ou now" not in lines
