"""The moderator: content and a policy set in, a verdict out. The one door to the classifier.

Knows policies, windows and coverage. Knows nothing of HTTP; blocking, safe from any thread.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from moderation.caller import PATIENT, Caller
from moderation.checkpoints import Classifier
from moderation.content import Content, ImagePart, TextPart
from moderation.engine import Engine
from moderation.errors import (
    ContentEmpty,
    ContentError,
    ContentTooLong,
    EngineError,
    EngineOverloaded,
    EngineStopped,
    ModerationError,
    UnreadableImage,
    UnsupportedModality,
)
from moderation.growing import GrowingContent
from moderation.inquiry import Inquiry, Part, score_together
from moderation.media.evidence import evidence_text, findings
from moderation.media.frames import FrameLimits
from moderation.media.images import ImageLimits
from moderation.media.ocr import TextReader
from moderation.media.pictures import Pictures, read_pictures
from moderation.media.recognisers import Recognisers
from moderation.normal_form import normal_form
from moderation.readings import Reading, file_key, read_normal_form, read_picture, read_text
from moderation.score_cache import ScoreCache
from moderation.scoring import TokenBudget, check_not_empty
from moderation.shown import evidence_coverage
from moderation.tokenizer import Tokens
from moderation.verdict import Curve, Verdict, decide, score_policy
from policies import Policy, PolicyLibrary, PolicySet, Surface

_OF_A_CONTENT = (ContentError, EngineError, UnsupportedModality)
"""Reasons why there is no verdict on one content that say nothing of another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentLimits:
    """What one content may be at most; past it, it is refused and never cut."""

    max_tokens: int = 32_768
    """Of all its texts together, the texts read in its images included."""
    max_parts: int = 64
    image: ImageLimits = field(default_factory=ImageLimits)
    """Of a still image, of an animated one, and of each frame of a video."""
    frames: FrameLimits = field(default_factory=FrameLimits)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A content that was read, on its way to a verdict."""

    policy_set: PolicySet
    policies: list[Policy]
    """Of its rules, in order."""
    inquiry: Inquiry
    parts: list[Part]
    started: float
    """`time.monotonic()`."""


class Moderator:
    """Judges contents with a classifier for text and, optionally, one for images."""

    def __init__(
        self,
        library: PolicyLibrary,
        text: Classifier,
        *,
        image: Classifier | None = None,
        reader: TextReader | None = None,
        recognisers: Recognisers | None = None,
        limits: ContentLimits | None = None,
        cache: ScoreCache | None = None,
        normalise: bool = True,
    ) -> None:
        """
        Args:
            library: the loaded policies.
            text: judges texts, and the text read in images.
            image: judges what images show; None leaves that to the recognisers.
            reader: reads text in images; None leaves that uncovered.
            recognisers: where no model sees images, what they find is judged by `text`; None
                leaves what images show uncovered.
            limits: what is refused, and which frames of a video are judged.
            cache: remembers scores; None computes all of them.
            normalise: whether a disguised text is judged in its normal form as well, as it should
                be; False is for measuring what that changes.
        """
        self.library = library
        self.text = text
        self.image = image
        self.reader = reader
        self.recognisers = recognisers
        self.limits = limits or ContentLimits()
        self.cache = cache
        self.normalise = normalise

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
            recognisers=self.recognisers,
            limits=self.limits,
            cache=self.cache,
            normalise=self.normalise,
        )

    def with_library(self, library: PolicyLibrary) -> "Moderator":
        """The same moderator over other policies: one classifier, one memory of scores."""
        other = copy.copy(self)
        other.library = library
        return other

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
            content: what to judge; each part is scored, a text also in its normal form where that
                is another; the highest score of a policy counts.
            policy_set: the policies, thresholds and actions.
            caller: who waits for it; once nobody does, no further window is begun.
            growing: of a content of one text, judged before and again as it grows.

        Raises:
            ContentError: the content cannot be judged (empty, too long, unreadable).
            EngineError: no score could be computed, or not while the caller waits.
            UnsupportedModality: nothing of the content can be judged by the loaded models.
        """
        judgement = self._open(content, policy_set, caller, growing)
        judgement.inquiry.score()
        return self._close(judgement)

    def judge_all(
        self, asked: Sequence[tuple[Content, PolicySet]]
    ) -> list[Verdict | ModerationError]:
        """The verdicts on many contents, put to the engines together: faster than one by one.

        Their scores are those of `judge` up to what a batch's other members change in the last
        digits; see the engine. `scoring_ms` is the time of all of them.

        Args:
            asked: contents, each with its policies.

        Returns:
            Each verdict, or why there is none.

        Raises:
            EngineStopped, EngineOverloaded, ModelError: see `judge`; no content is at fault.
        """
        found: list[Judgement | ModerationError] = []
        for content, policy_set in asked:
            try:
                found.append(self._open(content, policy_set, PATIENT, None))
            except _OF_A_CONTENT as exc:
                found.append(exc)
        try:
            score_together([each.inquiry for each in found if isinstance(each, Judgement)])
        except (EngineStopped, EngineOverloaded):
            raise
        except EngineError:  # one of them may be at fault, which is not the others' failure
            return [self._judged(*each) for each in asked]
        return [self._closed(each) if isinstance(each, Judgement) else each for each in found]

    def _judged(self, content: Content, policy_set: PolicySet) -> Verdict | ModerationError:
        try:
            return self.judge(content, policy_set)
        except (EngineStopped, EngineOverloaded):
            raise
        except _OF_A_CONTENT as exc:
            return exc

    def _closed(self, judgement: Judgement) -> Verdict | ModerationError:
        try:
            return self._close(judgement)
        except UnsupportedModality as exc:
            return exc

    def _open(
        self,
        content: Content,
        policy_set: PolicySet,
        caller: Caller,
        growing: GrowingContent | None,
    ) -> Judgement:
        """Reads a content; what is read of it waits to be scored."""
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
        inquiry = Inquiry(content, policies, budget, caller, self.cache)
        # all texts are read first: content that is refused costs no forward
        tokens = [
            self._tokenize(index, part.text, budget) if isinstance(part, TextPart) else None
            for index, part in enumerate(content.parts)
        ]
        parts: list[Part] = []
        for index, (given, ids) in enumerate(zip(content.parts, tokens, strict=True)):
            if isinstance(given, ImagePart):
                parts.append(self._look_at(index, given, inquiry))
            else:
                assert ids is not None, "every text was tokenized above"
                parts.append(self._read(index, given, ids, inquiry, growing))
        return Judgement(policy_set, policies, inquiry, parts, started)

    def _close(self, judgement: Judgement) -> Verdict:
        """What the scores of a content come to."""
        policy_set, parts = judgement.policy_set, judgement.parts
        for part in parts:
            judgement.inquiry.remember(part)
        coverage = [part.coverage() for part in parts]
        scores = []
        for rule, policy in zip(policy_set.policies, judgement.policies, strict=True):
            windows = [w for part in parts for w in part.found.windows.get(policy.id, ())]
            if windows:  # a policy without words for these surfaces does not apply
                cached = not any(policy.id in part.found.new for part in parts)
                scores.append(
                    score_policy(policy, rule, windows, cached=cached, curve_for=self._curve)
                )
        if not scores:
            reasons = "; ".join(covered.reason for covered in coverage if covered.reason)
            raise UnsupportedModality(f"nothing of the content could be judged: {reasons}")
        surfaces = {window.surface for score in scores for window in score.windows}
        used = [self.text] if surfaces - {Surface.IMAGE} else []
        if Surface.IMAGE in surfaces:
            used.append(self._judge_of(Surface.IMAGE))
        return Verdict(
            action=decide(policy_set, scores, coverage),
            scores=tuple(scores),
            coverage=tuple(coverage),
            models=tuple(dict.fromkeys(classifier.info for classifier in used)),
            policy_set=policy_set.id,
            policy_set_version=policy_set.version,
            policy_set_hash=policy_set.hash,
            scoring_ms=(time.monotonic() - judgement.started) * 1000,
        )

    def _curve(self, policy: Policy, surface: Surface) -> Curve | None:
        """The calibration of what judged the surface."""
        calibration = self._judge_of(surface).calibration
        return calibration.curve(policy, surface) if calibration is not None else None

    def _judge_of(self, surface: Surface) -> Classifier:
        """The classifier that judges the surface; where no model sees images, that of texts judges
        what is found in them."""
        return self._eyes or self.text if surface is Surface.IMAGE else self.text

    @property
    def judges_images(self) -> bool:
        """Whether what an image shows is judged: by a model that sees it, or as what is found."""
        finds = self.recognisers is not None and self.text.builder.judges_findings
        return self._eyes is not None or finds

    def calibration_gaps(self, policy_set: PolicySet) -> list[str]:
        """In words, every policy and surface of text whose scores stay raw, and why; none where
        nothing is calibrated."""
        calibration = self.text.calibration
        if calibration is None:
            return []
        return calibration.gaps(self.library.policy(rule.id) for rule in policy_set.policies)

    @property
    def _eyes(self) -> Classifier | None:
        """The model that sees images."""
        sees = self.image is not None and self.image.to_pixels is not None
        return self.image if sees else None

    def _tokenize(self, index: int, text: str, budget: TokenBudget) -> Tokens:
        check_not_empty(index, text)
        return budget.tokenize(index, text)

    def _read(
        self,
        index: int,
        text: TextPart,
        tokens: Tokens,
        inquiry: Inquiry,
        growing: GrowingContent | None,
    ) -> Part:
        content = inquiry.content
        part = Part(index, "text")
        reading = read_text(
            self.text,
            inquiry.policies,
            content.surface,
            text.text,
            tokens,
            part=index,
            context=content.context,
            growing=growing,
        )
        if reading is None:
            part.gaps.append(f"no policy of the set has words for a {content.surface.value}")
        else:
            self._add_text(part, reading, text.text, inquiry)
        return part

    def _add_text(self, part: Part, reading: Reading, text: str, inquiry: Inquiry) -> None:
        """A text as it is given, and in its normal form where that is another."""
        inquiry.add(part, reading)
        if self.normalise and (form := normal_form(text)) is not None:
            inquiry.caller.check()
            inquiry.add(part, read_normal_form(reading, form, context=inquiry.content.context))

    def _look_at(self, index: int, image: ImagePart, inquiry: Inquiry) -> Part:
        inquiry.caller.check()
        file = self._file_key(image, inquiry)
        if file is not None and (known := inquiry.recall(index, file)) is not None:
            return known
        try:
            pictures = read_pictures(
                image.data, self.limits.image, self.limits.frames, inquiry.caller
            )
        except UnreadableImage as exc:
            raise UnreadableImage(f"cannot be read: {exc.problem}", part=index) from exc
        except ContentTooLong as exc:
            raise ContentTooLong(exc.problem, part=index) from exc
        part = Part(
            index, pictures.modality, gaps=[*pictures.gaps], frames=pictures.frames, file=file
        )
        if self._eyes is not None:
            self._see(part, pictures, self._eyes, inquiry)
        texts = self._read_in(part, pictures, inquiry)
        if self._eyes is None:
            self._weigh(part, pictures, texts, inquiry)
        return part

    def _file_key(self, image: ImagePart, inquiry: Inquiry) -> bytes | None:
        """None where nothing is remembered: without a model that sees, no file is judged in full
        whatever the policies are."""
        if self.cache is None or self._eyes is None:
            return None
        content = inquiry.content
        models = [each.info if each is not None else None for each in (self.text, self.image)]
        reader = type(self.reader).__qualname__
        judged_by = (models, reader, self.limits, self.normalise)
        return file_key(image.data, content.surface, content.context, *judged_by)

    def _see(
        self, part: Part, pictures: Pictures, classifier: Classifier, inquiry: Inquiry
    ) -> None:
        """What the pictures show."""
        for picture in pictures.pictures:
            reading = read_picture(classifier, inquiry.policies, picture, part=part.index)
            if reading is None:
                part.gaps.append("no policy of the set has words for an image")
                return
            inquiry.add(part, reading)

    def _read_in(self, part: Part, pictures: Pictures, inquiry: Inquiry) -> list[str] | None:
        """The text in each of the pictures, None where nobody reads; the same text in several of
        them is judged once."""
        what, surface = part.modality, inquiry.content.surface
        if self.reader is None:
            part.gaps.append(f"text in the {what} was not read (extra 'images')")
            return None
        if not self.text.builder.judges(surface):
            part.gaps.append(f"text in the {what} was not read: the classifier judges no texts")
            return None
        num_unsure = 0
        texts: list[str] = []
        has_words = True
        for picture in pictures.pictures:
            inquiry.caller.check()
            read = self.reader.read(picture.image)
            num_unsure += read.num_unsure
            text = read.text if read.text.strip() else ""
            is_new = text not in texts
            texts.append(text)
            if not text or not is_new:
                continue
            reading = read_text(
                self.text,
                inquiry.policies,
                surface,
                text,
                inquiry.budget.tokenize(part.index, text),
                part=part.index,
                context=inquiry.content.context,
                frame=picture.frame,
            )
            if reading is None:
                has_words = False
            else:
                self._add_text(part, reading, text, inquiry)
        if not has_words:
            part.gaps.append(f"no policy of the set has words for the text in the {what}")
        if num_unsure:
            part.notes.append(f"{num_unsure} lines of text in it could not be read with confidence")
        return texts

    def _weigh(
        self, part: Part, pictures: Pictures, texts: list[str] | None, inquiry: Inquiry
    ) -> None:
        """What is found in the pictures, judged as a text, because no model sees them."""
        what, builder = part.modality, self.text.builder
        if self.recognisers is None or not builder.judges_findings:
            part.gaps.append(f"no image model is loaded, so what the {what} shows was not judged")
            if texts is not None and not any(texts):
                part.gaps.append("no text was found in it")
            return
        found: dict[str, None] = {}  # in order
        judged: set[str] = set()
        for picture, text in zip(
            pictures.pictures, texts or [""] * len(pictures.pictures), strict=True
        ):
            inquiry.caller.check()
            evidence = self.recognisers.evidence(picture.image, text)
            found[findings(evidence)] = None
            written = evidence_text(evidence)
            if written in judged:
                continue
            judged.add(written)
            reading = read_text(
                self.text,
                inquiry.policies,
                Surface.IMAGE,
                written,
                # what was read in it was counted when it was judged as a text
                builder.content_tokens(written),
                part=part.index,
                context=None,
                frame=picture.frame,
            )
            if reading is None:
                part.gaps.append("no policy of the set has words for an image")
                return
            self._add_text(part, reading, written, inquiry)
        part.evidence = evidence_coverage(
            inquiry.policies,
            ("tags", "nudity") if texts is None else ("text", "tags", "nudity"),
            tuple(found),
        )
        if part.evidence.not_covered:
            part.gaps.append(
                f"no image model is loaded, and what stands in for one sees nothing of what the"
                f" {what} shows of {', '.join(part.evidence.not_covered)}"
            )
        if part.evidence.in_part:
            part.gaps.append(
                f"what the {what} shows of {', '.join(part.evidence.in_part)} was judged by tags"
                " alone"
            )
