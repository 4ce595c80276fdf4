"""Disguised texts are judged as they are and in their normal form; the higher score counts."""

import io
from dataclasses import replace

import pytest

from moderation.checkpoints import Classifier
from moderation.content import Content, ImagePart, TextPart
from moderation.engine import Engine
from moderation.growing import GrowingContent
from moderation.media.ocr import ImageText
from moderation.moderator import ContentLimits, Moderator
from moderation.normal_form import normal_form
from moderation.score_cache import ScoreCache
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import verdict_to_dict
from policies import Action, Surface
from tests.moderation.media import plain
from tests.moderation.scripted import WordEngine, word_classifier
from tests.moderation.test_moderator import LIBRARY, WORDS, policy_set, rule

DISGUISED = "Buy some p0ison."


@pytest.fixture
def engine(small_tokenizer: SafeTokenizer) -> WordEngine:
    return WordEngine(small_tokenizer, WORDS)


@pytest.fixture
def moderator(engine: WordEngine) -> Moderator:
    return Moderator(LIBRARY, word_classifier(engine))


def asked(engine: WordEngine) -> list[str]:
    return [engine.tokenizer.decode(list(prompt.prefix)) for prompt in engine.prompts]


@pytest.mark.parametrize(
    "text",
    ["p0ison", "po\u200bison", "p.o.i.s.o.n", "p o i s o n", "роison", "𝐩𝐨𝐢𝐬𝐨𝐧", "poisssson"],
)
def test_a_disguised_word_is_found(moderator: Moderator, engine: WordEngine, text: str) -> None:
    if text == "poisssson":
        engine.words = {"poisson": 0.9}
    verdict = moderator.judge(Content.prompt(f"Buy some {text}."), policy_set())
    assert (verdict.action, verdict.scores[0].raw) == (Action.BLOCK, 0.9)
    assert verdict.scores[0].form == "normalised"
    given, normal = asked(engine)
    assert text in given
    assert text not in normal


def test_both_forms_are_windows_of_the_text_as_it_was_given(moderator: Moderator) -> None:
    text = "\u200bBuy some p.o.i.s.o.n."
    verdict = moderator.judge(Content.prompt(text), policy_set())
    given, normal = verdict.scores[0].windows
    assert (given.form, given.start, given.end, given.raw) == (None, 0, len(text), 0.01)
    assert (normal.form, normal.start, normal.end, normal.raw) == ("normalised", 1, len(text), 0.9)
    (covered,) = verdict.coverage
    assert (covered.status, covered.windows, covered.reason) == ("scored", 2, None)
    tokens = moderator.text.builder.content_tokens
    assert covered.tokens == len(tokens(text)) + len(tokens("Buy some poison."))
    windows = verdict_to_dict(verdict)["scores"][0]["windows"]  # type: ignore[index]
    assert [window.get("form") for window in windows] == [None, "normalised"]
    assert "form" not in windows[0]


def test_the_form_with_the_higher_score_counts(moderator: Moderator, engine: WordEngine) -> None:
    engine.words = {"c4ke": 0.7, "cake": 0.3}
    verdict = moderator.judge(Content.prompt("Eat some c4ke."), policy_set())
    assert (verdict.scores[0].raw, verdict.scores[0].form) == (0.7, None)
    assert [window.raw for window in verdict.scores[0].windows] == [0.7, 0.3]


def test_an_ordinary_text_is_asked_once(moderator: Moderator, engine: WordEngine) -> None:
    verdict = moderator.judge(Content.prompt("Buy some poison."), policy_set())
    assert len(asked(engine)) == verdict.coverage[0].windows == 1


def test_without_normal_forms_the_text_is_asked_as_it_is_alone(engine: WordEngine) -> None:
    def same(engine: Engine) -> Engine:
        return engine

    moderator = Moderator(LIBRARY, word_classifier(engine), normalise=False)
    for each in (moderator, moderator.with_engines(same)):
        engine.prompts.clear()
        assert each.judge(Content.prompt(DISGUISED), policy_set()).scores[0].raw == 0.01
        assert len(asked(engine)) == 1


def test_windows_of_a_long_disguised_text_say_where_they_stand(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine, window_tokens=80))
    words = ["w\u200bo\u200brd"] * 200
    words.insert(150, "p-o-i-s-o-n")
    text = " ".join(words)
    verdict = moderator.judge(Content.prompt(text), policy_set())
    normal = [window for window in verdict.scores[0].windows if window.form is not None]
    assert len(normal) > 3
    assert [(window.start, window.end) for window in normal] == sorted(
        (window.start, window.end) for window in normal
    )
    assert (normal[0].start, normal[-1].end) == (0, len(text))
    for window in normal:
        assert (window.raw == 0.9) == ("p-o-i-s-o-n" in text[window.start : window.end])


