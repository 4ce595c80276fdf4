"""What is said in place of what did not pass: by which policy, in which language."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.verdict import PartCoverage, Verdict, WindowScore, decide, score_policy
from policies import Action, PolicyRule, PolicySet, Surface
from service.gate.refusals import in_language, refusal_of
from tests.service.gate.test_proxy import behind
from tests.service.scripted import (
    LIBRARY,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    scripted_moderator,
    serving,
    stream_events,
    streamed_text,
)
from tests.service.upstream_server import Json, Told, completion, said, upstream_server

TEXTS = {"en": "No.", "de": "Nein.", "zh-Hant": "hant", "de-CH": "Nei."}


@pytest.mark.parametrize(
    ("accepted", "text"),
    [
        ("", "No."),
        ("*", "No."),
        ("fr, *;q=0.5", "No."),
        ("de", "Nein."),
        ("DE-at", "Nein."),
        ("de-ch", "Nei."),
        ("de-CH-1996", "Nei."),
        ("zh-Hant-x-private", "hant"),
        ("zh", "No."),
        ("fr, de;q=0.5, en;q=0.8", "No."),
        ("en;q=0.7,de ; q=0.9", "Nein."),
        ("de;q=0, fr", "No."),
        ("de;q=high", "No."),
        ("de;q=nan", "No."),
        ("de, en", "Nein."),
        (",;,-,--;q=1,de", "Nein."),
        ("a-" * 30_000, "No."),
    ],
)
def test_the_language_is_looked_up_as_rfc_4647_says(accepted: str, text: str) -> None:
    assert in_language(TEXTS, accepted) == text


@given(st.text())
def test_whatever_a_caller_accepts_there_is_a_text(accepted: str) -> None:
    assert in_language(TEXTS, accepted) in TEXTS.values()


def rule(policy_id: str, action: str, refusal: Any = None) -> PolicyRule:
    return PolicyRule.model_validate(
        {"id": policy_id, "threshold": 0.5, "action": action, "refusal": refusal}
    )


def verdict(policy_set: PolicySet, *scores: float, complete: bool = True) -> Verdict:
    made = [
        score_policy(
            LIBRARY.policy(rule.id),
            rule,
            [WindowScore(part=0, surface=Surface.PROMPT, start=0, end=1, raw=raw)],
        )
        for rule, raw in zip(policy_set.policies, scores, strict=True)
    ]
    status: Any = "scored" if complete else "partial"
    coverage = PartCoverage(part=0, modality="text", status=status, tokens=1, windows=1)
    return Verdict(
        action=decide(policy_set, made, [coverage]),
        scores=tuple(made),
        coverage=(coverage,),
        models=(),
        policy_set=policy_set.id,
        policy_set_version=1,
        policy_set_hash=policy_set.hash,
        scoring_ms=0.0,
    )


MIXED = PolicySet(
    id="mixed",
    version=1,
    policies=(
        rule("harassment", "review", "of harassment"),
        rule("violence", "block", "of violence"),
        rule("hate_speech", "block"),
    ),
    refusal="of the set",
)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ((0.9, 0.1, 0.1), "of harassment"),
        ((0.9, 0.6, 0.1), "of violence"),
        ((0.9, 0.6, 0.7), "of the set"),
        ((0.9, 0.8, 0.7), "of violence"),
    ],
)
def test_the_policy_with_the_most_severe_action_speaks_then_the_highest_score(
    scores: tuple[float, ...], words: str
) -> None:
    assert refusal_of(MIXED, [verdict(MIXED, *scores)], "") == words


def test_of_several_texts_the_worst_one_decides() -> None:
    found = [verdict(MIXED, 0.9, 0.1, 0.1), verdict(MIXED, 0.1, 0.6, 0.1)]
    assert refusal_of(MIXED, found, "") == "of violence"


def test_a_policy_in_shadow_mode_does_not_speak() -> None:
    shadow = MIXED.policies[1].model_copy(update={"mode": "shadow"})
    policy_set = MIXED.model_copy(update={"policies": (MIXED.policies[0], shadow)})
    assert refusal_of(policy_set, [verdict(policy_set, 0.6, 0.9)], "") == "of harassment"


def test_content_that_could_not_be_judged_in_full_is_refused_in_the_words_of_the_set() -> None:
    flagging = PolicySet(
        id="f", version=1, policies=(rule("violence", "flag", "of violence"),), refusal="of the set"
    )
    found = verdict(flagging, 0.9, complete=False)
    assert found.action is Action.REVIEW
    assert refusal_of(flagging, [found], "") == "of the set"


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(bad_is_bad)


@pytest.fixture
def upstream(told: Told) -> Iterator[str]:
    with upstream_server(told) as url:
        yield url


def ask(url: str, body: Json, language: str, path: str = "chat/completions") -> httpx.Response:
    headers = {"Accept-Language": language}
    return httpx.post(f"{url}/v1/{path}", json=body, headers=headers, timeout=20)


@pytest.mark.parametrize(
    ("policy_set", "language", "words"),
    [
        ("speaking", "de-AT, en;q=0.5", "Nein."),
        ("speaking", "it", "No."),
        ("speaking_as_one", "it", "Non."),
        ("speaking_as_one", "en", "No."),
        ("closed", "de", "the setting"),
    ],
)
def test_a_blocked_prompt_is_answered_in_the_callers_language(
    upstream: str, policy_set: str, language: str, words: str
) -> None:
    with serving(policy_set=policy_set, refusal_text="the setting", **behind(upstream)) as url:
        whole = ask(url, chat_body("BAD"), language).json()
        stream = stream_events(ask(url, chat_body("BAD", stream=True), language))
        item = ask(url, {"input": "BAD"}, language, "responses").json()["output"][0]
    assert whole["choices"][0]["message"]["content"] == words
    assert streamed_text(stream) == words
    assert item["content"] == [{"type": "refusal", "refusal": words}]


def test_a_blocked_choice_of_a_whole_answer_is_replaced_by_the_words(
    upstream: str, told: Told
) -> None:
    told.whole = completion("BAD") | {"usage": None}
    good, bad = completion("Fine.")["choices"][0], completion("BAD")["choices"][0]
    told.whole["choices"] = [good, {**bad, "index": 1}]
    with serving(policy_set="speaking", **behind(upstream)) as url:
        choices = ask(url, chat_body(n=2), "de").json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["Fine.", "Nein."]


def test_choices_that_fell_for_different_reasons_say_so(upstream: str, told: Told) -> None:
    def score(text: str) -> float:
        if "broken" in text:
            raise RuntimeError
        return bad_is_bad(text)

    bad, broken = (completion(text)["choices"][0] for text in ("BAD", "broken"))
    told.whole = completion("") | {"choices": [bad, {**broken, "index": 1}]}
    changes = {"policy_set": "speaking", "unchecked_text": "unchecked", **behind(upstream)}
    with serving(scripted_moderator(ScriptedEngine(score)), **changes) as url:
        choices = ask(url, chat_body(n=2), "de").json()["choices"]
        prompt = ask(url, chat_body("broken"), "de").json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["Nein.", "unchecked"]
    assert [choice["message"]["content"] for choice in prompt] == ["unchecked"]


def test_a_stream_that_is_cut_off_ends_without_words(upstream: str, told: Told) -> None:
    told.steps = said("Fine. ", "BAD")
    with serving(policy_set="speaking", **behind(upstream)) as url:
        events = stream_events(ask(url, chat_body(stream=True), "de"))
    assert streamed_text(events) == ""
    assert events[-1]["choices"][0]["finish_reason"] == "content_filter"
