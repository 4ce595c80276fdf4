"""What a step of training asks: which records are drawn, and which policies are asked of them."""

import itertools
import math
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from moderation.training.derived import derived_records, known_better
from moderation.training.disguise import disguised
from moderation.training.narrow import NarrowPolicy, narrow_policies
from moderation.training.records import POLICY_WEIGHTS, Record, read_records
from moderation.training.seen import GROUP as SEEN
from moderation.training.seen import seen_policies, seen_records, seen_texts
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
CONTENTS_A_WORDING = 96
"""Contents that ask in the same words: a policy is computed once for all of them."""
CUSTOM_A_WORDING = 4
"""Policies as services have them that these are asked."""
NARROW_A_WORDING = 4
"""Other policies about something else that these are asked."""
SEEN_A_WORDING = 2
"""Policies about what images show that these are asked."""
NARROW_SHARE = 0.23
"""Of the records that are drawn for one of those."""
MAX_NARROW = 1
"""Of them, asked beside the others."""
DISGUISED_SHARE = 0.3
SOURCE_WEIGHTS = {
    "ailuminate_demo": 1.5,
    "answers_casual_fine": 25.0,
    "answers_casual_harmful": 16.0,
    "answers_given": 0.5,
    "answers_grave_fine": 25.0,
    "answers_grave_harmful": 16.0,
    "answers_harmful_dangerous_content": 1.5,
    "answers_harmful_harassment": 1.5,
    "answers_harmful_hate_speech": 1.5,
    "answers_harmful_self_harm": 1.5,
    "answers_harmful_sexually_explicit": 1.5,
    "answers_harmful_violence": 1.5,
    "answers_languages_fine": 25.0,
    "answers_languages_harmful": 16.0,
    "answers_long_fine": 8.0,
    "answers_long_harmful": 6.0,
    "answers_refused": 0.6,
    "answers_safe": 2.0,
    "answers_social_fine": 25.0,
    "answers_social_harmful": 16.0,
    "answers_styled_fine": 25.0,
    "answers_styled_harmful": 16.0,
    "answers_wrongs_fine": 25.0,
    "answers_wrongs_harmful": 16.0,
    "arc": 0.5,
    "beep_korean": 5.0,
    "bipia_train": 1.3,
    "chat": 2.0,
    "chat_look_alikes": 3.0,
    "cold": 5.0,
    "convabuse": 5.0,
    "custom": 2.0,
    "davidson": 6.0,
    "dialogues_fine": 6.0,
    "dialogues_harmful": 6.0,
    "diasafety": 4.0,
    "document_clean": 2.5,
    "document_injections": 1.6,
    "documents_asked_clean": 8.0,
    "documents_asked_injected": 8.0,
    "documents_more_clean": 8.0,
    "documents_more_injected": 8.0,
    "edos": 5.0,
    "everyday_benign": 2.5,
    "everyday_dangerous": 1.2,
    "everyday_threats": 2.0,
    "germeval2018": 6.0,
    "gsm8k": 0.5,
    "half_spoken_fine": 8.0,
    "half_spoken_harmful": 6.0,
    "harmfulqa": 2.0,
    "hate_emoji_attacks": 6.0,
    "hate_emoji_fine": 8.0,
    "hate_forms_attacks": 3.0,
    "hate_forms_fine": 4.0,
    "hate_forms_person": 4.0,
    "hate_languages_attacks": 6.0,
    "hate_languages_fine": 8.0,
    "hate_languages_person": 6.0,
    "hate_more_attacks": 1.2,
    "hate_more_fine": 1.4,
    "hate_tests_attacks": 1.5,
    "hate_tests_fine": 2.0,
    "hatemojibuild": 16.0,
    "heated_talk_fine": 10.0,
    "heated_talk_harassing": 8.0,
    "identity_templates": 3.0,
    "injection_inside": 0.7,
    "injections_clean_documents": 1.5,
    "injections_direct": 1.5,
    "injections_indirect": 0.9,
    "injections_languages_fine": 8.0,
    "injections_languages_injected": 8.0,
    "injections_plain_instructions": 2.0,
    "injections_world_fine": 8.0,
    "injections_world_injected": 8.0,
    "instructions_fine": 8.0,
    "instructions_injected": 8.0,
    "jailbreaks_filled": 0.6,
    "look_alikes_contexts_fine": 10.0,
    "look_alikes_contexts_harmful": 6.0,
    "look_alikes_fine": 12.0,
    "look_alikes_harmful": 1.5,
    "look_alikes_languages_fine": 8.0,
    "look_alikes_languages_harmful": 6.0,
    "look_alikes_requests_fine": 10.0,
    "look_alikes_requests_harmful": 6.0,
    "mlc_v05": 0.4,
    "mlma": 5.0,
    "ordinary_look_alikes": 3.0,
    "plain_instructions_fine": 3.0,
    "plain_instructions_injected": 3.0,
    "pyrit_scorer_evals": 2.0,
    "quarrels_fine": 8.0,
    "quarrels_harassing": 8.0,
    "replies_fine": 6.0,
    "replies_harmful": 6.0,
    "requests_benign_twins": 2.0,
    "requests_grave_fine": 8.0,
    "requests_grave_harmful": 6.0,
    "requests_harmful_dangerous_content": 1.5,
    "requests_harmful_harassment": 2.0,
    "requests_harmful_hate_speech": 1.5,
    "requests_harmful_self_harm": 1.5,
    "requests_harmful_sexually_explicit": 1.5,
    "requests_harmful_violence": 2.0,
    "requests_languages_fine": 8.0,
    "requests_languages_harmful": 6.0,
    "requests_more_fine": 10.0,
    "requests_more_harmful": 8.0,
    "requests_ordinary": 2.0,
    "requests_tasks": 2.5,
    "requests_wrongs_fine": 8.0,
    "requests_wrongs_harmful": 8.0,
    "seen_naked": 0.2,
    "seen_ordinary": 0.12,
    "seen_risky": 0.12,
    "seen_text": 0.3,
    "statements_fine": 8.0,
    "statements_harmful": 6.0,
    "surge_toxicity": 3.0,
    "tasks_more_fine": 8.0,
    "told_br": 4.0,
    "toxic_spans": 1.5,
    "toxigen_demos": 4.0,
    "trades_fine": 10.0,
    "trades_harmful": 6.0,
    "twins_fine": 2.0,
    "twins_hateful": 1.5,
    "wikipedia_toxicity": 4.0,
    "wrapped_requests_fine": 8.0,
    "wrapped_requests_harmful": 6.0,
}
"""How often a source is drawn beside the root of its size: less where it is long or all of one
kind, more where nothing else teaches the same."""
NARROW_VIOLATED = 0.5
"""Of the records that are drawn for a narrow policy; the others are about one like it."""
NARROW_NEAR = 0.6
"""Of those others: the ones that come close to it, where it knows such."""
_SUBJECTS = {
    Surface.PROMPT: "The prompt shall not contain or seek",
    Surface.RESPONSE: "The chatbot shall not generate",
    Surface.IMAGE: "The image shall not contain",
}
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


