"""Records of what is found in images: labelled where that follows, written as the service does."""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest

from moderation.checkpoints import Classifier
from moderation.media.evidence import Evidence, Tag, findings, labels
from moderation.prompts import PromptBuilder
from moderation.readings import read_text
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.training.batch import render_record
from moderation.training.data import Sampler
from moderation.training.records import Record
from moderation.training.seen import seen_policies, seen_records, seen_texts
from moderation.training.written import NO_TAGS, labels_of, read_yaml, written_records
from policies import Policy, Surface, load_library

POLICIES = {policy.id: policy for policy in seen_policies()}
RECORDS = seen_records()


def record(text: str, *tags: str) -> Record:
    return Record("test", Surface.IMAGE, text, None, {}, tags=frozenset(tags))


def in_image(
    text: str,
    tags: frozenset[str] | None = NO_TAGS,
    known: Mapping[str, bool] = MappingProxyType({}),
) -> list[Record]:
    given = Record("test", Surface.PROMPT, text, None, dict(known), tags=tags)
    return seen_texts([given] * 200)


def test_every_named_class_is_one() -> None:
    spec = read_yaml("seen.yaml")
    named = {*spec["risky"], *spec["beside_nakedness"]}
    for kind in spec["kinds"].values():
        named |= {*kind["classes"], *kind["near"]}
    named = {name for name in named if not re.fullmatch(r"\d+-\d+", name)}
    assert named - {*labels()} == {"nakedness"}


def test_ranges_of_classes_are_what_they_stand_for() -> None:
    tags = {name: POLICIES[f"seen:{name}/0"].tags for name in ("animals", "dogs", "food")}
    assert {"seen:tench fish", "seen:giant panda", "seen:pug dog"} < {*tags["animals"]}
    assert {"seen:puffer", "seen:abacus"} & {*tags["animals"]} == {"seen:puffer"}
    assert {"seen:Chihuahua dog", "seen:Mexican hairless dog"} < {*tags["dogs"]}
    assert {"seen:timber wolf", "seen:sea lion"}.isdisjoint(tags["dogs"])
    assert {"seen:guacamole", "seen:pizza", "seen:burrito"} < {*tags["food"]}
    assert {"seen:hay", "seen:plate", "seen:red wine"}.isdisjoint(tags["food"])


def test_what_is_written_of_a_class_names_every_kind_that_it_is_of() -> None:
    for kind in read_yaml("seen.yaml")["kinds"]:
        if kind == "nakedness":
            continue
        classes = [tag.removeprefix("seen:") for tag in POLICIES[f"seen:{kind}/0"].tags]
        written = [findings(Evidence(tags=[Tag(label, 1.0)], nudity=0.0)) for label in classes]
        nouns = [{*re.findall(r"\((.*)\) 100%", each)[0].split(", ")} for each in written]
        assert set.intersection(*nouns), kind


def test_records_and_policies_meet() -> None:
    known = {tag for each in RECORDS for tag in each.tags or NO_TAGS}
    for policy in seen_policies():
        assert {*policy.tags, *policy.near} <= known, policy.id


def test_nudity_alone_decides_what_is_sexual() -> None:
    for each in RECORDS:
        nudity = int(re.findall(r"Nudity: (\d+)%", each.text)[0])
        assert nudity <= 10 or nudity >= 80, "between the two nobody knows"
        assert each.labels["sexually_explicit"] is (nudity >= 80)
        assert ("seen:nakedness" in (each.tags or NO_TAGS)) is (nudity >= 80)


def test_a_weapon_is_no_violence_and_no_harmlessness() -> None:
    rifles = [each for each in RECORDS if {"seen:rifle"} <= (each.tags or NO_TAGS)]
    assert rifles
    for each in rifles:
        assert each.labels.keys().isdisjoint({"violence", "dangerous_content", "self_harm"})
        assert each.labels["hate_speech"] is False
    daisies = [each for each in RECORDS if each.tags == frozenset({"seen:daisy"})]
    assert any(not any(each.labels.values()) and "violence" in each.labels for each in daisies)


