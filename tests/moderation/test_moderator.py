"""Content never escapes unseen: windows, coverage, limits and deadlines of the moderator."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.caller import Caller
from moderation.checkpoints import Classifier
from moderation.content import Content, Part, TextPart
from moderation.errors import (
    CallerLeft,
    ContentEmpty,
    ContentTooLong,
    EngineTimeout,
    InvalidText,
    ModelError,
    UnsupportedModality,
)
from moderation.growing import GrowingContent
from moderation.moderator import ContentLimits, Moderator
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import Verdict
from policies import Action, Policy, PolicyLibrary, PolicySet, Surface
from tests.moderation.asking import computed_rows
from tests.moderation.scripted import WordEngine, word_classifier

WORDS = {"poison": 0.9, "knife": 0.6, "cake": 0.2}


def policy(policy_id: str, **definition: str) -> Policy:
    return Policy.model_validate(
        {
            "id": policy_id,
            "version": 1,
            "title": policy_id,
            "definition": definition or "No poison, no knife.",
            "severity": "low",
        }
    )


def policy_set(*rules: dict[str, Any], **options: Any) -> PolicySet:
    return PolicySet.model_validate(
        {"id": "test", "version": 1, "policies": rules or (rule(),), **options}
    )


def rule(policy_id: str = "any", threshold: Any = 0.5, **options: Any) -> dict[str, Any]:
    action = {} if isinstance(threshold, dict) else {"action": "block"}
    return {"id": policy_id, "threshold": threshold, **action, **options}


LIBRARY = PolicyLibrary(
    {
        found.id: found
        for found in (
            policy("any"),
            policy("poison", prompt="No poison.", response="No poison."),
            policy("knife", prompt="No knife."),
            policy("pictures", image="No poison in images."),
        )
    },
    {},
)


@pytest.fixture
def engine(small_tokenizer: SafeTokenizer) -> WordEngine:
    return WordEngine(small_tokenizer, WORDS)


@pytest.fixture
def moderator(engine: WordEngine) -> Moderator:
    return Moderator(LIBRARY, word_classifier(engine))


def actions(verdict: Verdict) -> dict[str, Action]:
    return {score.policy_id: score.action for score in verdict.scores}


def test_a_short_text_is_one_window_and_covered(moderator: Moderator) -> None:
    text = "Where is the poison?"
    verdict = moderator.judge(Content.prompt(text), policy_set())
    (score,) = verdict.scores
    assert (verdict.action, score.raw, score.violates) == (Action.BLOCK, 0.9, True)
    (window,) = score.windows
    assert (window.part, window.surface, window.start, window.end) == (0, "prompt", 0, len(text))
    (covered,) = verdict.coverage
    assert (covered.status, covered.windows, covered.reason) == ("scored", 1, None)
    assert covered.tokens == len(moderator.text.builder.content_tokens(text))
    assert verdict.complete
    assert [info.name for info in verdict.models] == ["words"]
    assert verdict.scoring_ms > 0


@pytest.mark.parametrize("text", ["", " ", "\n\t \u2003"])
def test_an_empty_text_is_refused(moderator: Moderator, text: str) -> None:
    with pytest.raises(ContentEmpty, match="part 1 is an empty text"):
        moderator.judge(
            Content(surface=Surface.PROMPT, parts=(TextPart("cake"), TextPart(text))),
            policy_set(),
        )


def test_content_without_parts_is_refused(moderator: Moderator) -> None:
    with pytest.raises(ContentEmpty, match="no parts"):
        moderator.judge(Content(surface=Surface.PROMPT, parts=()), policy_set())


def test_too_many_parts_are_refused(moderator: Moderator) -> None:
    parts: tuple[Part, ...] = (TextPart("cake"),) * 65
    with pytest.raises(ContentTooLong, match="has 65 parts; at most 64"):
        moderator.judge(Content(surface=Surface.PROMPT, parts=parts), policy_set())


def test_a_text_of_a_hundred_thousand_tokens_is_refused_before_anything_is_scored(
    moderator: Moderator, engine: WordEngine
) -> None:
    text = "a b c d e " * 10_000
    with pytest.raises(ContentTooLong, match=r"has \d{5,6} tokens; at most 32768 tokens") as caught:
        moderator.judge(Content.prompt(text), policy_set())
    assert "a b" not in str(caught.value)
    assert engine.prompts == []


def test_a_gigantic_text_is_refused_by_its_characters(moderator: Moderator) -> None:
    started = time.monotonic()
    with pytest.raises(ContentTooLong, match="has 100000000 characters"):
        moderator.judge(Content.prompt("x" * 100_000_000), policy_set())
    assert time.monotonic() - started < 5


def test_the_limit_holds_for_all_parts_together(small_tokenizer: SafeTokenizer) -> None:
    engine = WordEngine(small_tokenizer, WORDS)
    moderator = Moderator(LIBRARY, word_classifier(engine), limits=ContentLimits(max_tokens=100))
    part = TextPart("a b " * 20)
    moderator.judge(Content(surface=Surface.PROMPT, parts=(part,)), policy_set())
    engine.prompts.clear()
    with pytest.raises(
        ContentTooLong, match=r"part 2 has \d+ tokens after \d+ tokens in the parts"
    ):
        moderator.judge(Content(surface=Surface.PROMPT, parts=(part,) * 3), policy_set())
    assert engine.prompts == []


def test_a_lone_surrogate_is_refused(moderator: Moderator) -> None:
    with pytest.raises(InvalidText, match="lone surrogate"):
        moderator.judge(Content.prompt("a \udfff b"), policy_set())


@settings(deadline=None, max_examples=25)
@given(place=st.integers(0, 300))
def test_a_needle_anywhere_in_a_long_text_is_found(
    small_tokenizer: SafeTokenizer, place: int
) -> None:
    words = ["word"] * 300
    words.insert(place, "poison")
    text = " ".join(words)
    engine = WordEngine(small_tokenizer, WORDS)
    moderator = Moderator(LIBRARY, word_classifier(engine, window_tokens=80))
    verdict = moderator.judge(Content.prompt(text), policy_set())
    (score,) = verdict.scores
    assert len(score.windows) == verdict.coverage[0].windows > 3
    assert score.raw == max(window.raw for window in score.windows) == 0.9
    for window in score.windows:
        assert (window.raw == 0.9) == ("poison" in text[window.start : window.end])
    assert score.windows[0].start == 0
    assert score.windows[-1].end == len(text)


def test_every_part_counts_and_is_named(moderator: Moderator) -> None:
    parts = (TextPart("cake"), TextPart("a knife"), TextPart("poison"))
    verdict = moderator.judge(Content(surface=Surface.PROMPT, parts=parts), policy_set())
    (score,) = verdict.scores
    assert [(window.part, window.raw) for window in score.windows] == [
        (0, 0.01),
        (1, 0.6),
        (2, 0.9),
    ]
    assert [covered.part for covered in verdict.coverage] == [0, 1, 2]
    assert score.raw == 0.9


def test_each_policy_is_scored_by_its_own_text(moderator: Moderator) -> None:
    rules = policy_set(rule("knife"), rule("poison"))
    verdict = moderator.judge(Content.prompt("a knife"), rules)
    assert {score.policy_id: score.raw for score in verdict.scores} == {
        "knife": 0.6,
        "poison": 0.01,
    }
    assert actions(verdict) == {"knife": Action.BLOCK, "poison": Action.ALLOW}


def test_a_policy_without_words_for_the_surface_does_not_apply(moderator: Moderator) -> None:
    verdict = moderator.judge(Content.response("a knife"), policy_set(rule("knife"), rule("any")))
    assert [score.policy_id for score in verdict.scores] == ["any"]
    assert verdict.complete


def test_content_that_no_policy_has_words_for_is_no_verdict(moderator: Moderator) -> None:
    with pytest.raises(UnsupportedModality, match="no policy of the set has words for a prompt"):
        moderator.judge(Content.prompt("a knife"), policy_set(rule("pictures")))


@pytest.mark.parametrize(
    ("text", "action"),
    [("cake", Action.ALLOW), ("a knife", Action.FLAG), ("poison", Action.BLOCK)],
)
def test_a_ladder_names_the_action_of_the_highest_threshold_reached(
    moderator: Moderator, text: str, action: Action
) -> None:
    ladder = policy_set(rule(threshold={"flag": 0.6, "block": 0.9}))
    verdict = moderator.judge(Content.prompt(text), ladder)
    assert verdict.action == action  # 0.6 and 0.9 are reached by equality
    assert verdict.flagged == (action is not Action.ALLOW)


def test_a_shadowed_policy_is_scored_and_decides_nothing(moderator: Moderator) -> None:
    verdict = moderator.judge(
        Content.prompt("poison"), policy_set(rule("poison", mode="shadow"), rule("knife"))
    )
    assert verdict.action is Action.ALLOW
    assert actions(verdict)["poison"] is Action.BLOCK
    assert verdict.violated == ()


def test_the_most_severe_action_wins(moderator: Moderator) -> None:
    rules = policy_set(rule("poison", action="flag"), rule("any", action="review"))
    assert moderator.judge(Content.prompt("poison"), rules).action is Action.REVIEW


def test_a_deadline_that_has_passed_is_an_error(moderator: Moderator, engine: WordEngine) -> None:
    with pytest.raises(EngineTimeout, match="the deadline passed"):
        moderator.judge(
            Content.prompt("cake"), policy_set(), caller=Caller(deadline=time.monotonic())
        )
    assert engine.prompts == []


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_a_growing_text_gets_the_verdict_of_a_fresh_one_at_every_length(
    tiny: dict[str, Classifier], name: str
) -> None:
    moderator = Moderator(LIBRARY, replace(tiny[name], window_tokens=120))
    text = "A piece of cake, and a sharp knife. Who would put poison in it? Nobody would! " * 6
    growing = GrowingContent()
    num_windows = 0
    for length in (3, 30, 31, 100, 220, 221, 400, len(text)):
        content = Content.response(text[:length], context="Tell me of a cake.")
        found, fresh = (
            moderator.judge(content, policy_set(rule("any"), rule("poison")), growing=kept)
            for kept in (growing, None)
        )
        for score, expected in zip(found.scores, fresh.scores, strict=True):
            assert [(w.start, w.end) for w in score.windows] == [
                (w.start, w.end) for w in expected.windows
            ]
            assert [w.raw for w in score.windows] == pytest.approx(
                [w.raw for w in expected.windows], abs=1e-4
            )
        num_windows = found.coverage[0].windows
    assert num_windows > 3


def test_a_window_of_a_growing_text_that_is_full_is_not_asked_again(
    small_tokenizer: SafeTokenizer,
) -> None:
    engine = WordEngine(small_tokenizer, WORDS)
    moderator = Moderator(LIBRARY, word_classifier(engine, window_tokens=80))
    growing = GrowingContent()
    moderator.judge(Content.prompt("cake and " * 60), policy_set(), growing=growing)
    asked = len(engine.prompts)
    verdict = moderator.judge(
        Content.prompt("cake and " * 60 + "poison"), policy_set(), growing=growing
    )
    assert asked >= 3
    assert 1 <= len(engine.prompts) - asked <= 2  # the last window, and perhaps one more behind it
    assert len(verdict.scores[0].windows) >= asked
    assert verdict.scores[0].raw == 0.9


def test_a_window_of_a_growing_text_that_becomes_full_costs_nothing_more(
    tiny: dict[str, Classifier],
) -> None:
    classifier = replace(tiny["gemma3"], window_tokens=120)
    moderator = Moderator(LIBRARY, classifier)
    text = "".join(f"{n} pieces of cake, and {n} knives. " for n in range(60))
    growing = GrowingContent()
    lengths = range(40, len(text), 40)

    def judge(length: int) -> Verdict:
        return moderator.judge(Content.response(text[:length]), policy_set(), growing=growing)

    with computed_rows(classifier.model) as rows:
        for length in lengths:
            coverage = judge(length).coverage[0]
    with computed_rows(classifier.model) as again:
        judge(lengths[-1])
    assert coverage.windows > 4
    [question] = again  # nothing of the text was new
    overlaps = 30 * (coverage.windows - 1)
    questions = question * (len(lengths) + coverage.windows)
    assert sum(rows) < coverage.tokens + overlaps + questions


def test_no_window_is_begun_after_the_deadline(small_tokenizer: SafeTokenizer) -> None:
    engine = WordEngine(small_tokenizer, WORDS, seconds=0.05)
    moderator = Moderator(LIBRARY, word_classifier(engine, window_tokens=40))
    with pytest.raises(EngineTimeout, match="before the whole content was scored"):
        moderator.judge(
            Content.prompt("word " * 2000),
            policy_set(),
            caller=Caller(deadline=time.monotonic() + 0.3),
        )
    assert 1 <= len(engine.prompts) <= 8


def test_no_window_is_begun_after_the_caller_has_left(
    moderator: Moderator, engine: WordEngine
) -> None:
    caller = Caller(has_left=lambda: len(engine.prompts) >= 3)
    with pytest.raises(CallerLeft, match="before the whole content was scored"):
        moderator.judge(Content.prompt("word " * 4000), policy_set(), caller=caller)
    assert len(engine.prompts) == 3


def test_the_prompt_that_a_response_answers_is_shown_and_not_judged(
    moderator: Moderator, engine: WordEngine, small_tokenizer: SafeTokenizer
) -> None:
    content = Content.response("Here is a cake.", context="What is sweet?")
    verdict = moderator.judge(content, policy_set())
    (prompt,) = engine.prompts
    assert "What is sweet?" in small_tokenizer.decode(list(prompt.prefix))
    assert verdict.coverage[0].tokens == len(small_tokenizer.content("Here is a cake."))
    assert verdict.coverage[0].reason is None


def test_a_long_prompt_before_a_response_is_shown_by_its_end_and_the_verdict_says_so(
    moderator: Moderator, engine: WordEngine
) -> None:
    content = Content.response("Here is a cake.", context="long " * 500_000 + "the end")
    verdict = moderator.judge(content, policy_set())
    (prompt,) = engine.prompts
    assert len(prompt.prefix) < 512
    assert verdict.complete
    assert verdict.coverage[0].reason == (
        "of the prompt that it answers, the last 256 tokens were shown"
    )


@pytest.mark.parametrize("room", [1, 2, 60])
def test_content_is_scored_in_whatever_room_the_policies_leave(
    small_tokenizer: SafeTokenizer, room: int
) -> None:
    engine = WordEngine(small_tokenizer, WORDS)
    classifier = word_classifier(engine)
    fixed = classifier.builder.num_fixed_tokens(Surface.RESPONSE, ["No poison, no knife."])
    engine.max_prompt_tokens = fixed + room
    content = Content.response("cake and a knife", context="something before it")
    verdict = Moderator(LIBRARY, classifier).judge(content, policy_set())
    assert max(prompt.longest for prompt in engine.prompts) <= fixed + room
    assert verdict.complete


def test_a_policy_that_fills_the_context_is_an_error(small_tokenizer: SafeTokenizer) -> None:
    engine = WordEngine(small_tokenizer, WORDS, max_prompt_tokens=10)
    with pytest.raises(ModelError, match="fills the model's context of 10 tokens"):
        Moderator(LIBRARY, word_classifier(engine)).judge(Content.prompt("cake"), policy_set())


def test_a_classifier_of_images_alone_judges_no_text(tiny: dict[str, Classifier]) -> None:
    with pytest.raises(UnsupportedModality, match="no words for surface 'prompt'"):
        Moderator(LIBRARY, tiny["shieldgemma2"]).judge(Content.prompt("cake"), policy_set())


def test_a_real_model_gives_one_score_a_policy(tiny: dict[str, Classifier]) -> None:
    moderator = Moderator(LIBRARY, replace(tiny["gemma2"], window_tokens=200))
    rules = policy_set(rule("any"), rule("knife"), rule("poison"))
    verdict = moderator.judge(Content.prompt("A long text. " * 120), rules)
    assert [score.policy_id for score in verdict.scores] == ["any", "knife", "poison"]
    assert verdict.coverage[0].windows > 1
    alone = moderator.judge(Content.prompt("A long text. " * 120), policy_set(rule("knife")))
    assert [w.raw for w in alone.scores[0].windows] == pytest.approx(
        [w.raw for w in verdict.scores[1].windows], abs=1e-4
    )
