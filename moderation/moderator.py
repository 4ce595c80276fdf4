"""The moderator: content and a policy set in, a verdict out. The one door to the classifier.

Knows policies, windows and coverage. Knows nothing of HTTP; blocking, safe from any thread.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from moderation.checkpoints import Classifier
from moderation.content import Content, ImagePart, TextPart
from moderation.errors import (
    ContentEmpty,
    ContentTooLong,
    EngineTimeout,
    UnsupportedModality,
)
from moderation.images import ImageLimits, decode_image
from moderation.ocr import TextReader
from moderation.verdict import PartCoverage, Verdict, WindowScore, decide, score_policy
from moderation.windows import split_windows
from policies import Policy, PolicyLibrary, PolicySet, Surface

WINDOW_OVERLAP = 128
"""Tokens that neighbouring windows share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentLimits:
    """What one content may be at most; past it, it is refused and never cut."""

    max_tokens: int = 32_768
    max_parts: int = 64
    image: ImageLimits = field(default_factory=ImageLimits)


@dataclass(frozen=True, slots=True)
class _PartResult:
    """Windows by policy id, and what was covered."""

    windows: dict[str, list[WindowScore]]
    coverage: PartCoverage


class Moderator:
    """Judges contents with a classifier for text and, optionally, one for images."""

    def __init__(
        self,
        library: PolicyLibrary,
        text: Classifier,
        *,
        image: Classifier | None = None,
        reader: TextReader | None = None,
        limits: ContentLimits | None = None,
    ) -> None:
        """
        Args:
            library: the loaded policies.
            text: judges texts, and the text read in images.
            image: judges what images show; None leaves that uncovered.
            reader: reads text in images; None leaves that uncovered.
            limits: what is refused.
        """
        self.library = library
        self.text = text
        self.image = image
        self.reader = reader
        self.limits = limits or ContentLimits()

    def judge(
        self, content: Content, policy_set: PolicySet, *, deadline: float | None = None
    ) -> Verdict:
        """The verdict on a content.

        Args:
            content: what to judge; each part is scored, the highest score of a policy counts.
            policy_set: the policies, thresholds and actions.
            deadline: `time.monotonic()` after which no further window is begun.

        Raises:
            ContentError: the content cannot be judged (empty, too long, unreadable).
            EngineError: no score could be computed, or not in time.
            UnsupportedModality: nothing of the content can be judged by the loaded models.
        """
        started = time.monotonic()
        if not content.parts:
            raise ContentEmpty("the content has no parts; expected a text or an image")
        if len(content.parts) > self.limits.max_parts:
            raise ContentTooLong(
                f"the content has {len(content.parts)} parts; at most"
                f" {self.limits.max_parts} are accepted"
            )
        policies = [self.library.policy(rule.id) for rule in policy_set.policies]
        results = [
            self._judge_text(index, part.text, content.surface, content.context, policies, deadline)
            if isinstance(part, TextPart)
            else self._judge_image(index, part, content.surface, policies, deadline)
            for index, part in enumerate(content.parts)
        ]
        coverage = tuple(result.coverage for result in results)
        scores = []
        for rule, policy in zip(policy_set.policies, policies, strict=True):
            windows = [w for result in results for w in result.windows.get(policy.id, ())]
            if windows:  # a policy without words for these surfaces does not apply
                scores.append(score_policy(policy, rule, windows))
        if not scores:
            reasons = "; ".join(part.reason for part in coverage if part.reason)
            raise UnsupportedModality(
                f"nothing of the content could be judged: {reasons or 'no policy applies to it'}"
            )
        used = [self.text] if any(w.surface != Surface.IMAGE for s in scores for w in s.windows) else []
        if self.image and any(w.surface == Surface.IMAGE for s in scores for w in s.windows):
            used.append(self.image)
        return Verdict(
            action=decide(policy_set, scores, coverage),
            scores=tuple(scores),
            coverage=coverage,
            models=tuple(dict.fromkeys(classifier.info for classifier in used)),
            policy_set=policy_set.id,
            policy_set_version=policy_set.version,
            policy_set_hash=policy_set.hash,
            scoring_ms=(time.monotonic() - started) * 1000,
        )

    def _judge_text(
        self,
        index: int,
        text: str,
        surface: Surface,
        context: str | None,
        policies: Sequence[Policy],
        deadline: float | None,
    ) -> _PartResult:
        if not text.strip():
            raise ContentEmpty(f"part {index} is an empty text; expected something to judge")
        windows, num_tokens, num_windows = self._score_text(
            index, text, surface, context, policies, deadline
        )
        return _PartResult(
            windows,
            PartCoverage(
                part=index, modality="text", status="scored", tokens=num_tokens, windows=num_windows
            ),
        )

    def _score_text(
        self,
        index: int,
        text: str,
        surface: Surface,
        context: str | None,
        policies: Sequence[Policy],
        deadline: float | None,
    ) -> tuple[dict[str, list[WindowScore]], int, int]:
        """Windows by policy id, content tokens, number of windows."""
        builder, engine = self.text.builder, self.text.engine
        asked = [
            (policy, definition)
            for policy in policies
            if (definition := policy.definition_for(surface)) is not None
        ]
        # characters first: a gigabyte must not be tokenised to learn that it is too long
        if len(text) > self.limits.max_tokens * 32:
            raise ContentTooLong(
                f"part {index} has {len(text)} characters; at most {self.limits.max_tokens}"
                " tokens are accepted; split it"
            )
        tokens = builder.content_tokens(text)
        if len(tokens) > self.limits.max_tokens:
            raise ContentTooLong(
                f"part {index} has {len(tokens)} tokens; at most {self.limits.max_tokens} are"
                " accepted; split it"
            )
        if not asked:
            return {}, 0, 0
        definitions = [definition for _, definition in asked]
        context_ids: tuple[int, ...] = ()
        if context and surface is Surface.RESPONSE:
            # shown, not judged: its last tokens say best what the response answers
            context_ids = builder.content_tokens(context).ids[-self.text.window_tokens // 2 :]
        fixed = builder.num_fixed_tokens(surface, definitions) + len(context_ids)
        size = min(self.text.window_tokens, engine.max_prompt_tokens - fixed)
        found: dict[str, list[WindowScore]] = {policy.id: [] for policy, _ in asked}
        windows = split_windows(text, tokens, size=size, overlap=min(WINDOW_OVERLAP, size // 4))
        for window in windows:
            _check(deadline)
            prompt = builder.text_prompt(
                surface, tokens.ids[window.first : window.last], definitions, context=context_ids
            )
            for (policy, _), raw in zip(asked, engine.p_yes(prompt), strict=True):
                found[policy.id].append(
                    WindowScore(
                        part=index, surface=surface, start=window.start, end=window.end, raw=raw
                    )
                )
        return found, len(tokens), len(windows)

    def _judge_image(
        self,
        index: int,
        part: ImagePart,
        surface: Surface,
        policies: Sequence[Policy],
        deadline: float | None,
    ) -> _PartResult:
        image = decode_image(part.data, self.limits.image)
        found: dict[str, list[WindowScore]] = {}
        gaps, num_tokens, num_windows = [], 0, 0
        if self.image is not None and self.image.to_pixels is not None:
            asked = [
                (policy, definition)
                for policy in policies
                if (definition := policy.definition_for(Surface.IMAGE)) is not None
            ]
            if asked:
                _check(deadline)
                prompt = self.image.builder.image_prompt([text for _, text in asked])
                pixels = self.image.to_pixels(image)
                scores = self.image.engine.p_yes(prompt, pixels=pixels)
                num_tokens, num_windows = len(prompt.prefix), 1
                for (policy, _), raw in zip(asked, scores, strict=True):
                    found[policy.id] = [
                        WindowScore(part=index, surface=Surface.IMAGE, start=0, end=0, raw=raw)
                    ]
        else:
            gaps.append("no image model is loaded, so what the image shows was not judged")
        if self.reader is None:
            gaps.append("text in the image was not read (extra 'images')")
        else:
            _check(deadline)
            text = self.reader.read(image).text
            if text.strip():
                by_text, tokens, windows = self._score_text(
                    index, text, surface, None, policies, deadline
                )
                for policy_id, scored in by_text.items():
                    found.setdefault(policy_id, []).extend(scored)
                num_tokens, num_windows = num_tokens + tokens, num_windows + windows
            elif gaps:
                gaps.append("no text was found in it")
        status = "scored" if not gaps else "partial" if found else "not_scored"
        return _PartResult(
            found,
            PartCoverage(
                part=index,
                modality="image",
                status=status,
                tokens=num_tokens,
                windows=num_windows,
                reason="; ".join(gaps) or None,
            ),
        )


def _check(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise EngineTimeout("the deadline passed before the whole content was scored")



