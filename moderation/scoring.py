"""Scores readings: puts to the engines what is not remembered, many readings together.

Knows engines and windows. Knows nothing of thresholds, actions or coverage.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moderation.caller import Caller
from moderation.checkpoints import Classifier
from moderation.engine import Ask, Engine
from moderation.errors import ContentEmpty, ContentTooLong, InvalidText
from moderation.growing import GrowingContent
from moderation.prompts import JudgePrompt
from moderation.readings import MAX_CHARACTERS_PER_TOKEN, Reading
from moderation.score_cache import ScoreCache
from moderation.tokenizer import Tokens
from moderation.verdict import WindowScore


@dataclass(slots=True)
class PartScores:
    """What scoring one part gave."""

    windows: dict[str, list[WindowScore]] = field(default_factory=dict)
    """By policy id, in order; a policy without words for the part has none."""
    new: set[str] = field(default_factory=set)
    """Ids of policies that at least one window was put to the engine for."""
    num_tokens: int = 0
    num_windows: int = 0
    notes: list[str] = field(default_factory=list)
    """What a reader of the verdict should know, though all of the part was judged."""

    def add(self, other: "PartScores") -> None:
        """Puts another reading of the same part beside this one."""
        for policy_id, scored in other.windows.items():
            self.windows.setdefault(policy_id, []).extend(scored)
        self.new |= other.new
        self.num_tokens += other.num_tokens
        self.num_windows += other.num_windows
        self.notes += other.notes


class TokenBudget:
    """Counts the tokens of all texts of one content; past the maximum the content is refused."""

    def __init__(self, classifier: Classifier, max_tokens: int) -> None:
        self._builder = classifier.builder
        self._max_tokens = max_tokens
        self._left = max_tokens

    def tokenize(self, part: int, text: str) -> Tokens:
        """The tokens of a text.

        Raises:
            ContentTooLong: the texts up to this one have more tokens than the maximum.
            InvalidText: lone surrogates.
        """
        # characters first: a gigabyte must not be tokenised to learn that it is too long
        if len(text) > self._left * MAX_CHARACTERS_PER_TOKEN:
            raise self._too_long(part, f"{len(text)} characters")
        try:
            tokens = self._builder.content_tokens(text)
        except InvalidText as exc:
            raise InvalidText(f"is no text: {exc.problem}", part=part) from exc
        self.spend(part, len(tokens))
        return tokens

    def spend(self, part: int, num_tokens: int) -> None:
        """Counts tokens of a text. Raises `ContentTooLong`."""
        if num_tokens > self._left:
            raise self._too_long(part, f"{num_tokens} tokens")
        self._left -= num_tokens

    def _too_long(self, part: int, found: str) -> ContentTooLong:
        others = self._max_tokens - self._left
        before = f" after {others} tokens in the parts before it" if others else ""
        return ContentTooLong(
            f"has {found}{before}; at most {self._max_tokens} tokens are accepted in all; split the"
            " content",
            part=part,
        )


def score_readings(
    readings: Sequence[Reading], caller: Caller, cache: ScoreCache | None = None
) -> list[PartScores]:
    """The scores of every reading, in order.

    Those of one engine are asked together. What is read twice is asked once, under the policies of
    both.

    Args:
        readings: of any parts.
        caller: asked between steps of the work whether it still waits.
        cache: what was scored before; filled with what is scored now.

    Raises:
        EngineError: no score could be computed, or not while the caller waits.
        ModelError: a policy text does not fit the model's context.
    """
    found: dict[bytes, dict[str, tuple[float, ...]]] = {}
    new: dict[bytes, tuple[Reading, list[str]]] = {}
    for reading in readings:
        known = found.setdefault(reading.key, {})
        known |= _recall(reading, cache)
        asked, before = new.get(reading.key, (reading, []))
        missing = [each for each in reading.policies if each not in known and each not in before]
        if missing:
            both = replace(asked, policies={**asked.policies, **reading.policies})
            new[reading.key] = (both, [*before, *missing])
    engines = {
        id(reading.classifier.engine): reading.classifier.engine for reading, _ in new.values()
    }
    for engine in engines.values():
        of_engine = [asked for asked in new.values() if asked[0].classifier.engine is engine]
        for (reading, _), scores in zip(of_engine, _ask(engine, of_engine, caller), strict=True):
            found[reading.key] |= scores
            if cache is not None and reading.growing is None:
                hashes = {reading.policies[each].hash: raws for each, raws in scores.items()}
                cache.remember(reading.key, hashes)
    return [
        _part_scores(reading, found[reading.key], new[reading.key][1] if reading.key in new else ())
        for reading in readings
    ]


def recall_readings(readings: Sequence[Reading], cache: ScoreCache) -> list[PartScores] | None:
    """The scores of every reading from memory alone; None where any is missing there."""
    known = [_recall(reading, cache) for reading in readings]
    if any(
        reading.policies.keys() - scores.keys()
        for reading, scores in zip(readings, known, strict=True)
    ):
        return None
    return [
        _part_scores(reading, scores, ()) for reading, scores in zip(readings, known, strict=True)
    ]


def check_not_empty(part: int, text: str) -> None:
    """Raises `ContentEmpty` for a text of white space alone."""
    if not text.strip():
        raise ContentEmpty("is an empty text; expected something to judge", part=part)


def _recall(reading: Reading, cache: ScoreCache | None) -> dict[str, tuple[float, ...]]:
    """What is remembered of a reading, by policy id."""
    if cache is None or reading.growing is not None:
        return {}
    hashes = {policy_id: policy.hash for policy_id, policy in reading.policies.items()}
    known = cache.recall(reading.key, hashes.values())
    return {policy_id: known[each] for policy_id, each in hashes.items() if each in known}


def _ask(
    engine: Engine, asked: Sequence[tuple[Reading, list[str]]], caller: Caller
) -> list[dict[str, tuple[float, ...]]]:
    """By policy id, the raw scores of all windows of every reading under the policies named."""
    prompts = [
        reading.prompts([reading.words(policy_id) for policy_id in policy_ids])
        for reading, policy_ids in asked
    ]
    caller.check()  # preparing pixels costs something too
    asks: list[Ask] = []
    for (reading, _), of_reading in zip(asked, prompts, strict=True):
        asks += _asks(reading, of_reading)
    answers = iter(engine.p_yes(asks, caller))
    found = []
    for (reading, policy_ids), of_reading in zip(asked, prompts, strict=True):
        if reading.growing is None:
            windows = [next(answers) for _ in of_reading]
        else:
            windows = _grown(reading.growing, of_reading, answers)
        found.append(dict(zip(policy_ids, zip(*windows, strict=True), strict=True)))
    return found


def _asks(reading: Reading, prompts: Sequence[JudgePrompt]) -> list[Ask]:
    """One ask a window; of a text that grows, more can come into the last window only."""
    if reading.growing is not None:
        growing = reading.growing
        *before, last = prompts
        # a window that is full now was asked while it grew
        asks = [
            Ask(prompt, growing=growing.up_to_here())
            for prompt in before
            if prompt not in growing.finished
        ]
        return [*asks, Ask(last, growing=growing)]
    if reading.image is None:
        return [Ask(prompt) for prompt in prompts]
    to_pixels = reading.classifier.to_pixels
    assert to_pixels is not None, "a classifier of images prepares their pixels"
    return [Ask(prompt, to_pixels(reading.image)) for prompt in prompts]


def _grown(
    growing: GrowingContent, prompts: Sequence[JudgePrompt], answers: Iterator[list[float]]
) -> list[list[float]]:
    """The scores of all windows of a text that grows; those that are finished are kept with it."""
    *before, _ = prompts
    new = [prompt for prompt in before if prompt not in growing.finished]
    growing.finished.update((prompt, next(answers)) for prompt in new)
    return [*(growing.finished[prompt] for prompt in before), next(answers)]


def _part_scores(
    reading: Reading, scores: Mapping[str, Sequence[float]], new: Sequence[str]
) -> PartScores:
    windows = {
        policy_id: [
            WindowScore(
                part=reading.part,
                surface=reading.surface,
                start=start,
                end=end,
                raw=raw,
                frame=reading.frame,
                form=reading.form,
            )
            for (start, end), raw in zip(reading.spans, scores[policy_id], strict=True)
        ]
        for policy_id in reading.policies
    }
    return PartScores(
        windows,
        new=set(new),
        num_tokens=reading.num_tokens,
        num_windows=len(reading.spans),
        notes=list(reading.notes),
    )
