"""Scores one part of a content: a text in windows, an image by what it shows.

Knows policies, prompts and windows. Knows nothing of thresholds, actions or coverage of other
parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from moderation.caller import Caller
from moderation.checkpoints import Classifier
from moderation.engine import Ask, Engine
from moderation.errors import ContentEmpty, ContentTooLong, InvalidText, ModelError
from moderation.growing import GrowingContent
from moderation.prompts import JudgePrompt
from moderation.tokenizer import Tokens
from moderation.verdict import WindowScore
from moderation.windows import split_windows
from policies import Policy, Surface

WINDOW_OVERLAP = 128
"""Tokens that neighbouring windows share."""
_MAX_CHARACTERS_PER_TOKEN = 32
"""No token of a Gemma vocabulary stands for more."""


@dataclass(slots=True)
class PartScores:
    """What scoring one part gave."""

    windows: dict[str, list[WindowScore]] = field(default_factory=dict)
    """By policy id, in order; a policy without words for the part has none."""
    num_tokens: int = 0
    num_windows: int = 0
    notes: list[str] = field(default_factory=list)
    """What a reader of the verdict should know, though all of the part was judged."""

    def add(self, other: "PartScores") -> None:
        """Puts another reading of the same part beside this one."""
        for policy_id, scored in other.windows.items():
            self.windows.setdefault(policy_id, []).extend(scored)
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
        if len(text) > self._left * _MAX_CHARACTERS_PER_TOKEN:
            raise self._too_long(part, f"{len(text)} characters")
        try:
            tokens = self._builder.content_tokens(text)
        except InvalidText as exc:
            raise InvalidText(f"is no text: {exc.problem}", part=part) from exc
        if len(tokens) > self._left:
            raise self._too_long(part, f"{len(tokens)} tokens")
        self._left -= len(tokens)
        return tokens

    def _too_long(self, part: int, found: str) -> ContentTooLong:
        others = self._max_tokens - self._left
        before = f" after {others} tokens in the parts before it" if others else ""
        return ContentTooLong(
            f"has {found}{before}; at most {self._max_tokens} tokens are accepted in all; split the"
            " content",
            part=part,
        )


def score_text(
    classifier: Classifier,
    policies: Sequence[Policy],
    surface: Surface,
    text: str,
    tokens: Tokens,
    *,
    part: int,
    context: str | None,
    caller: Caller,
    growing: GrowingContent | None = None,
) -> PartScores:
    """Scores a text under every policy that has words for `surface`, window by window.

    Args:
        classifier: judges texts.
        policies: those without words for `surface` are passed over.
        surface: prompt or response.
        text: not empty.
        tokens: of `text`.
        part: index that the windows name.
        context: for a response, the prompt that it answers: shown, not judged.
        caller: asked between windows whether it still waits.
        growing: of a text that was scored before and will be again, with more behind it.

    Raises:
        EngineError: no score could be computed, or not while the caller waits.
        ModelError: a policy text leaves no room for content in the model's context.
        UnsupportedModality: the classifier judges no texts.
    """
    asked = _definitions(policies, surface)
    if not asked:
        return PartScores()
    builder, engine = classifier.builder, classifier.engine
    definitions = list(asked.values())
    room = engine.max_prompt_tokens - builder.num_fixed_tokens(surface, definitions)
    found = PartScores({policy_id: [] for policy_id in asked}, num_tokens=len(tokens))
    context_ids: tuple[int, ...] = ()
    if context and surface is Surface.RESPONSE:
        # its last tokens say best what the response answers
        most = min(classifier.window_tokens, room) // 2
        shown = builder.content_tokens(context[-most * _MAX_CHARACTERS_PER_TOKEN :]).ids
        context_ids = shown[-most:] if most > 0 else ()
        if len(context_ids) < len(shown):
            found.notes.append(
                f"of the prompt that it answers, the last {len(context_ids)} tokens were shown"
            )
    size = min(classifier.window_tokens, room - len(context_ids))
    if size < 1:
        raise _no_room(engine.max_prompt_tokens)
    windows = split_windows(text, tokens, size=size, overlap=min(WINDOW_OVERLAP, size // 4))
    found.num_windows = len(windows)
    prompts = [
        builder.text_prompt(
            surface, tokens.ids[window.first : window.last], definitions, context=context_ids
        )
        for window in windows
    ]
    for window, scores in zip(windows, _scores(engine, prompts, growing, caller), strict=True):
        for policy_id, raw in zip(asked, scores, strict=True):
            found.windows[policy_id].append(
                WindowScore(part=part, surface=surface, start=window.start, end=window.end, raw=raw)
            )
    return found


def _scores(
    engine: Engine, prompts: Sequence[JudgePrompt], growing: GrowingContent | None, caller: Caller
) -> list[list[float]]:
    """P(Yes) of every policy for every window of one text.

    Of a text that grows, more can come into the last window only.
    """
    if growing is None:
        return engine.p_yes([Ask(prompt) for prompt in prompts], caller)
    *before, last = prompts
    new = [prompt for prompt in before if prompt not in growing.finished]
    asks = [*(Ask(prompt) for prompt in new), Ask(last, growing=growing)]
    scores = engine.p_yes(asks, caller)
    growing.finished.update(zip(new, scores[:-1], strict=True))
    return [*(growing.finished[prompt] for prompt in before), scores[-1]]


def score_image(
    classifier: Classifier,
    policies: Sequence[Policy],
    image: Image.Image,
    *,
    part: int,
    caller: Caller,
) -> PartScores:
    """Scores what an image shows under every policy that has words for images.

    Args:
        classifier: has a vision tower.
        policies: those without words for images are passed over.
        image: RGB.
        part: index that the windows name.
        caller: see `score_text`.

    Raises:
        EngineError: no score could be computed, or not while the caller waits.
        ModelError: a policy text does not fit the model's context.
    """
    asked = _definitions(policies, Surface.IMAGE)
    if not asked:
        return PartScores()
    assert classifier.to_pixels is not None, "a classifier of images prepares their pixels"
    prompt = classifier.builder.image_prompt(list(asked.values()))
    if prompt.longest > classifier.engine.max_prompt_tokens:
        raise _no_room(classifier.engine.max_prompt_tokens)
    caller.check()  # preparing pixels costs something too
    [scores] = classifier.engine.p_yes([Ask(prompt, classifier.to_pixels(image))], caller)
    windows = {
        policy_id: [WindowScore(part=part, surface=Surface.IMAGE, start=0, end=0, raw=raw)]
        for policy_id, raw in zip(asked, scores, strict=True)
    }
    return PartScores(windows, num_tokens=classifier.builder.num_image_tokens, num_windows=1)


def check_not_empty(part: int, text: str) -> None:
    """Raises `ContentEmpty` for a text of white space alone."""
    if not text.strip():
        raise ContentEmpty("is an empty text; expected something to judge", part=part)


def _definitions(policies: Sequence[Policy], surface: Surface) -> dict[str, str]:
    """Policy texts by policy id, of the policies that have words for the surface."""
    found = {policy.id: policy.definition_for(surface) for policy in policies}
    return {policy_id: text for policy_id, text in found.items() if text is not None}


def _no_room(context: int) -> ModelError:
    return ModelError(
        f"a policy text fills the model's context of {context} tokens, so no content fits beside"
        " it; shorten the policy (wardgate policies lint counts its tokens)"
    )
