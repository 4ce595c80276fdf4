"""Records made from collected ones: answers to their requests, posts as answers, filled jailbreaks.

The collected data has few model answers with labels. What a request asks for is known, so an answer
that gives in violates the same policies and a refusal none.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from moderation.training.records import POLICY_WEIGHTS, Record
from moderation.training.written import NO_TAGS, labels_of, read_yaml
from policies import Surface

REQUESTS = (
    "advbench",
    "ailuminate_demo",
    "catqa",
    "contrast",
    "dangerousqa",
    "harmfulqa",
    "malicious_instruct",
    "requests_harmful_dangerous_content",
    "requests_harmful_harassment",
    "requests_harmful_hate_speech",
    "requests_harmful_self_harm",
    "requests_harmful_sexually_explicit",
    "requests_harmful_violence",
)
"""Sources of harmful requests."""
POSTS = (
    "davidson",
    "edos",
    "germeval2018",
    "hate_more_attacks",
    "hate_more_fine",
    "hate_tests_attacks",
    "hate_tests_fine",
    "hatemojibuild",
    "mlma",
    "surge_toxicity",
    "told_br",
    "toxigen_demos",
)
"""Sources of statements, which a model could have written as well."""
INJECTIONS = (
    "bastioncorpus",
    "bipia_train",
    "jailbreak_inthewild",
    "openclay_attack_db",
    "pyrit_jailbreak_templates",
)
PLAIN_INJECTIONS = ("bastioncorpus", "bipia_train", "openclay_attack_db")
"""Those that override instructions without asking for harm."""
NOT_ALSO = {
    "dangerous_content": {"harassment", "hate_speech", "prompt_injection", "sexually_explicit"},
    "harassment": {"dangerous_content", "prompt_injection", "self_harm"},
    "hate_speech": {"dangerous_content", "prompt_injection", "self_harm"},
    "sexually_explicit": {"dangerous_content", "hate_speech", "prompt_injection", "self_harm"},
    "violence": {"prompt_injection", "self_harm", "sexually_explicit"},
    "self_harm": {"harassment", "hate_speech", "prompt_injection", "sexually_explicit"},
    "prompt_injection": set[str](),
}
"""What a text that violates one policy is taken not to violate unless its source says so."""
POSTS_AS_ANSWERS = 0.12
FILLED_JAILBREAKS = 0.6
FULFILLED = 0.5
ASKED_FOR_POSTS = (None, "Write a post for social media.", "Go on.", "What do you think?", "Hi!")


def derived_records(records: Sequence[Record]) -> list[Record]:
    """Those made from `records`; always the same ones."""
    rng = random.Random("derived")
    requests = [
        record
        for record in records
        if record.source in REQUESTS
        and record.surface is Surface.PROMPT
        and record.labels.get("any_harm")
        and not record.labels.get("prompt_injection")
    ]
    return [
        *_answers(rng, requests),
        *_fulfilled(rng, records),
        *_posts_as_answers(rng, records),
        *_filled_jailbreaks(rng, records, requests),
    ]


def known_better(record: Record) -> Record:
    """A collected record with what its source does not say but its making does.

    A clean document of a prompt injection set is an ordinary mail, abstract or table. A text that
    was collected or written as one kind of harm is hardly ever some other kinds as well
    (`NOT_ALSO`); without this, most harmful texts would be asked about their own harm alone, and
    nothing would teach that the other policies answer No.
    """
    labels = record.labels
    violated = {policy_id for policy_id, found in labels.items() if found} - {"any_harm"}
    if record.source in INJECTIONS:
        if record.source == "bipia_train" and not labels["prompt_injection"]:
            return replace(record, labels=labels_of())
        known = violated and record.source in PLAIN_INJECTIONS
        excluded = {*POLICY_WEIGHTS} - {"any_harm"} if known else set()
    elif violated:
        excluded = set.intersection(*(NOT_ALSO[policy_id] for policy_id in violated))
    else:
        excluded = {"prompt_injection"} if record.source in POSTS else set()
    text = record.text
    if record.source == "pyrit_jailbreak_templates":  # marks of a template language
        text = re.sub(r"\{% (end)?raw %\}", "", text).strip()
    return replace(record, text=text, labels=dict.fromkeys(sorted(excluded), False) | labels)


def _answers(rng: random.Random, requests: Iterable[Record]) -> Iterator[Record]:
    spec = read_yaml("answers.yaml")
    for request in requests:
        answer = replace(request, surface=Surface.RESPONSE, prompt=request.text)
        refusal = rng.choice(spec["refusals"])
        yield replace(
            answer, source="answers_refused", text=refusal, labels=labels_of(), tags=NO_TAGS
        )
        text = rng.choice(spec["comply"]).format(request=request.text)
        yield replace(answer, source="answers_given", text=text)


def _fulfilled(rng: random.Random, records: Iterable[Record]) -> Iterator[Record]:
    templates = read_yaml("answers.yaml")["fulfil"]
    for record in records:
        if record.source in ("chat", "chat_look_alikes") and rng.random() < FULFILLED:
            text = rng.choice(templates).format(request=record.text)
            yield replace(
                record,
                source="answers_fulfilled",
                surface=Surface.RESPONSE,
                prompt=record.text,
                text=text,
            )


def _posts_as_answers(rng: random.Random, records: Iterable[Record]) -> Iterator[Record]:
    for record in records:
        if record.source in POSTS and rng.random() < POSTS_AS_ANSWERS:
            yield replace(
                record,
                source=f"{record.source}_as_answer",
                surface=Surface.RESPONSE,
                prompt=rng.choice(ASKED_FOR_POSTS),
            )


def _filled_jailbreaks(
    rng: random.Random, records: Iterable[Record], requests: Sequence[Record]
) -> Iterator[Record]:
    for record in records:
        if "[request]" in record.text and requests and rng.random() < FILLED_JAILBREAKS:
            request = rng.choice(requests)
            violated = {policy_id: True for policy_id, found in request.labels.items() if found}
            yield replace(
                record,
                source="jailbreaks_filled",
                text=record.text.replace("[request]", request.text),
                labels=violated | {"prompt_injection": True},
            )
