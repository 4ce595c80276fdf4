"""Scores that are remembered: exact, by policy, bounded, and of nothing that failed."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.caller import PATIENT, Caller
from moderation.checkpoints import Classifier
from moderation.content import Content, ImagePart, Part, TextPart
from moderation.engine import Ask
from moderation.errors import ContentTooLong, EngineError
from moderation.growing import GrowingContent
from moderation.media.ocr import ImageText
from moderation.moderator import ContentLimits, Moderator
from moderation.score_cache import ScoreCache
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import Verdict, verdict_to_dict
from policies import Action, PolicyLibrary, Surface
from tests.moderation.media import animation, plain, video
from tests.moderation.scripted import WordEngine, word_classifier
from tests.moderation.test_moderator import LIBRARY, WORDS, policy, policy_set, rule


@pytest.fixture
def engine(small_tokenizer: SafeTokenizer) -> WordEngine:
    return WordEngine(small_tokenizer, WORDS)


@pytest.fixture
def moderator(engine: WordEngine) -> Moderator:
    return Moderator(LIBRARY, word_classifier(engine), cache=ScoreCache())


def num_leaves(engine: WordEngine) -> int:
    found = sum(len(prompt.leaves) for prompt in engine.prompts)
    engine.prompts.clear()
    return found


def without_marks(verdict: Verdict) -> dict[str, Any]:
    found: dict[str, Any] = verdict_to_dict(verdict)
    del found["timings"]
    for score in found["scores"]:
        score.pop("cached", None)
    return found


def test_the_same_content_is_scored_once_and_the_verdict_says_so(
    moderator: Moderator, engine: WordEngine
) -> None:
    first = moderator.judge(Content.prompt("a knife"), policy_set())
    assert num_leaves(engine) == 1
    assert "cached" not in verdict_to_dict(first)["scores"][0]  # type: ignore[index]
    again = moderator.judge(Content.prompt("a knife"), policy_set())
    assert num_leaves(engine) == 0
    assert verdict_to_dict(again)["scores"][0]["cached"] is True  # type: ignore[index]
    assert without_marks(again) == without_marks(first)


def test_thresholds_and_actions_change_without_a_miss(
    moderator: Moderator, engine: WordEngine
) -> None:
    moderator.judge(Content.prompt("a knife"), policy_set(rule("any", 0.9)))
    engine.prompts.clear()
    strict = moderator.judge(Content.prompt("a knife"), policy_set(rule("any", 0.3)))
    assert (strict.action, num_leaves(engine)) == (Action.BLOCK, 0)


def test_a_new_policy_is_asked_alone(moderator: Moderator, engine: WordEngine) -> None:
    content = Content.prompt("a knife")
    moderator.judge(content, policy_set(rule("any")))
    engine.prompts.clear()
    verdict = moderator.judge(content, policy_set(rule("knife"), rule("any"), rule("poison")))
    assert num_leaves(engine) == 2
    assert {score.policy_id: score.cached for score in verdict.scores} == {
        "knife": False,
        "any": True,
        "poison": False,
    }
    assert [score.raw for score in verdict.scores] == [0.6, 0.6, 0.01]
    both = moderator.judge(content, policy_set(rule("any"), rule("poison")))
    assert [score.cached for score in both.scores] == [True, True]


@pytest.mark.parametrize(
    "other",
    [
        Content.prompt("a knife "),
        Content.response("a knife"),
        Content.response("a knife", context="cake"),
    ],
)
def test_other_text_surface_or_context_is_a_miss(
    moderator: Moderator, engine: WordEngine, other: Content
) -> None:
    moderator.judge(Content.prompt("a knife"), policy_set())
    moderator.judge(Content.response("a knife", context="a cake"), policy_set())
    engine.prompts.clear()
    moderator.judge(other, policy_set())
    assert num_leaves(engine) == 1


def test_other_words_of_a_policy_are_a_miss(engine: WordEngine) -> None:
    cache = ScoreCache()
    changed = policy("any", prompt="No knife.", response="No poison.")
    for library in (LIBRARY, PolicyLibrary({"any": changed}, {})):
        moderator = Moderator(library, word_classifier(engine), cache=cache)
        moderator.judge(Content.prompt("a knife"), policy_set())
    assert num_leaves(engine) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"revision": "2"},
        {"name": "other"},
        {"template": "other"},
        {"dtype": "bfloat16"},
        {"calibration": "platt-1"},
    ],
)
def test_another_model_template_or_calibration_is_a_miss(
    engine: WordEngine, changed: dict[str, str]
) -> None:
    cache, known = ScoreCache(), word_classifier(engine)
    for info in (known.info, replace(known.info, **changed)):
        moderator = Moderator(LIBRARY, replace(known, info=info), cache=cache)
        moderator.judge(Content.prompt("a knife"), policy_set())
    assert num_leaves(engine) == 2


def test_another_size_of_windows_is_a_miss_where_there_are_several(engine: WordEngine) -> None:
    cache = ScoreCache()
    text = "word " * 100 + "knife"
    verdicts = [
        Moderator(LIBRARY, word_classifier(engine, window_tokens=size), cache=cache).judge(
            Content.prompt(text), policy_set()
        )
        for size in (60, 90, 60)
    ]
    counts = [len(verdict.scores[0].windows) for verdict in verdicts]
    assert counts[0] == counts[2] > counts[1] > 1
    assert [verdict.scores[0].cached for verdict in verdicts] == [False, False, True]
    assert verdicts[2].scores == (replace(verdicts[0].scores[0], cached=True),)


def test_a_content_of_which_a_part_is_new_is_not_marked(
    moderator: Moderator, engine: WordEngine
) -> None:
    def judge(*texts: str) -> Verdict:
        parts: tuple[Part, ...] = tuple(TextPart(text) for text in texts)
        return moderator.judge(Content(surface=Surface.PROMPT, parts=parts), policy_set())

    judge("cake")
    engine.prompts.clear()
    (score,) = judge("cake", "a knife").scores
    assert (num_leaves(engine), score.cached) == (1, False)
    assert [(window.part, window.raw) for window in score.windows] == [(0, 0.01), (1, 0.6)]


def test_the_same_part_twice_is_asked_once_without_a_cache_too(engine: WordEngine) -> None:
    content = Content(surface=Surface.PROMPT, parts=(TextPart("a knife"),) * 3)
    verdict = Moderator(LIBRARY, word_classifier(engine)).judge(content, policy_set())
    assert num_leaves(engine) == 1
    assert [(w.part, w.raw) for w in verdict.scores[0].windows] == [(0, 0.6), (1, 0.6), (2, 0.6)]
    assert verdict.scores[0].cached is False


class Failing(WordEngine):
    """Fails at a word."""

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        for each in asks:
            if "poison" in self.tokenizer.decode(list(each.prompt.prefix)):
                raise EngineError("broken")
        return [self.answer(each.prompt) for each in asks]


def test_of_a_failure_nothing_is_remembered(small_tokenizer: SafeTokenizer) -> None:
    cache = ScoreCache()
    failing = Failing(small_tokenizer, WORDS)
    moderator = Moderator(LIBRARY, word_classifier(failing), cache=cache)
    parts = (TextPart("cake"), TextPart("poison"))
    with pytest.raises(EngineError, match="broken"):
        moderator.judge(Content(surface=Surface.PROMPT, parts=parts), policy_set())
    assert len(cache) == 0


def test_a_text_that_grows_is_not_remembered(moderator: Moderator) -> None:
    growing = GrowingContent()
    for text in ("a", "a cake", "a cake and"):
        moderator.judge(Content.response(text), policy_set(), growing=growing)
    assert moderator.cache is not None
    assert len(moderator.cache) == 0


class Recital:
    """Reads the same in every image, and counts them."""

    def __init__(self) -> None:
        self.num_read = 0

    def read(self, image: object) -> ImageText:
        self.num_read += 1
        return ImageText("a knife", num_unsure=1)


def with_images(engine: WordEngine, tiny: dict[str, Classifier], reader: Recital) -> Moderator:
    return Moderator(
        LIBRARY,
        word_classifier(engine),
        image=tiny["shieldgemma2"],
        reader=reader,
        cache=ScoreCache(),
    )


FILES = {
    "image": animation([plain("red")], "PNG"),
    "animation": animation([plain("red"), plain("blue")], "GIF", ms=1000),
    "video": video([plain("red")] * 5 + [plain("blue")] * 5),
}


def of_file(name: str, *, surface: Surface = Surface.PROMPT) -> Content:
    return Content(surface=surface, parts=(ImagePart(FILES[name]),))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_judged_in_full_is_neither_read_nor_scored_again(
    engine: WordEngine, tiny: dict[str, Classifier], name: str
) -> None:
    reader = Recital()
    moderator = with_images(engine, tiny, reader)
    first = moderator.judge(of_file(name), policy_set())
    num_read = reader.num_read
    engine.prompts.clear()
    again = moderator.judge(of_file(name), policy_set(rule("any", 0.99)))
    assert (reader.num_read, num_leaves(engine)) == (num_read, 0)
    assert first.complete
    assert again.scores[0].cached
    assert again.coverage == first.coverage
    assert again.scores[0].windows == first.scores[0].windows
    moderator.judge(of_file(name, surface=Surface.RESPONSE), policy_set())
    assert reader.num_read == 2 * num_read, "its text would be judged in other words"


def test_a_new_policy_for_a_known_file_is_asked_alone(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    moderator = with_images(engine, tiny, Recital())
    moderator.judge(of_file("animation"), policy_set())
    engine.prompts.clear()
    rules = policy_set(rule("any"), rule("knife"))
    assert [score.cached for score in moderator.judge(of_file("animation"), rules).scores] == [
        True,
        False,
    ]
    assert num_leaves(engine) == 1


def test_a_known_file_still_counts_towards_the_tokens_of_a_content(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    moderator = with_images(engine, tiny, Recital())
    moderator.limits = ContentLimits(max_tokens=8)
    moderator.judge(of_file("image"), policy_set())
    assert moderator.judge(of_file("image"), policy_set()).scores[0].cached
    with pytest.raises(ContentTooLong, match="part 1 has"):
        moderator.judge(
            Content(surface=Surface.PROMPT, parts=of_file("image").parts * 2), policy_set()
        )


def test_what_a_set_has_no_words_for_is_not_covered_by_memory(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    moderator = with_images(engine, tiny, Recital())
    assert moderator.judge(of_file("image"), policy_set(rule("any"), rule("knife"))).complete
    verdict = moderator.judge(of_file("image"), policy_set(rule("knife")))
    assert verdict.coverage[0].status == "partial"
    assert verdict.coverage[0].reason is not None
    assert "no policy of the set has words for an image" in verdict.coverage[0].reason


def test_a_file_that_was_not_judged_in_full_is_read_again(engine: WordEngine) -> None:
    reader = Recital()
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=reader, cache=ScoreCache())
    for _ in range(2):
        assert not moderator.judge(of_file("image"), policy_set()).complete
    assert reader.num_read == 2
    assert num_leaves(engine) == 1


def test_a_picture_and_the_text_in_it_are_remembered(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    asked: list[Ask] = []
    shows = tiny["shieldgemma2"]

    class Counting:
        is_concurrent = False
        max_prompt_tokens = shows.engine.max_prompt_tokens

        def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
            asked.extend(asks)
            return shows.engine.p_yes(asks, caller)

    moderator = Moderator(
        LIBRARY,
        word_classifier(engine),
        image=replace(shows, engine=Counting()),
        reader=Recital(),
        cache=ScoreCache(),
    )
    for data in (animation([plain("red")], "PNG"), animation([plain("red"), plain("blue")], "GIF")):
        content = Content(surface=Surface.PROMPT, parts=(ImagePart(data),))
        verdict = moderator.judge(content, policy_set())
    # the red frame of the GIF has the pixels of the PNG
    assert len(asked) == 2
    assert num_leaves(engine) == 1
    assert not verdict.scores[0].cached
    assert moderator.judge(content, policy_set()).scores[0].cached
    assert len(asked) == 2


key = st.binary(min_size=1, max_size=2)


@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(
        st.tuples(key, st.sampled_from("abc"), st.lists(st.floats(0, 1), min_size=1, max_size=3))
    ),
    max_entries=st.integers(0, 5),
)
def test_what_is_recalled_is_what_was_remembered_last(
    steps: list[tuple[bytes, str, list[float]]], max_entries: int
) -> None:
    cache = ScoreCache(max_entries=max_entries)
    latest: dict[tuple[bytes, str], tuple[float, ...]] = {}
    for reading, policy_hash, scores in steps:
        cache.remember(reading, {policy_hash: scores})
        latest[reading, policy_hash] = tuple(scores)
        assert len(cache) <= max_entries
        for known, value in cache.recall(reading, "abc").items():
            assert value == latest[reading, known]
        assert (policy_hash in cache.recall(reading, "abc")) == (max_entries > 0)


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    cache = ScoreCache(max_entries=2)
    cache.remember(b"1", {"a": [0.1]})
    cache.remember(b"2", {"a": [0.2]})
    cache.recall(b"1", ["a"])
    cache.remember(b"3", {"a": [0.3]})
    assert cache.recall(b"2", ["a"]) == {}
    assert cache.recall(b"1", ["a"]) == {"a": (0.1,)}


@pytest.mark.parametrize("off", [{"max_entries": 0}, {"max_bytes": 0}])
def test_either_bound_of_zero_turns_it_off(engine: WordEngine, off: dict[str, int]) -> None:
    cache = ScoreCache(**off)
    moderator = Moderator(LIBRARY, word_classifier(engine), cache=cache)
    for _ in range(2):
        verdict = moderator.judge(Content.prompt("a knife"), policy_set())
    assert (num_leaves(engine), verdict.scores[0].cached) == (2, False)
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_the_bytes_are_bounded() -> None:
    cache = ScoreCache(max_bytes=10_000)
    for number in range(200):
        cache.remember(number.to_bytes(32), {"a": [0.5] * (number % 40 + 1)})
        assert 0 < cache.num_bytes <= 10_000
    cache.remember(b"large", {"a": [0.5] * 10_000})
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_many_threads_share_it() -> None:
    cache = ScoreCache(max_entries=50)
    wrong: list[object] = []

    def work(seed: int) -> None:
        for step in range(2000):
            number = (step * seed) % 80
            cache.remember(bytes([number]), {"a": [number / 100]})
            found = cache.recall(bytes([number]), ["a"])
            wrong.extend(value for value in found.values() if value != (number / 100,))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) == 50


def test_memory_stays_bounded_over_two_hundred_thousand_contents() -> None:
    """In a process of its own: its memory after a tenth of them, and after all."""
    script = """
import re
from pathlib import Path
from moderation.score_cache import ScoreCache
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
policies = [f"{number:012x}" for number in range(6)]
def fill(cache, first, last):
    for number in range(first, last):
        cache.remember(number.to_bytes(32), {policy: [number / 200_000] for policy in policies})
before = resident()
cache = ScoreCache(max_bytes=16 * 1024**2)
fill(cache, 0, 20_000)
early = resident()
fill(cache, 20_000, 200_000)
print(len(cache), cache.num_bytes, early - before, resident() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    entries, counted, early, late = map(int, done.stdout.split())
    assert 10_000 < entries < 30_000
    assert counted <= 16 * 1024**2
    assert late < 1.3 * counted, "what is counted is what is used"
    assert late < 1.2 * early + 2 * 1024**2
