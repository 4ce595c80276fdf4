"""Records of what recognisers find in images, written as the service writes it.

No image is needed for them: what a picture of each class of ImageNet may violate follows from the
class, and a text in a picture violates what it violates elsewhere.
"""

import math
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from moderation.media.evidence import NUDE_FROM, Evidence, Tag, evidence_text, labels
from moderation.training.narrow import NarrowPolicy
from moderation.training.records import POLICY_WEIGHTS, Record
from moderation.training.written import labels_of, read_yaml
from policies import Surface

GROUP = "seen"
"""Of the tags, `seen:rifle`, and of the policies about them."""
NAKEDNESS = "nakedness"
"""Stands beside the classes for a score of nudity that is high."""
PROMINENT = 0.15
"""Probability from which on a class counts as shown: few of the 1,000 get as much by mistake."""
USUAL = 0.3
"""What the most likely class of a photo usually gets."""
SURELY_DECENT = 0.1
"""Score of nudity up to which there is none; between it and `NUDE_FROM` nobody knows."""
RECORDS_A_CLASS = 4
NAKED_RECORDS = 1000
TEXTS_A_SOURCE = 150
TEXT_SHARE = 0.15
"""Of a small source's texts: the others are asked as texts alone."""
MAX_TEXT = 400
"""Characters of a text that is put into an image."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What some classes have in common."""

    value: str
    classes: tuple[str, ...]
    near: tuple[str, ...]
    unsure: str
    """A pattern; the classes themselves are part of it, for where they are barely seen."""


def seen_policies() -> list[NarrowPolicy]:
    """Policies about what images show: known of the records of this module alone."""
    spec = read_yaml("seen.yaml")
    found = []
    for name, kind in _kinds().items():
        for number, text in enumerate([*spec["definitions"], *spec["only"]]):
            inverted = number >= len(spec["definitions"])
            definition = text.format(value=kind.value)
            found.append(_policy(f"{name}/{number}", definition, [kind], inverted=inverted))
    for number, policy in enumerate(spec["policies"]):
        kinds = [_kinds()[name] for name in policy["kinds"]]
        found.append(_policy(f"{number}", policy["definition"], kinds))
    return found


def seen_records() -> list[Record]:
    """What images without text show; always the same ones."""
    rng = random.Random("seen")
    records = []
    for label in labels():
        for _ in range(RECORDS_A_CLASS):
            records.append(_record(rng, [label], nudity=_decent(rng)))
    for _ in range(NAKED_RECORDS):
        records.append(_record(rng, _in_the_nude(rng), nudity=_nude(rng)))
    for _ in range(NAKED_RECORDS):
        records.append(_record(rng, [], nudity=_decent(rng)))
    return records


def seen_texts(records: Iterable[Record]) -> list[Record]:
    """Texts of other records, in images of any kind; always the same ones."""
    rng = random.Random("texts")
    by_source = defaultdict(list)
    for record in records:
        if record.surface is Surface.PROMPT and 0 < len(record.text.strip()) <= MAX_TEXT:
            by_source[record.source].append(record)
    return [
        _record(
            rng,
            _any_classes(rng),
            nudity=_nude(rng) if rng.random() < 0.1 else _decent(rng),
            text=record,
        )
        for found in by_source.values()
        for record in rng.sample(found, k=min(math.ceil(TEXT_SHARE * len(found)), TEXTS_A_SOURCE))
    ]


def _policy(
    number: str, definition: str, kinds: Sequence[_Kind], *, inverted: bool = False
) -> NarrowPolicy:
    classes = {label for kind in kinds for label in kind.classes}
    return NarrowPolicy(
        id=f"{GROUP}:{number}",
        group=GROUP,
        definition=definition,
        tags=tuple(f"{GROUP}:{label}" for label in sorted(classes)),
        words="|".join(kind.unsure for kind in kinds),
        inverted=inverted,
        only_own=True,
        near=tuple(
            f"{GROUP}:{label}" for kind in kinds for label in kind.near if label not in classes
        ),
    )


@cache
def _kinds() -> dict[str, _Kind]:
    kinds = {}
    for name, spec in read_yaml("seen.yaml")["kinds"].items():
        classes = tuple(label for named in spec["classes"] for label in _classes(named))
        pattern = "|".join([*map(re.escape, classes), spec["unsure"]])
        kinds[name] = _Kind(spec["value"], classes, tuple(spec["near"]), rf"\b({pattern})\b")
    return kinds