def stage_sampler(
    data: Path, library: PolicyLibrary, *, seed: int, without: Sequence[str] = ()
) -> "Sampler":
    """What training draws from: licensed records, written ones, and what is made of them.

    Args:
        data: see `read_records`.
        library: the catalogue.
        seed: of the draws.
        without: policies that are never asked, to measure how they are judged unseen.
    """
    records = [*map(known_better, read_records(data)), *written_records()]
    return Sampler(
        [*records, *derived_records(records), *seen_records(), *seen_texts(records)],
        library,
        seed=seed,
        source_weights=SOURCE_WEIGHTS,
        without=without,
    )


@dataclass(frozen=True, slots=True)
class _Pool:
    """The records that answer one policy in one way, by source."""

    sources: tuple[list[Record], ...]
    cumulative_weights: tuple[float, ...]

    @classmethod
    def of(cls, sources: Mapping[str, list[Record]], weights: Mapping[str, float]) -> "_Pool":
        shares = (weights.get(name, 1.0) * math.sqrt(len(found)) for name, found in sources.items())
        return cls(tuple(sources.values()), tuple(itertools.accumulate(shares)))

    def draw(self, rng: random.Random) -> Record:
        return rng.choice(rng.choices(self.sources, cum_weights=self.cumulative_weights)[0])


