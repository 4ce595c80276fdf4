"""The moderator: content and a policy set in, a verdict out. The one door to the classifier.

Knows policies, windows and coverage. Knows nothing of HTTP; blocking, safe from any thread.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from moderation.caller import PATIENT, Caller
from moderation.checkpoints import Classifier
from moderation.content import Content, ImagePart, TextPart
from moderation.engine import Engine
from moderation.errors import ContentEmpty, ContentTooLong, UnreadableImage, UnsupportedModality
from moderation.growing import GrowingContent
from moderation.images import ImageLimits, decode_image
from moderation.ocr import TextReader
from moderation.scoring import (
    PartScores,
    TokenBudget,
    check_not_empty,
    score_image,
    score_text,
)
from moderation.tokenizer import Tokens
from moderation.verdict import PartCoverage, Verdict, decide, score_policy
from policies import Policy, PolicyLibrary, PolicySet, Surface


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentLimits:
    """What one content may be at most; past it, it is refused and never cut."""

    max_tokens: int = 32_768
    """Of all its texts together, the texts read in its images included."""
    max_parts: int = 64
    image: ImageLimits = field(default_factory=ImageLimits)


@dataclass(frozen=True, slots=True)
class _Question:
    """What stays the same for all parts of one content."""

    content: Content
    policies: Sequence[Policy]
    budget: TokenBudget
    caller: Caller
    growing: GrowingContent | None


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

    def with_engines(self, wrap: Callable[[Engine], Engine]) -> "Moderator":
        """The same moderator over other engines; one engine of both classifiers stays one."""
        text = replace(self.text, engine=wrap(self.text.engine))
        image = self.image
        if image is not None:
            same = image.engine is self.text.engine
            image = replace(image, engine=text.engine if same else wrap(image.engine))
        return Moderator(
            self.library,
            text,
            image=image,
            reader=self.reader,
            limits=self.limits,
        )

    def judge(
        self,
        content: Content,
        policy_set: PolicySet,
        *,
        caller: Caller = PATIENT,
        growing: GrowingContent | None = None,
    ) -> Verdict:
        """The verdict on a content.

        Args:
            content: what to judge; each part is scored, the highest score of a policy counts.
            policy_set: the policies, thresholds and actions.
            caller: who waits for it; once nobody does, no further window is begun.
            growing: of a content of one text, judged before and again as it grows.

        Raises:
            ContentError: the content cannot be judged (empty, too long, unreadable).
            EngineError: no score could be computed, or not while the caller waits.
            UnsupportedModality: nothing of the content can be judged by the loaded models.
        """
        assert growing is None or len(content.parts) == 1, "a growing content is one text"
        started = time.monotonic()
        if not content.parts:
            raise ContentEmpty("the content has no parts; expected a text or an image")
        if len(content.parts) > self.limits.max_parts:
            raise ContentTooLong(
                f"the content has {len(content.parts)} parts; at most"
                f" {self.limits.max_parts} are accepted"
            )
        policies = [self.library.policy(rule.id) for rule in policy_set.policies]
        budget = TokenBudget(self.text, self.limits.max_tokens)
        question = _Question(content, policies, budget, caller, growing)
        # all texts are read first: content that is refused costs no forward
        tokens = [
            self._read_text(index, part.text, budget) if isinstance(part, TextPart) else None
            for index, part in enumerate(content.parts)
        ]
        scored: list[PartScores] = []
        coverage: list[PartCoverage] = []
        for index, (part, part_tokens) in enumerate(zip(content.parts, tokens, strict=True)):
            if isinstance(part, ImagePart):
                found, covered = self._judge_image(index, part, question)
            else:
                assert part_tokens is not None, "every text was read above"
                found, covered = self._judge_text(index, part.text, part_tokens, question)
            scored.append(found)
            coverage.append(covered)
        scores = []
        for rule, policy in zip(policy_set.policies, policies, strict=True):
            windows = [w for found in scored for w in found.windows.get(policy.id, ())]
            if windows:  # a policy without words for these surfaces does not apply
                scores.append(score_policy(policy, rule, windows))
        if not scores:
            reasons = "; ".join(covered.reason for covered in coverage if covered.reason)
            raise UnsupportedModality(f"nothing of the content could be judged: {reasons}")
        surfaces = {window.surface for score in scores for window in score.windows}
        used = [self.text] if surfaces - {Surface.IMAGE} else []
        if self.image is not None and Surface.IMAGE in surfaces:
            used.append(self.image)
        return Verdict(
            action=decide(policy_set, scores, coverage),
            scores=tuple(scores),
            coverage=tuple(coverage),
            models=tuple(dict.fromkeys(classifier.info for classifier in used)),
            policy_set=policy_set.id,
            policy_set_version=policy_set.version,
            policy_set_hash=policy_set.hash,
            scoring_ms=(time.monotonic() - started) * 1000,
        )

    def _read_text(self, index: int, text: str, budget: TokenBudget) -> Tokens:
        check_not_empty(index, text)
        return budget.tokenize(index, text)

    def _judge_text(
        self, index: int, text: str, tokens: Tokens, question: _Question
    ) -> tuple[PartScores, PartCoverage]:
        content = question.content
        found = score_text(
            self.text,
            question.policies,
            content.surface,
            text,
            tokens,
            part=index,
            context=content.context,
            caller=question.caller,
            growing=question.growing,
        )
        gaps = []
        if not found.windows:
            gaps.append(f"no policy of the set has words for a {content.surface.value}")
        return found, _coverage(index, "text", found, gaps)

    def _judge_image(
        self, index: int, part: ImagePart, question: _Question
    ) -> tuple[PartScores, PartCoverage]:
        try:
            image = decode_image(part.data, self.limits.image)
        except UnreadableImage as exc:
            raise UnreadableImage(f"cannot be read: {exc.problem}", part=index) from exc
        found = PartScores()
        gaps = []
        if self.image is None or self.image.to_pixels is None:
            gaps.append("no image model is loaded, so what the image shows was not judged")
        else:
            found.add(
                score_image(
                    self.image, question.policies, image, part=index, caller=question.caller
                )
            )
            if not found.windows:
                gaps.append("no policy of the set has words for an image")
        if self.reader is None:
            gaps.append("text in the image was not read (extra 'images')")
        elif not self.text.builder.judges(question.content.surface):
            gaps.append("text in the image was not read: the classifier judges no texts")
        else:
            question.caller.check()
            read = self.reader.read(image)
            if read.num_unsure:
                found.notes.append(
                    f"{read.num_unsure} lines of text in it could not be read with confidence"
                )
            if read.text.strip():
                tokens = question.budget.tokenize(index, read.text)
                by_text, _ = self._judge_text(index, read.text, tokens, question)
                if not by_text.windows:
                    gaps.append("no policy of the set has words for the text in the image")
                found.add(by_text)
            elif gaps:
                gaps.append("no text was found in it")
        return found, _coverage(index, "image", found, gaps)


def _coverage(
    part: int, modality: Literal["text", "image"], found: PartScores, gaps: Sequence[str]
) -> PartCoverage:
    return PartCoverage(
        part=part,
        modality=modality,
        status="scored" if not gaps else "partial" if found.windows else "not_scored",
        tokens=found.num_tokens if found.windows else 0,
        windows=found.num_windows,
        reason="; ".join([*gaps, *found.notes]) or None,
    )