def _classes(named: str) -> Iterator[str]:
    """A class, or those of a range of indices, its end included."""
    ends = re.fullmatch(r"(\d+)-(\d+)", named)
    if ends is None:
        yield named
    else:
        yield from labels()[int(ends[1]) : int(ends[2]) + 1]


def _record(
    rng: random.Random, shown: Sequence[str], *, nudity: float, text: Record | None = None
) -> Record:
    """A record of a picture that shows these classes, at most two, or nothing that is known."""
    tags = _tags(rng, shown)
    nude = nudity >= NUDE_FROM
    risky = not {tag.label for tag in tags}.isdisjoint(read_yaml("seen.yaml")["risky"])
    known = labels_of(
        ["sexually_explicit"] if nude else [],
        [
            *(["dangerous_content", "self_harm", "violence"] if risky else []),
            *(["any_harm"] if risky and not nude else []),
            *(["harassment"] if nude else []),
        ],
    )
    about = {f"{GROUP}:{label}" for label in (*shown, *([NAKEDNESS] if nude else []))}
    about = about or {f"{GROUP}:nothing"}
    source = "seen_naked" if nude else "seen_risky" if risky else "seen_ordinary"
    words = ""
    if text is not None:
        source, words = "seen_text", _as_read(rng, text.text)
        known = {
            policy_id: either
            for policy_id in POLICY_WEIGHTS
            if (either := _either(known.get(policy_id), text.labels.get(policy_id))) is not None
        }
    return Record(
        source=source,
        surface=Surface.IMAGE,
        text=evidence_text(Evidence(tags=tags, nudity=nudity, text=words)),
        prompt=None,
        labels=known,
        lang=text.lang if text is not None else "en",
        tags=None if text is not None and text.tags is None else frozenset(about | _about(text)),
    )


def _about(text: Record | None) -> frozenset[str]:
    return (text.tags if text is not None else None) or frozenset()


def _either(picture: bool | None, text: bool | None) -> bool | None:
    """Whether one of two violates a policy; None where that is unknown."""
    if picture or text:
        return True
    return None if picture is None or text is None else False


def _tags(rng: random.Random, shown: Sequence[str]) -> list[Tag]:
    """The classes with probabilities as a recogniser gives them: some of each goes to classes
    that look like it, a little to any others."""
    left = 1.0
    found: dict[str, float] = {}
    for label in shown:
        mass = rng.triangular(PROMINENT, 0.95 if len(shown) == 1 else 0.48, USUAL)
        left -= mass
        own = mass
        likes = [kind.classes for kind in _kinds().values() if label in kind.classes]
        if likes and rng.random() < 0.5:
            own = max(PROMINENT, mass * rng.uniform(0.5, 0.9))
            like = rng.choice(rng.choice(likes))
            if like not in shown:
                found[like] = found.get(like, 0.0) + mass - own
        found[label] = own
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        label = rng.choice(labels())
        if label not in found:
            found[label] = min(left, rng.uniform(0.01, 0.14))
    return [Tag(label, probability) for label, probability in found.items()]


def _any_classes(rng: random.Random) -> list[str]:
    return rng.sample(labels(), k=rng.choice((0, 1, 1, 1, 2)))


def _in_the_nude(rng: random.Random) -> list[str]:
    """What recognisers take naked skin and what is around it for, or anything else."""
    spec = read_yaml("seen.yaml")
    likely = [*spec["beside_nakedness"], *_kinds()["swimwear"].classes]
    return [rng.choice(likely)] if rng.random() < 0.6 else _any_classes(rng)


def _decent(rng: random.Random) -> float:
    """Mostly close to nothing."""
    return SURELY_DECENT * rng.random() ** 2


def _nude(rng: random.Random) -> float:
    return rng.uniform(NUDE_FROM, 1.0)


def _as_read(rng: random.Random, text: str) -> str:
    """A text as it is read in a picture: in short lines, often in capitals, and now and then with
    a space lost."""
    words = text.split()
    if rng.random() < 0.3:
        words = [word.upper() for word in words]
    width = rng.choice((16, 24, 32, 48, 1000))
    joint = 0.08 if rng.random() < 0.3 else 0.0
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append(word)
        else:
            lost = not lines[-1] or rng.random() < joint
            lines[-1] += word if lost else f" {word}"
    return "\n".join(lines)
