"""Training records: which are used, how they are drawn, and what a drawn example looks like.

The record format is the one of `wardgate eval run`: `id, source, licence, text, prompt?, role,
lang, labels`. A policy that is missing from `labels` is unknown and never asked.
"""

import gzip
import itertools
import json
import math
import random
import string
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import yaml

from policies import PolicyLibrary, Surface

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
    "any_harm": 1.6,
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


@dataclass(frozen=True, slots=True)
class Question:
    """One policy asked of a record, in the words drawn for it."""

    policy_id: str
    definition: str
    violates: bool
    weight: float = 1.0
    """Of its loss."""


@dataclass(frozen=True, slots=True)
class Example:
    """A record and the questions asked of it in one training row."""

    record: Record
    questions: tuple[Question, ...]


def read_records(path: Path, *, licences: Sequence[str] = PERMISSIVE_LICENCES) -> list[Record]:
    """Records of a JSONL file (gzip or plain) whose licence is one of `licences`."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        rows = (json.loads(line) for line in lines)
        return [
            Record(
                source=row["source"],
                surface=Surface.RESPONSE if row["role"] == "model" else Surface.PROMPT,
                text=row["text"],
                prompt=row.get("prompt"),
                labels=row["labels"],
            )
            for row in rows
            if row["licence"] in licences
        ]


def ordinary_records() -> list[Record]:
    """The written benign requests, look-alikes and responses of `ordinary.yaml`."""
    spec = _read_yaml("ordinary.yaml")
    benign = dict.fromkeys(POLICY_WEIGHTS, False)
    records = []
    for source in ("requests", "look_alikes"):
        for template in spec[source]:
            for text in _fill(template, spec["slots"]):
                records.append(Record(f"ordinary_{source}", Surface.PROMPT, text, None, benign))
    for prompt, answer in spec["responses"]:
        records.append(Record("ordinary_responses", Surface.RESPONSE, answer, prompt, benign))
    return records


def contrast_records() -> list[Record]:
    """The written violations of `contrast.yaml`, labelled for every policy that is not open."""
    spec = _read_yaml("contrast.yaml")
    records = []
    for group in spec["groups"]:
        labels = {
            policy_id: policy_id in (*group["violated"], "any_harm")
            for policy_id in POLICY_WEIGHTS
            if policy_id not in group["open"]
        }
        if group["violated"] == ["prompt_injection"]:
            del labels["any_harm"]  # some override instructions without doing harm
        for template in group["texts"]:
            for text in _fill(template, spec["slots"]):
                records.append(Record("contrast", Surface.PROMPT, text, None, labels))
    return records


def stage_sampler(
    data: Path, library: PolicyLibrary, *, seed: int, contrast_weight: float
) -> "Sampler":
    """What one stage of training draws from: the licensed records and the written ones.

    A `contrast_weight` of 0 leaves the contrast records out.
    """
    records = [*read_records(data), *ordinary_records()]
    if contrast_weight:
        records += contrast_records()
    return Sampler(records, library, seed=seed, source_weights={"contrast": contrast_weight})


class Sampler:
    """Draws examples, evenly over policies and labels and by the root of a source's size.

    `draw(i)` depends on the seed and on `i` alone, so a resumed run and every process of a
    parallel run see the examples that one uninterrupted process would have seen.
    """

    def __init__(
        self,
        records: Iterable[Record],
        library: PolicyLibrary,
        *,
        seed: int,
        source_weights: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """`source_weights` multiplies how often a source is drawn; 1 where it says nothing."""
        self._seed = seed
        self._source_weights = source_weights
        self._library = library
        self._wordings = _read_yaml("wordings.yaml")
        pools: dict[tuple[str, bool], dict[str, list[Record]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for record in records:
            for policy_id, violates in record.labels.items():
                if policy_id in POLICY_WEIGHTS and self._definitions(policy_id, record.surface):
                    pools[policy_id, violates][record.source].append(record)
        self._pools = {key: dict(value) for key, value in pools.items()}
        missing = [f"{p}={v}" for p in POLICY_WEIGHTS for v in (True, False) if (p, v) not in pools]
        if missing:
            raise ValueError(f"no training record for {', '.join(missing)}")

    def draw(self, index: int) -> Example:
        """The example at a place of the endless sequence."""
        rng = random.Random(f"{self._seed}/{index}")
        first = rng.choices(list(POLICY_WEIGHTS), list(POLICY_WEIGHTS.values()))[0]
        sources = self._pools[first, rng.random() < 0.5]
        weights = [
            self._source_weights.get(source, 1.0) * math.sqrt(len(records))
            for source, records in sources.items()
        ]
        record = rng.choice(sources[rng.choices(list(sources), weights)[0]])
        others = [
            policy_id
            for policy_id, violates in record.labels.items()
            if policy_id != first
            # any harm follows from every other violation: asking it each time would teach Yes
            and not (policy_id == "any_harm" and violates)
            and policy_id in POLICY_WEIGHTS
            and self._definitions(policy_id, record.surface)
        ]
        asked = [first, *rng.sample(others, k=min(len(others), 2))]
        return Example(
            record,
            tuple(
                Question(
                    policy_id,
                    self._word(rng, policy_id, record.surface),
                    record.labels[policy_id],
                )
                for policy_id in asked
            ),
        )

    def _word(self, rng: random.Random, policy_id: str, surface: Surface) -> str:
        catalogue, *others = self._definitions(policy_id, surface)
        return catalogue if rng.random() < 0.6 else rng.choice(others)

    def _definitions(self, policy_id: str, surface: Surface) -> list[str]:
        """The catalogue's text first, then other wordings; empty where it does not apply."""
        catalogue = self._library.policy(policy_id).definition_for(surface)
        if catalogue is None:
            return []
        subject = (
            "The chatbot shall not generate"
            if surface is Surface.RESPONSE
            else "The prompt shall not contain or seek"
        )
        return [catalogue, *(text.format(subject=subject) for text in self._wordings[policy_id])]


def _fill(template: str, slots: dict[str, list[str]]) -> Iterator[str]:
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name]
    for values in itertools.product(*(slots[name] for name in names)):
        text = template.format(**dict(zip(names, values, strict=True)))
        yield text[0].upper() + text[1:]


def _read_yaml(name: str):  # type: ignore[no-untyped-def]  # plain YAML of this package
    return yaml.safe_load((files("moderation.training") / name).read_text(encoding="utf-8"))
