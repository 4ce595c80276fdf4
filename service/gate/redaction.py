"""What is replaced where a verdict says `redact`: which characters, and where they stand.

What was made of it is judged again by whoever asked for it: only what was judged goes through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from moderation.content import ImagePart, TextPart
from moderation.verdict import Verdict
from policies import Action
from service.gate.checks import Check, part_of_answer, read_field
from service.gate.dialects.dialect import Field, Item, Json, Path, Place, Rewriting
from service.gate.strings import Leaf, changed


@dataclass(frozen=True, slots=True)
class Span:
    """Characters that violate."""

    start: int
    end: int
    """[start, end) in characters."""
    policies: frozenset[str]


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is replaced at one place of a request."""

    item: Item
    path: Path
    """Of the text in the body, or of the part that holds a file."""
    span: Span
    """In the text as it was sent; 0 and 0 for a file, which is replaced as a whole."""

    @property
    def where(self) -> str:
        """The place in words."""
        return Leaf(self.path, "").where


def redactions_of(item: Item, check: Check) -> list[Redaction]:
    """What has to be replaced in a content of a request, so that it may pass; nothing where it
    passed, or where some of what violates cannot be replaced."""
    if not check.redacts or check.verdict is None:
        return []
    found: list[Redaction] = []
    for part, spans in _violations(check.verdict).items():
        places = [place for place in item.places if place.part == part]
        if isinstance(item.content.parts[part], ImagePart):
            policies = frozenset[str]().union(*(span.policies for span in spans))
            hit = [(place, Span(0, 0, policies)) for place in places]
        else:
            hit = [(place, cut) for place in places for cut in _cuts(place, spans)]
        for place, span in hit:
            if place.path is None:
                return []
            found.append(Redaction(item, place.path, span))
        if not hit:
            return []
    return found


def redacted(body: Any, redactions: Sequence[Redaction], text: str) -> Any:
    """A request with a text in place of what is to be replaced."""
    for each in sorted(redactions, key=lambda redaction: -redaction.span.start):
        body = changed(body, each.path, partial(_replaced, span=each.span, text=text))
    return body


@dataclass(frozen=True, slots=True)
class RedactedText:
    """That something was replaced in a text of an answer."""

    field: Field
    policies: frozenset[str]


@dataclass(frozen=True, slots=True)
class Redactor:
    """How answers are redacted: in the texts that can be replaced, and nowhere else."""

    rewriting: Rewriting
    text: str
    """What stands in place of what is removed."""

    def applies_to(self, name: Field, check: Check) -> bool:
        """Whether a text that did not pass may, once what violates is replaced."""
        return check.redacts and self.rewriting.is_said(name)

    def repeats(self, name: Field, said: Field) -> bool:
        """See `Rewriting.repeats`."""
        return self.rewriting.repeats(name, said)

    def put(self, answer: Json, name: Field, text: str) -> Json | None:
        """See `Rewriting.with_said`."""
        return self.rewriting.with_said(answer, name, text)

    def rewritten(
        self, texts: Mapping[Field, str], checks: Mapping[Field, Check]
    ) -> dict[Field, str]:
        """Of a whole answer, what its choices say without what violates; only of those choices in
        which nothing else does.

        Args:
            texts: of the answer.
            checks: of each.
        """
        failed = [name for name, check in checks.items() if not check.passed]
        said = [name for name in failed if self.applies_to(name, checks[name])]
        others = {
            name.choice
            for name in failed
            if name not in said and not any(self.repeats(name, each) for each in said)
        }
        return {
            name: self._without_violations(name, texts[name], verdict)
            for name in said
            if (verdict := checks[name].verdict) is not None
            and others.isdisjoint({name.choice, None})
        }

    def _without_violations(self, name: Field, text: str, verdict: Verdict) -> str:
        spans = _violations(verdict).get(0, [])
        is_as_read = part_of_answer(read_field(name, text)) == TextPart(text)
        if not spans or not is_as_read:  # the offsets are not of this text
            return self.text
        for span in reversed(spans):
            text = _replaced(text, span, self.text)
        return text


def policies_of(verdict: Verdict | None) -> frozenset[str]:
    """The policies for which something is replaced."""
    scores = verdict.scores if verdict is not None else ()
    return frozenset(
        score.policy_id
        for score in scores
        if score.mode == "enforce" and score.action is Action.REDACT
    )


def _violations(verdict: Verdict) -> dict[int, list[Span]]:
    """The characters of each part that violate policies whose action is `redact`, in order and
    apart."""
    redacting = policies_of(verdict)
    found: dict[int, list[Span]] = {}
    for score in verdict.scores:
        for window in score.violating if score.policy_id in redacting else ():
            span = Span(window.start, window.end, frozenset({score.policy_id}))
            found.setdefault(window.part, []).append(span)
    return {part: _apart(spans) for part, spans in found.items()}


def _apart(spans: list[Span]) -> list[Span]:
    """In order, those that touch made one."""
    made: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if made and span.start <= made[-1].end:
            last = made.pop()
            span = Span(last.start, max(last.end, span.end), last.policies | span.policies)
        made.append(span)
    return made


def _cuts(place: Place, spans: Sequence[Span]) -> list[Span]:
    """What of the spans lies in a place, in characters of what stands there."""
    cuts = (
        Span(
            max(span.start, place.start) - place.start,
            min(span.end, place.end) - place.start,
            span.policies,
        )
        for span in spans
    )
    return [cut for cut in cuts if cut.start < cut.end]


def _replaced(old: Any, span: Span, text: str) -> Any:
    if isinstance(old, str):
        return old[: span.start] + text + old[span.end :]
    kind = "input_text" if str(old.get("type")).startswith("input_") else "text"
    return {"type": kind, "text": text}