def test_a_normal_form_takes_nothing_from_the_limit_of_the_content(engine: WordEngine) -> None:
    num_tokens = len(engine.tokenizer.content(DISGUISED))
    limits = ContentLimits(max_tokens=num_tokens)
    moderator = Moderator(LIBRARY, word_classifier(engine), limits=limits)
    assert moderator.judge(Content.prompt(DISGUISED), policy_set()).scores[0].raw == 0.9


def test_scores_of_both_forms_are_remembered(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), cache=ScoreCache())
    first = moderator.judge(Content.prompt(DISGUISED), policy_set())
    again = moderator.judge(Content.prompt(DISGUISED), policy_set())
    assert len(asked(engine)) == 2
    assert again.scores[0].cached
    assert again.scores[0].windows == first.scores[0].windows
    # what is known of the normal form is known of the same text without a disguise
    plain_text = moderator.judge(Content.prompt("Buy some poison."), policy_set())
    assert len(asked(engine)) == 2
    assert plain_text.scores[0].windows[0].form is None


def test_every_part_has_its_own_normal_form(moderator: Moderator) -> None:
    parts = (TextPart("a cake"), TextPart("a kn1fe"), TextPart(DISGUISED))
    verdict = moderator.judge(Content(surface=Surface.PROMPT, parts=parts), policy_set())
    found = [(window.part, window.form, window.raw) for window in verdict.scores[0].windows]
    assert found == [
        (0, None, 0.01),
        (1, None, 0.01),
        (1, "normalised", 0.6),
        (2, None, 0.01),
        (2, "normalised", 0.9),
    ]
    assert [part.windows for part in verdict.coverage] == [1, 2, 2]


class Recital:
    """Reads the same in every image, and counts them."""

    num_read = 0

    def read(self, image: object) -> ImageText:
        self.num_read += 1
        return ImageText(DISGUISED)


def test_a_disguised_text_in_an_image_is_found_and_remembered(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    reader = Recital()
    moderator = Moderator(
        LIBRARY,
        word_classifier(engine),
        image=tiny["shieldgemma2"],
        reader=reader,
        cache=ScoreCache(),
    )
    data = io.BytesIO()
    plain("white").save(data, "PNG")
    content = Content(surface=Surface.PROMPT, parts=(ImagePart(data.getvalue()),))
    asked_by = policy_set(rule("poison"), rule("pictures"))
    first, again = (moderator.judge(content, asked_by) for _ in range(2))
    for verdict in (first, again):
        score = verdict.scores[0]
        assert (score.policy_id, score.raw, score.form) == ("poison", 0.9, "normalised")
    assert again.scores == tuple(replace(score, cached=True) for score in first.scores)


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_the_normal_form_of_a_growing_text_has_the_scores_of_a_fresh_one(
    tiny: dict[str, Classifier], name: str
) -> None:
    moderator = Moderator(LIBRARY, replace(tiny[name], window_tokens=120))
    text = "A cake and th3 d13. Take p.o.i.s.o.n, k n i f e and y\u200bou: g00d, killlll! " * 4
    growing = GrowingContent()
    num_normal = 0
    for length in (9, 20, 27, 29, 33, 60, 66, 130, 200, len(text)):
        content = Content.response(text[:length], context="Tell me of a cake.")
        found, fresh = (
            moderator.judge(content, policy_set(rule("any"), rule("poison")), growing=kept)
            for kept in (growing, None)
        )
        for score, expected in zip(found.scores, fresh.scores, strict=True):
            assert [(w.start, w.end, w.form) for w in score.windows] == [
                (w.start, w.end, w.form) for w in expected.windows
            ]
            assert [w.raw for w in score.windows] == pytest.approx(
                [w.raw for w in expected.windows], abs=1e-4
            )
        has_normal = any(window.form for window in found.scores[0].windows)
        assert has_normal == (normal_form(text[:length]) is not None)
        num_normal += has_normal
    assert 5 < num_normal < 10


def test_a_disguised_word_is_found_when_a_stream_has_brought_all_of_it(
    moderator: Moderator,
) -> None:
    growing = GrowingContent()
    text = "Sure: take p.o.i.s.o.n today"
    found = [
        moderator.judge(Content.response(text[:length]), policy_set(), growing=growing).flagged
        for length in (10, 14, 20, 22, len(text))
    ]
    assert found == [False, False, False, True, True]
