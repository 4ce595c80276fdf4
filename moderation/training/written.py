"""The texts written for this project: YAML with slots, each combination of which is one record."""

import itertools
import string
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from moderation.training.records import POLICY_WEIGHTS, Record
from policies import Surface

Slots = Mapping[str, list[str]]

GROUPED = (
    "answers_casual.yaml",
    "answers_grave.yaml",
    "answers_languages.yaml",
    "answers_long.yaml",
    "answers_more.yaml",
    "answers_social.yaml",
    "answers_styled.yaml",
    "answers_wrongs.yaml",
    "dialogues.yaml",
    "documents.yaml",
    "documents_asked.yaml",
    "documents_more.yaml",
    "everyday.yaml",
    "half_spoken.yaml",
    "hate_emoji.yaml",
    "hate_forms_a.yaml",
    "hate_forms_b.yaml",
    "hate_languages.yaml",
    "hate_more_a.yaml",
    "hate_more_b.yaml",
    "heated_talk.yaml",
    "injections_more.yaml",
    "injections_world.yaml",
    "instructions.yaml",
    "look_alikes_contexts.yaml",
    "look_alikes_en.yaml",
    "look_alikes_languages.yaml",
    "look_alikes_more.yaml",
    "look_alikes_requests.yaml",
    "quarrels.yaml",
    "replies.yaml",
    "requests.yaml",
    "requests_grave.yaml",
    "requests_languages.yaml",
    "requests_more.yaml",
    "requests_wrongs.yaml",
    "statements.yaml",
    "tasks.yaml",
    "tasks_more.yaml",
    "trades.yaml",
    "wrapped_requests.yaml",
)
"""Files whose groups name what they violate; each combination of a template's slots is a record."""

CUSTOM = ("custom.yaml", "custom_more.yaml")
"""Files of policies as services have them, with texts that violate each and texts that do not."""

NO_TAGS: frozenset[str] = frozenset()
"""Of a written text about nothing that a narrow policy is about."""


def written_records() -> list[Record]:
    """All of them."""
    return [
        *ordinary_records(),
        *contrast_records(),
        *hate_records(),
        *injection_records(),
        *answer_records(),
        *custom_records(),
        *grouped_records(),
    ]


def grouped_records() -> list[Record]:
    """The texts and answers of the files in `GROUPED`."""
    records = []
    for name in GROUPED:
        spec = read_yaml(name)
        for group in spec["groups"]:
            labels = labels_of(group.get("violated", ()), group.get("open", ()))
            source, lang = group["source"], group.get("lang", "en")
            for text in _filled(group.get("texts", ()), spec.get("slots", {})):
                records.append(Record(source, Surface.PROMPT, text, None, labels, lang))
            for prompts, answers in group.get("answers", ()):
                for both in itertools.product(_listed(prompts), _listed(answers)):
                    # filled together: what a slot holds in the prompt it holds in the answer
                    for text in _filled(["\0".join(both)], spec.get("slots", {})):
                        prompt, answer = text.split("\0")
                        records.append(
                            Record(source, Surface.RESPONSE, answer, prompt, labels, lang)
                        )
    return records


def ordinary_records() -> list[Record]:
    """The benign requests, look-alikes and responses of `ordinary.yaml` and `chat.yaml`."""
    spec, more = read_yaml("ordinary.yaml"), read_yaml("chat.yaml")
    slots = spec["slots"] | more["slots"]
    templates = {
        "ordinary_requests": spec["requests"],
        "ordinary_look_alikes": spec["look_alikes"],
        "chat": more["chat"],
        "chat_look_alikes": more["look_alikes"],
    }
    records = [
        Record(source, Surface.PROMPT, text, None, labels_of(), tags=tags)
        for source, texts in templates.items()
        for template in texts
        for text, tags in _fill(template, slots)
    ]
    for prompt, answer in spec["responses"]:
        records.append(
            Record(
                "ordinary_responses", Surface.RESPONSE, answer, prompt, labels_of(), tags=NO_TAGS
            )
        )
    return records


def contrast_records() -> list[Record]:
    """The violations of `contrast.yaml`, labelled for every policy that is not open."""
    spec = read_yaml("contrast.yaml")
    records = []
    for group in spec["groups"]:
        labels = labels_of(group["violated"], group["open"])
        for template in group["texts"]:
            for text, tags in _fill(template, spec["slots"]):
                known = None if "group" in template and labels.get("hate_speech") else tags
                records.append(Record("contrast", Surface.PROMPT, text, None, labels, tags=known))
    return records


