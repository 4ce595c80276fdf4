"""What is asked about one content, and what is found out about each of its parts.

Readings of all parts are scored many at a time; what is remembered is not asked. Knows nothing of
thresholds, actions or file formats.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from moderation.caller import Caller
from moderation.content import Content
from moderation.known_file import KnownFile
from moderation.readings import Reading
from moderation.score_cache import ScoreCache
from moderation.scoring import PartScores, TokenBudget, recall_readings, score_readings
from moderation.verdict import EvidenceCoverage, FrameCoverage, PartCoverage
from policies import Policy, Surface

PICTURES_AT_ONCE = 16
"""Pictures that are put to the engine together; each takes ten megabytes of pixels until then."""


@dataclass(slots=True)
class Part:
    """What is found out about one part."""

    index: int
    modality: Literal["text", "image", "video"]
    found: PartScores = field(default_factory=PartScores)
    gaps: list[str] = field(default_factory=list)
    """What of it was not judged, in words."""
    frames: FrameCoverage | None = None
    notes: list[str] = field(default_factory=list)
    """What a reader of the verdict should know, besides the notes of its readings."""
    outlines: list[Reading] = field(default_factory=list)
    """Of its readings."""
    evidence: EvidenceCoverage | None = None
    """What it was judged by where no model saw it."""
    file: bytes | None = None
    """Key of a file that is remembered if all of it is judged."""

    def coverage(self) -> PartCoverage:
        """What was judged of it, once all of its readings are scored."""
        found = self.found
        return PartCoverage(
            part=self.index,
            modality=self.modality,
            status="scored" if not self.gaps else "partial" if found.windows else "not_scored",
            tokens=found.num_tokens if found.windows else 0,
            windows=found.num_windows,
            reason="; ".join([*self.gaps, *self.notes, *found.notes]) or None,
            frames=self.frames,
            evidence=self.evidence,
        )


class Inquiry:
    """The readings of one content, scored many at a time; and what is the same for all of them."""

    def __init__(
        self,
        content: Content,
        policies: Sequence[Policy],
        budget: TokenBudget,
        caller: Caller,
        cache: ScoreCache | None,
    ) -> None:
        self.content = content
        self.policies = policies
        self.budget = budget
        self.caller = caller
        self.cache = cache
        self.waiting: list[tuple[Part, Reading]] = []
        """Readings that are not scored yet, and whose they are."""

    def add(self, part: Part, reading: Reading) -> None:
        """Takes a reading, whose scores the part gets at the next `score` at the latest."""
        part.outlines.append(reading.outline())
        self.waiting.append((part, reading))
        num_pictures = sum(reading.image is not None for _, reading in self.waiting)
        if num_pictures >= PICTURES_AT_ONCE:
            self.score()

    def score(self) -> None:
        """Scores all readings that wait."""
        score_together([self])

    def recall(self, index: int, file: bytes) -> Part | None:
        """A part from memory: a file that was judged in full under each of these policies."""
        known = self.cache.recall_file(file) if self.cache is not None else None
        if self.cache is None or known is None:
            return None
        readings = [each.under(self.policies, part=index) for each in known.outlines]
        asked = [reading for reading in readings if reading is not None]
        scored = recall_readings(asked, self.cache) if len(asked) == len(readings) else None
        if scored is None:
            return None
        part = Part(index, known.modality, frames=known.frames, notes=[*known.notes])
        for reading, scores in zip(asked, scored, strict=True):
            if reading.surface is not Surface.IMAGE and reading.form is None:
                self.budget.spend(index, reading.num_tokens)
            part.found.add(scores)
        return part

    def remember(self, part: Part) -> None:
        """Keeps a part that is a file, if all of it was judged."""
        if self.cache is None or part.file is None or part.gaps or part.modality == "text":
            return
        known = KnownFile(
            modality=part.modality,
            frames=part.frames,
            notes=tuple(part.notes),
            outlines=tuple(part.outlines),
        )
        self.cache.remember_file(part.file, known)


def score_together(inquiries: Sequence[Inquiry]) -> None:
    """Scores all readings that wait, of inquiries with the same caller and cache.

    Raises:
        EngineError, ModelError: see `score_readings`; nothing is scored then.
    """
    waiting = [each for inquiry in inquiries for each in inquiry.waiting]
    if not waiting:
        return
    first = inquiries[0]
    scored = score_readings([reading for _, reading in waiting], first.caller, first.cache)
    for (part, _), scores in zip(waiting, scored, strict=True):
        part.found.add(scores)
    for inquiry in inquiries:
        inquiry.waiting.clear()
