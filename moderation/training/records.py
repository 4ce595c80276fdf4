"""Training records: what one is, and which collected ones are used.

The record format is the one of `wardgate eval run`: `id, source, licence, text, prompt?, role,
lang, labels`. A policy that is missing from `labels` is unknown and never asked.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policies import Surface

PERMISSIVE_LICENCES = ("MIT", "Apache-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0")
"""Licences, compared whole, under which shipped weights may be trained: NC, GPL and
"research use only" records stay out."""

POLICY_WEIGHTS = {
    "dangerous_content": 1.0,
    "harassment": 1.3,
    "hate_speech": 1.6,
    "sexually_explicit": 0.8,
    "violence": 1.0,
    "self_harm": 0.8,
    "prompt_injection": 1.4,
    "any_harm": 2.4,
}
"""How often each policy is drawn; the ones that a probe learned last are drawn more."""


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled text."""

    source: str
    surface: Surface
    text: str
    prompt: str | None
    """For a response: what it answers."""
    labels: dict[str, bool]
    lang: str = "en"
    tags: frozenset[str] | None = None
    """What a written text is about (`topic:jazz`, `attacks:women`); None for a collected one."""


def read_records(
    path: Path, *, licences: Sequence[str] | None = PERMISSIVE_LICENCES
) -> list[Record]:
    """Records of a JSONL file (gzip or plain) of these licences; None takes all."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        rows = (json.loads(line) for line in lines)
        return [
            Record(
                source=row["source"],
                surface=Surface.RESPONSE if row["role"] == "model" else Surface.PROMPT,
                text=row["text"],
                prompt=row.get("prompt"),
                labels=row["labels"],
                lang=row["lang"],
            )
            for row in rows
            if licences is None or row["licence"] in licences
        ]