def test_a_policy_is_violated_by_what_it_names_and_not_by_what_is_like_it() -> None:
    def asked(name: str, each: Record) -> bool | None:
        return POLICIES[f"seen:{name}"].violated_by(each)

    rifle = record("Seen in the image: rifle 62%.", "seen:rifle")
    assert asked("weapons/0", rifle) is True
    assert asked("alcohol/0", rifle) is False
    assert asked("weapons/5", rifle) is False, "every image has to show weapons"
    assert asked("alcohol/5", rifle) is True
    hammer = record("Seen in the image: hammer 62%.", "seen:hammer")
    assert asked("weapons/0", hammer) is False
    barely = record("Seen in the image: hammer 62%, revolver 9%.", "seen:maraca")
    assert asked("weapons/0", barely) is None, "barely seen"
    tank = record("Seen in the image: tank 62%.", "seen:tank")
    assert asked("weapons/0", tank) is None, "nobody has said whether a tank is meant"
    assert asked("military/0", tank) is True
    text = Record("test", Surface.PROMPT, "Nothing of it", None, {}, tags=NO_TAGS)
    assert asked("weapons/0", text) is None, "a text is not asked what its image shows"


@pytest.mark.parametrize("harmful", [True, False])
def test_a_text_in_an_image_violates_what_it_violates_elsewhere(harmful: bool) -> None:
    found = in_image("Beat them all", known=labels_of(["violence"] if harmful else []))
    labelled = [each for each in found if "violence" in each.labels]
    assert len(labelled) > len(found) / 2
    assert {each.labels["violence"] for each in labelled} == {harmful}


def test_what_is_unknown_of_a_text_stays_unknown_in_an_image() -> None:
    for each in in_image("Something", known={"hate_speech": False}):
        assert each.labels.keys() <= {"hate_speech", "sexually_explicit", "any_harm"}
        assert each.labels.get("sexually_explicit") is not False


def test_a_text_keeps_what_it_is_about_and_a_collected_one_knows_nothing() -> None:
    assert all(each.tags is None for each in in_image("Something", None))
    for each in in_image("On jazz", frozenset({"topic:jazz"})):
        assert "topic:jazz" in (each.tags or NO_TAGS)
        assert any(tag.startswith("seen:") for tag in each.tags or NO_TAGS)


def test_no_letter_of_a_text_gets_lost_in_an_image() -> None:
    text = "We meet at the old mill, bring nobody and nothing else."
    read = {each.text.partition("Text in the image: ")[2] for each in in_image(text)}
    assert len(read) > 10
    assert {re.sub(r"\s", "", each.lower()) for each in read} == {re.sub(r"\s", "", text.lower())}


def test_records_are_always_the_same() -> None:
    assert seen_records() == RECORDS
    assert in_image("Something") == in_image("Something")


@pytest.mark.parametrize("template", ["compact", "compositional"])
def test_evidence_is_asked_in_training_as_in_the_service(
    tiny: dict[str, Classifier], template: str, small_tokenizer: SafeTokenizer
) -> None:
    policy: Policy = load_library().policy("sexually_explicit")
    words = policy.definition_for(Surface.IMAGE)
    assert words is not None
    builder = PromptBuilder(TEMPLATES[template], small_tokenizer)
    classifier = replace(tiny["gemma3"], builder=builder)
    text = RECORDS[0].text
    reading = read_text(
        classifier,
        [policy],
        Surface.IMAGE,
        text,
        builder.content_tokens(text),
        part=0,
        context=None,
    )
    assert reading is not None
    assert reading.words(policy.id) == words
    assert reading.prompts([words]) == [render_record(builder, RECORDS[0], [words])]


def test_images_are_asked_in_the_words_for_images_and_left_as_they_are() -> None:
    library = load_library()
    by_text = {each.text: each for each in RECORDS}
    sampler = Sampler(
        [*written_records(), *RECORDS],
        library,
        seed=1,
        source_weights={"seen_ordinary": 50, "seen_naked": 50, "seen_risky": 50},
    )
    examples = [sampler.draw(step, place) for step in range(5) for place in range(96)]
    images = [each for each in examples if each.record.surface is Surface.IMAGE]
    asked = {q.policy_id: q.definition for each in images for q in each.questions}
    assert all(each.record == by_text[each.record.text] for each in images)
    assert {"violence", "hate_speech", "any_harm", "prompt_injection"} <= asked.keys()
    for policy_id in asked.keys() & {"violence", "hate_speech", "any_harm", "prompt_injection"}:
        assert not re.search("The (prompt|chatbot)", asked[policy_id]), asked[policy_id]
    catalogue = {q.definition for each in images for q in each.questions}
    assert library.policy("violence").definition_for(Surface.IMAGE) in catalogue
    assert asked.keys() & POLICIES.keys()
