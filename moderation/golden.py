"""Golden vectors: scores that a model must reproduce before it may judge.

They catch what loads without an error and scores nonsense: other weights under the same name, a
broken merge, a template or tokenizer that changed.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from moderation.checkpoints import Classifier
from moderation.engine import Ask
from moderation.errors import ModelRefused
from policies import Surface

TOLERANCE = {"float32": 2e-3, "bfloat16": 6e-2}
"""How far P(Yes) of the same weights may be off, by dtype. bfloat16: no two batch shapes agree
better than about 2e-2."""


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One text, one policy text, and the score in float32."""

    surface: Surface
    text: str
    definition: str
    p_yes: float


def score_case(classifier: Classifier, surface: Surface, text: str, definition: str) -> float:
    """P(Yes) of one text under one policy text."""
    ids = classifier.builder.content_tokens(text).ids
    prompt = classifier.builder.text_prompt(surface, ids, [definition])
    [[p_yes]] = classifier.engine.p_yes([Ask(prompt)])
    return p_yes


def read_golden(path: Path) -> list[GoldenCase]:
    """The cases of a golden file.

    Raises:
        ModelRefused: the file is missing or not of this format.
    """
    try:
        return [
            GoldenCase(Surface(row["surface"]), row["text"], row["definition"], row["p_yes"])
            for row in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ModelRefused(f"the golden vectors {path} cannot be read: {exc}") from exc


def check_golden(classifier: Classifier, path: Path, *, tolerance: float) -> int:
    """Scores every golden case; returns how many there are.

    Args:
        classifier: what is checked.
        path: the golden file.
        tolerance: how far a score may be off; see `TOLERANCE` for the very weights of the file.

    Raises:
        ModelRefused: a score is off by more than the tolerance.
    """
    cases = read_golden(path)
    for number, case in enumerate(cases):
        found = score_case(classifier, case.surface, case.text, case.definition)
        if abs(found - case.p_yes) > tolerance:
            raise ModelRefused(
                f"golden case {number} of {path.name} scores {found:.4f}, expected"
                f" {case.p_yes:.4f} within {tolerance:g}: these are other weights, or another"
                " template or tokenizer than the ones that were released"
            )
    return len(cases)
