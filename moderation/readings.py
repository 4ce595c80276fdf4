"""What is put to a classifier of one part: its text in windows, or what one picture shows.

Knows policies, prompts and windows. Knows nothing of engines, thresholds, actions or coverage.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

from PIL import Image

from moderation.checkpoints import Classifier
from moderation.errors import ModelError
from moderation.growing import GrowingContent
from moderation.media.pictures import Picture
from moderation.normal_form import NormalForm
from moderation.prompts import JudgePrompt
from moderation.tokenizer import Tokens
from moderation.verdict import FramePlace
from moderation.windows import split_windows
from policies import Policy, Surface

WINDOW_OVERLAP = 128
"""Tokens that neighbouring windows share."""
MAX_CHARACTERS_PER_TOKEN = 32
"""No token of a Gemma vocabulary stands for more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """One way to read a part, under all policies that have words for it."""

    classifier: Classifier
    part: int
    """Index that its windows name."""
    surface: Surface
    policies: Mapping[str, Policy]
    """By id, in order; never empty."""
    key: bytes
    """Hash of everything that its scores depend on besides the policy."""
    spans: tuple[tuple[int, int], ...]
    """Its windows, [start, end) in characters; 0 and 0 for a picture."""
    num_tokens: int
    prompts: Callable[[Sequence[str]], list[JudgePrompt]]
    """The prompt of each window, from the words of some policies."""
    image: Image.Image | None = None
    """RGB; of a picture."""
    frame: FramePlace | None = None
    """Where the picture that is seen or read stands in a file of several."""
    growing: GrowingContent | None = None
    """Of a text that was scored before and will be again, with more behind it."""
    notes: tuple[str, ...] = ()
    """What a reader of the verdict should know, though all of it was put to the classifier."""
    form: Literal["normalised"] | None = None
    """Whether it is the normal form of a text; its spans are of the text as given."""

    def words(self, policy_id: str) -> str:
        """What the classifier is told of a policy."""
        words = self.policies[policy_id].definition_for(self.surface)
        assert words is not None, "policies without words are left out"
        return words

    def outline(self) -> "Reading":
        """All but what was read, and by which policies: enough to find its scores again."""
        return replace(self, part=0, policies={}, prompts=_forgotten, image=None)

    def under(self, policies: Sequence[Policy], *, part: int) -> "Reading | None":
        """An outline under these policies; None where none of them has words for it."""
        asked = _with_words(policies, self.surface)
        return replace(self, part=part, policies=asked) if asked else None