class Sampler:
    """Draws examples, evenly over policies and labels and by the root of a source's size.

    `draw(step, place)` depends on the seed and on its arguments alone, so a resumed run and any
    number of workers see the examples that one uninterrupted process would have seen.
    """

    def __init__(
        self,
        records: Iterable[Record],
        library: PolicyLibrary,
        *,
        seed: int,
        source_weights: Mapping[str, float] = MappingProxyType({}),
        without: Sequence[str] = (),
    ) -> None:
        """`source_weights` multiplies how often a source is drawn, 1 where it says nothing; the
        policies of `without` (`violence`, `custom:spoilers`) are never asked."""
        self._seed = seed
        self._policy_weights = {p: w for p, w in POLICY_WEIGHTS.items() if p not in without}
        self._definitions = _definitions(library)
        self._narrow: dict[str, list[NarrowPolicy]] = defaultdict(list)
        narrow = [*narrow_policies(), *seen_policies()]
        for policy in narrow:
            if policy.parent not in without and not set(policy.tags) & set(without):
                self._narrow[policy.group].append(policy)
        self._of_the_whole = {p.id for p in narrow if p.inverted or p.alone}
        self._custom = self._narrow.pop("custom")
        self._seen = self._narrow.pop(SEEN)
        pools: dict[tuple[str, bool], dict[str, list[Record]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._tagged: dict[str, list[Record]] = defaultdict(list)
        left_out = {*without, *(tag.replace(":", ":not ", 1) for tag in without)}
        for record in records:
            if record.tags and not record.tags.isdisjoint(left_out):
                continue
            for tag in record.tags or ():
                self._tagged[tag].append(record)
            for policy_id, violates in record.labels.items():
                if self._asks(policy_id, record.surface):
                    pools[policy_id, violates][record.source].append(record)
        self._pools = {key: _Pool.of(sources, source_weights) for key, sources in pools.items()}
        wanted = [(p, v) for p in self._policy_weights for v in (True, False)]
        missing = [f"{policy_id}={v}" for policy_id, v in wanted if (policy_id, v) not in pools]
        if missing:
            raise ValueError(f"no training record for {', '.join(missing)}")

    def draw(self, step: int, place: int) -> Example:
        """The example at a place of one step of the endless sequence."""
        rng = random.Random(f"{self._seed}/{step}/{place}")
        wording = f"{self._seed}/{step}/{place // CONTENTS_A_WORDING}"
        narrow = self._narrow_policies(wording)
        if rng.random() < NARROW_SHARE:
            policy = rng.choice(narrow)
            record = self._draw_tagged(rng, policy)
            questions = [Question(policy.id, policy.definition, policy.violated_by(record) is True)]
        else:
            record, policy_id = self._draw_labelled(rng)
            questions = [self._question(wording, policy_id, record)]
        asked = {question.policy_id for question in questions}
        others = [
            policy_id
            for policy_id, violates in record.labels.items()
            if policy_id not in asked
            and self._asks(policy_id, record.surface)
            # any harm follows from every other violation: asking it each time would teach Yes
            and not (policy_id == "any_harm" and violates)
        ]
        violates = questions[0].violates or any(record.labels.values())
        weight = CONTRAST_WEIGHT if violates else OTHERS_WEIGHT
        for policy_id in rng.sample(others, k=min(len(others), MAX_OTHERS)):
            questions.append(self._question(wording, policy_id, record, weight=weight))
        known = [
            Question(policy.id, policy.definition, answer, weight=weight)
            for policy in rng.sample(narrow, k=len(narrow))
            if policy.id not in asked and (answer := policy.violated_by(record)) is not None
        ]
        questions += known[:MAX_NARROW]
        # what stands around a text may be what such a policy forbids, and its letters too; what is
        # found in an image is written in this project's own words
        as_it_is = record.surface is Surface.IMAGE or any(
            question.policy_id in self._of_the_whole for question in questions
        )
        if rng.random() < DISGUISED_SHARE and not as_it_is:
            record = replace(record, text=disguised(rng, record.text))
        return Example(record, tuple(questions))

    def _narrow_policies(self, wording: str) -> list[NarrowPolicy]:
        """Those that are asked with a wording."""
        rng = random.Random(wording)
        groups = rng.sample(list(self._narrow), NARROW_A_WORDING)
        custom = rng.sample(self._custom, CUSTOM_A_WORDING)
        seen = rng.sample(self._seen, SEEN_A_WORDING)
        return [*(rng.choice(self._narrow[group]) for group in groups), *custom, *seen]

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
        policy_id = rng.choices(list(self._policy_weights), [*self._policy_weights.values()])[0]
        return self._pools[policy_id, rng.random() < 0.5].draw(rng), policy_id

    def _question(
        self, wording: str, policy_id: str, record: Record, *, weight: float = 1.0
    ) -> Question:
        rng = random.Random(f"{wording}/{policy_id}/{record.surface}")
        catalogue, *others = self._definitions[policy_id, record.surface]
        words = catalogue if rng.random() < 0.6 else rng.choice(others)
        return Question(policy_id, words, record.labels[policy_id], weight)

    def _asks(self, policy_id: str, surface: Surface) -> bool:
        return policy_id in self._policy_weights and (policy_id, surface) in self._definitions


def _definitions(library: PolicyLibrary) -> dict[tuple[str, Surface], list[str]]:
    """The catalogue's text of each policy and surface first, then other wordings."""
    wordings = read_yaml("wordings.yaml")
    found = {}
    for policy_id, (surface, subject) in itertools.product(POLICY_WEIGHTS, _SUBJECTS.items()):
        policy = library.policy(policy_id)
        catalogue = policy.definition_for(surface)
        if catalogue is None and surface is Surface.IMAGE:  # as who needs one would write it
            catalogue = _of_images(policy.definition_for(Surface.PROMPT))
        if catalogue is not None:
            others = (text.format(subject=subject) for text in wordings[policy_id])
            found[policy_id, surface] = [catalogue, *others]
    return found


def _of_images(definition: str | None) -> str | None:
    if definition is None:
        return None
    prompt = r"The prompt shall not contain( or seek generation of)?"
    return re.sub(prompt, _SUBJECTS[Surface.IMAGE], definition)