def hate_records() -> list[Record]:
    """The functional tests of `hate_tests.yaml`."""
    violated = {
        "hate": (["hate_speech"], ["harassment", "violence"]),
        "threat": (["hate_speech", "violence"], ["harassment", "dangerous_content"]),
        "fine": ([], []),
        "things": ([], []),
        "rude": ([], ["any_harm", "harassment"]),
        "person": (["harassment"], []),
    }
    records = []
    for lang, spec in read_yaml("hate_tests.yaml").items():
        for kind, (policies, open_) in violated.items():
            source = f"hate_tests_{'attacks' if policies else 'fine'}"
            labels = labels_of(policies, open_)
            for template in spec[kind]:
                names = spec["groups"] if "{group}" in template else {"": ""}
                things = spec["thing"] if "{thing}" in template else [""]
                for (group, name), thing in itertools.product(names.items(), things):
                    text = template.format(group=name, thing=thing)
                    tags = frozenset({f"attacked:{group}"}) if policies and group else NO_TAGS
                    text = text[0].upper() + text[1:]
                    records.append(Record(source, Surface.PROMPT, text, None, labels, lang, tags))
    return records


def injection_records() -> list[Record]:
    """Attacks alone and inside documents, and harmless ones of both, of `injections.yaml`."""
    spec = read_yaml("injections.yaml")
    slots = spec["slots"]
    attack, harmless = labels_of(["prompt_injection"]), labels_of()
    attacks = [text for template in spec["attacks"] for text, _ in _fill(template, slots)]
    sentences = [text for template in spec["sentences"] for text, _ in _fill(template, slots)]
    found: list[tuple[str, str, dict[str, bool]]] = []
    found += [("injection_alone", text, attack) for text in (*attacks, *spec["alone"])]
    found += [
        ("injection_look_alikes", text, harmless)
        for template in spec["look_alikes"]
        for text, _ in _fill(template, slots)
    ]
    for document in spec["documents"]:
        for source, insides, labels in (
            ("injection_inside", attacks, attack),
            ("injection_documents", sentences, harmless),
        ):
            found += [(source, document.format(inside=inside), labels) for inside in insides]
    return [
        Record(source, Surface.PROMPT, text, None, labels, tags=NO_TAGS)
        for source, text, labels in found
    ]


def answer_records() -> list[Record]:
    """The harmless answers of `answers.yaml`."""
    return [
        Record("answers_benign", Surface.RESPONSE, answer, prompt, labels_of(), tags=NO_TAGS)
        for prompt, answer in read_yaml("answers.yaml")["benign"]
    ]


def custom_policies() -> dict[str, Any]:
    """What the files of `CUSTOM` say of each policy, by its name."""
    return {name: spec for file in CUSTOM for name, spec in read_yaml(file).items()}


def custom_records() -> list[Record]:
    """The texts of `CUSTOM`: what a service's own policy forbids, and what it does not."""
    return [
        Record("custom", Surface.PROMPT, text, None, labels_of(open_=open_), tags=frozenset({tag}))
        for name, spec in custom_policies().items()
        for texts, tag, open_ in (
            (spec["yes"], f"custom:{name}", spec.get("open", [])),
            (spec["no"], f"custom:not {name}", []),
        )
        for text in texts
    ]


def labels_of(violated: Iterable[str] = (), open_: Iterable[str] = ()) -> dict[str, bool]:
    """A label for every policy that is not open; what violates one is harmful, except that some
    texts override instructions without doing harm."""
    violated = set(violated)
    harm = {"any_harm"} if violated - {"prompt_injection"} else set()
    unknown = {*open_, *({"any_harm"} if violated == {"prompt_injection"} else ())}
    return {
        policy_id: policy_id in violated | harm
        for policy_id in POLICY_WEIGHTS
        if policy_id not in unknown
    }


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _filled(templates: Iterable[str], slots: Slots) -> Iterator[str]:
    return (text for template in templates for text, _ in _combinations(template, slots))


def _fill(template: str, slots: Slots) -> Iterator[tuple[str, frozenset[str]]]:
    """Every combination of a template's slots, with what filled them as tags."""
    for text, filled in _combinations(template, slots):
        yield text[0].upper() + text[1:], frozenset(f"{k}:{v}" for k, v in filled.items())


def _combinations(template: str, slots: Slots) -> Iterator[tuple[str, dict[str, str]]]:
    """A template with each combination of values of its slots, and which they were."""
    names = dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(template) if name)
    for values in itertools.product(*(slots[name] for name in names)):
        filled = dict(zip(names, values, strict=True))
        yield template.format(**filled), filled


@cache
def read_yaml(name: str) -> Any:
    """A YAML file of this package; nobody changes what it holds."""
    text = (files("moderation.training") / name).read_text(encoding="utf-8")
    return yaml.load(text, yaml.CSafeLoader)