def read_text(
    classifier: Classifier,
    policies: Sequence[Policy],
    surface: Surface,
    text: str,
    tokens: Tokens,
    *,
    part: int,
    context: str | None,
    growing: GrowingContent | None = None,
    frame: FramePlace | None = None,
) -> Reading | None:
    """A text in windows; None where no policy has words for `surface`.

    Args:
        classifier: judges texts.
        policies: those without words for `surface` are passed over.
        surface: prompt or response.
        text: not empty.
        tokens: of `text`.
        part: index that the windows name.
        context: for a response, the prompt that it answers: shown, not judged.
        growing: see `Reading`.
        frame: of a text that stands in a frame.

    Raises:
        ModelError: a policy text leaves no room for content in the model's context.
        UnsupportedModality: the classifier judges no texts.
    """
    asked = _with_words(policies, surface)
    if not asked:
        return None
    builder = classifier.builder
    every = [words for policy in asked.values() if (words := policy.definition_for(surface))]
    room = classifier.engine.max_prompt_tokens - builder.num_fixed_tokens(surface, every)
    notes: tuple[str, ...] = ()
    shown_ids: tuple[int, ...] = ()
    if context and surface is Surface.RESPONSE:
        # its last tokens say best what the response answers
        most = min(classifier.window_tokens, room) // 2
        ids = builder.content_tokens(context[-most * MAX_CHARACTERS_PER_TOKEN :]).ids
        shown_ids = ids[-most:] if most > 0 else ()
        if len(shown_ids) < len(ids):
            notes = (f"of the prompt that it answers, the last {len(shown_ids)} tokens were shown",)
    size = min(classifier.window_tokens, room - len(shown_ids))
    if size < 1:
        raise _no_room(classifier)
    windows = split_windows(text, tokens, size=size, overlap=min(WINDOW_OVERLAP, size // 4))

    def prompts(definitions: Sequence[str]) -> list[JudgePrompt]:
        return [
            builder.text_prompt(
                surface, tokens.ids[window.first : window.last], definitions, context=shown_ids
            )
            for window in windows
        ]

    return Reading(
        classifier=classifier,
        part=part,
        surface=surface,
        policies=asked,
        # the size of windows follows from the longest policy: in another set it may be another
        key=_key(classifier, surface, text, shown_ids, size if len(windows) > 1 else "one window"),
        spans=tuple((window.start, window.end) for window in windows),
        num_tokens=len(tokens),
        prompts=prompts,
        frame=frame,
        growing=growing,
        notes=notes,
    )


def read_normal_form(reading: Reading, form: NormalForm, *, context: str | None) -> Reading:
    """The normal form of a text that is read.

    Args:
        reading: of the text as given.
        form: of the same text.
        context: as in `read_text`.

    Raises:
        ModelError: see `read_text`.
    """
    normal = read_text(
        reading.classifier,
        list(reading.policies.values()),
        reading.surface,
        form.text,
        reading.classifier.builder.content_tokens(form.text),
        part=reading.part,
        context=context,
        growing=reading.growing.of_normal_form() if reading.growing is not None else None,
        frame=reading.frame,
    )
    assert normal is not None, "the text as given was read under the same policies"
    spans = tuple(form.original(start, end) for start, end in normal.spans)
    return replace(normal, spans=spans, notes=(), form="normalised")


def read_picture(
    classifier: Classifier, policies: Sequence[Policy], picture: Picture, *, part: int
) -> Reading | None:
    """What a picture shows; None where no policy has words for images.

    Args:
        classifier: has a vision tower.
        policies: those without words for images are passed over.
        picture: what to look at.
        part: index that the window names.

    Raises:
        ModelError: a policy text does not fit the model's context.
    """
    asked = _with_words(policies, Surface.IMAGE)
    if not asked:
        return None
    builder = classifier.builder

    def prompts(definitions: Sequence[str]) -> list[JudgePrompt]:
        prompt = builder.image_prompt(definitions)
        if prompt.longest > classifier.engine.max_prompt_tokens:
            raise _no_room(classifier)
        return [prompt]

    image = picture.image
    seen = hashlib.sha256(image.tobytes()).hexdigest()
    return Reading(
        classifier=classifier,
        part=part,
        surface=Surface.IMAGE,
        policies=asked,
        key=_key(classifier, Surface.IMAGE, image.size, seen),
        spans=((0, 0),),
        num_tokens=builder.num_image_tokens,
        prompts=prompts,
        image=image,
        frame=picture.frame,
    )


def file_key(data: bytes, *judged_by: object) -> bytes:
    """SHA-256 of a file and of everything that decides how it is read."""
    digest = hashlib.sha256(data)
    digest.update(json.dumps([repr(each) for each in judged_by]).encode())
    return digest.digest()


def _forgotten(_: Sequence[str]) -> list[JudgePrompt]:
    raise AssertionError("an outline is scored from memory alone")


def _with_words(policies: Sequence[Policy], surface: Surface) -> dict[str, Policy]:
    return {policy.id: policy for policy in policies if policy.definition_for(surface) is not None}


def _key(classifier: Classifier, *read: object) -> bytes:
    """SHA-256 of what is read and of the model that reads it, its calibration included."""
    named = json.dumps([astuple(classifier.info), *read])
    return hashlib.sha256(named.encode()).digest()


def _no_room(classifier: Classifier) -> ModelError:
    return ModelError(
        f"a policy text fills the model's context of {classifier.engine.max_prompt_tokens} tokens,"
        " so no content fits beside it; shorten the policy (wardgate policies lint counts its"
        " tokens)"
    )
