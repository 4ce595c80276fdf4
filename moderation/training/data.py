"""What a step of training asks: which records are drawn, and which policies are asked of them."""

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from moderation.training.derived import derived_records, known_better
from moderation.training.disguise import disguised
from moderation.training.narrow import NarrowPolicy, narrow_policies
from moderation.training.records import POLICY_WEIGHTS, Record, read_records
from moderation.training.written import read_yaml, written_records
from policies import PolicyLibrary, Surface

MAX_OTHERS = 3
"""Policies with a known label that are asked beside the one for which a record was drawn."""
CONTRAST_WEIGHT = 0.6
"""Of their loss where the record violates something: what violates one policy and not another is
what teaches to read the policy."""
OTHERS_WEIGHT = 0.6
"""Of their loss where the record violates nothing. At 0.25 harmless instructions were taken for
injections, because the No of that policy was learned on harmful texts."""
NARROW_A_STEP = 4
"""Policies about something else that one step asks."""
NARROW_SHARE = 0.12
"""Of the records that are drawn because they violate one of those."""
MAX_NARROW = 1
"""Of them, asked beside the others."""
DISGUISED_SHARE = 0.15
SOURCE_WEIGHTS = {
    "arc": 0.5,
    "beep_korean": 0.5,
    "chat": 1.5,
    "chat_look_alikes": 2.0,
    "ordinary_look_alikes": 1.5,
    "bipia_train": 0.7,
    "cold": 0.6,
    "custom": 2.0,
    "gsm8k": 0.5,
    "hate_tests_attacks": 1.5,
    "hate_tests_fine": 1.5,
    "injection_inside": 0.7,
    "mlc_v05": 0.4,
    "pyrit_scorer_evals": 2.0,
}
"""How often a source is drawn beside the root of its size: less where it is long or all of one
kind, more where nothing else teaches the same."""
NARROW_VIOLATED = 0.6
"""Of the records that are drawn for a narrow policy; the others are about one like it."""
NARROW_NEAR = 0.5
"""Of those others: the ones that come close to it, where it knows such."""
DRAWS = 8
"""Until a record is found of which a narrow policy knows the answer."""


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


def stage_sampler(data: Path, library: PolicyLibrary, *, seed: int) -> "Sampler":
    """What training draws from: licensed records, written ones, and what is made of them."""
    records = [*map(known_better, read_records(data)), *written_records()]
    return Sampler(
        [*records, *derived_records(records)], library, seed=seed, source_weights=SOURCE_WEIGHTS
    )


class Sampler:
    """Draws examples, evenly over policies and labels and by the root of a source's size.

    `draw(step, place)` depends on the seed and on its arguments alone, so a resumed run and every
    process of a parallel run see the examples that one uninterrupted process would have seen. All
    examples of a step ask a policy in the same words: the policy is then computed once.
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
        self._wordings = read_yaml("wordings.yaml")
        self._narrow: dict[str, list[NarrowPolicy]] = defaultdict(list)
        for policy in narrow_policies():
            self._narrow[policy.group].append(policy)
        self._of_the_whole = {p.id for p in narrow_policies() if p.inverted or p.alone}
        pools: dict[tuple[str, bool], dict[str, list[Record]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._tagged: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            for tag in record.tags or ():
                self._tagged[tag].append(record)
            for policy_id, violates in record.labels.items():
                if policy_id in POLICY_WEIGHTS and self._definitions(policy_id, record.surface):
                    pools[policy_id, violates][record.source].append(record)
        self._pools = {key: dict(value) for key, value in pools.items()}
        missing = [f"{p}={v}" for p in POLICY_WEIGHTS for v in (True, False) if (p, v) not in pools]
        if missing:
            raise ValueError(f"no training record for {', '.join(missing)}")

    def draw(self, step: int, place: int) -> Example:
        """The example at a place of one step of the endless sequence."""
        rng = random.Random(f"{self._seed}/{step}/{place}")
        groups = random.Random(f"{self._seed}/{step}").sample(list(self._narrow), NARROW_A_STEP)
        narrow = [random.Random(f"{self._seed}/{step}/{g}").choice(self._narrow[g]) for g in groups]
        if rng.random() < NARROW_SHARE:
            policy = rng.choice(narrow)
            record = self._draw_tagged(rng, policy)
            questions = [Question(policy.id, policy.definition, policy.violated_by(record) is True)]
        else:
            record, policy_id = self._draw_labelled(rng)
            questions = [self._question(step, policy_id, record)]
        asked = {question.policy_id for question in questions}
        others = [
            policy_id
            for policy_id, violates in record.labels.items()
            if policy_id in POLICY_WEIGHTS
            and policy_id not in asked
            # any harm follows from every other violation: asking it each time would teach Yes
            and not (policy_id == "any_harm" and violates)
            and self._definitions(policy_id, record.surface)
        ]
        violates = questions[0].violates or any(record.labels.values())
        weight = CONTRAST_WEIGHT if violates else OTHERS_WEIGHT
        for policy_id in rng.sample(others, k=min(len(others), MAX_OTHERS)):
            questions.append(self._question(step, policy_id, record, weight=weight))
        known = [
            Question(policy.id, policy.definition, answer, weight=weight)
            for policy in rng.sample(narrow, k=len(narrow))
            if policy.id not in asked and (answer := policy.violated_by(record)) is not None
        ]
        questions += known[:MAX_NARROW]
        # what stands around a text may be what such a policy forbids, and its letters too
        of_the_whole = any(q.policy_id in self._of_the_whole for q in questions)
        if rng.random() < DISGUISED_SHARE and not of_the_whole:
            record = replace(record, text=disguised(rng, record.text))
        return Example(record, tuple(questions))

    def _draw_tagged(self, rng: random.Random, policy: NarrowPolicy) -> Record:
        """A record that a narrow policy is about, one that comes close, or one of its group."""
        tags = policy.tags
        if rng.random() > NARROW_VIOLATED:
            if policy.near and (policy.alone or rng.random() < NARROW_NEAR):
                tags = policy.near
            else:
                tags = tuple(tag for tag in self._tagged if tag.startswith(f"{policy.group}:"))
        for _ in range(DRAWS):
            record = rng.choice(self._tagged[rng.choice(tags)])
            if policy.violated_by(record) is not None:
                return record
        return rng.choice(self._tagged[rng.choice(policy.tags)])

    def _draw_labelled(self, rng: random.Random) -> tuple[Record, str]:
        """A record and the policy for whose label it was drawn."""
        policy_id = rng.choices(list(POLICY_WEIGHTS), list(POLICY_WEIGHTS.values()))[0]
        sources = self._pools[policy_id, rng.random() < 0.5]
        weights = [
            self._source_weights.get(source, 1.0) * math.sqrt(len(records))
            for source, records in sources.items()
        ]
        return rng.choice(sources[rng.choices(list(sources), weights)[0]]), policy_id

    def _question(
        self, step: int, policy_id: str, record: Record, *, weight: float = 1.0
    ) -> Question:
        rng = random.Random(f"{self._seed}/{step}/{policy_id}/{record.surface}")
        catalogue, *others = self._definitions(policy_id, record.surface)
        words = catalogue if rng.random() < 0.6 else rng.choice(others)
        return Question(policy_id, words, record.labels[policy_id], weight)

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
