"""What is trained is what is served; examples are repeatable; records are licensed."""

import gzip
import itertools
import json
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel

from moderation.checkpoints import Classifier, load_checkpoint
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.training.batch import make_batches
from moderation.training.data import Sampler
from moderation.training.derived import derived_records, known_better
from moderation.training.disguise import disguised
from moderation.training.fused import linear, norm
from moderation.training.layers import answer_margins, read_policies
from moderation.training.narrow import NarrowPolicy, narrow_policies
from moderation.training.records import (
    PERMISSIVE_LICENCES,
    POLICY_WEIGHTS,
    Record,
    read_records,
)
from moderation.training.seen import seen_records
from moderation.training.train import adapted_model, answer_direction, render
from moderation.training.written import (
    CUSTOM,
    GROUPED,
    NO_TAGS,
    contrast_records,
    custom_policies,
    custom_records,
    grouped_records,
    hate_records,
    injection_records,
    labels_of,
    ordinary_records,
    read_yaml,
    written_records,
)
from policies import Surface, load_library
from tests.moderation.asking import ask
from tests.moderation.checkpoints_on_disk import SLIDING_WINDOW

_tokens = st.lists(st.integers(20, 800), min_size=1, max_size=2 * SLIDING_WINDOW).map(tuple)
_leaves = st.lists(_tokens, min_size=1, max_size=3).map(tuple)
_content_first = st.builds(JudgePrompt, prefix=_tokens, leaves=_leaves)
_compositional = st.builds(JudgePrompt, prefix=_tokens, leaves=_leaves, query=st.just((30,)))
_rows = st.lists(_content_first, min_size=1, max_size=4) | st.lists(
    _compositional, min_size=1, max_size=4
)


@pytest.fixture(scope="module")
def in_training(checkpoint_dirs: dict[str, Path]) -> PeftModel:
    """A float32 model with an adapter that changes every layer."""
    model = adapted_model(checkpoint_dirs["gemma3"], 4, 1, dtype=torch.float32)
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def trained(
    in_training: PeftModel,
    checkpoint_dirs: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Classifier:
    """The same, saved and loaded as a service loads it."""
    folder = tmp_path_factory.mktemp("adapter")
    in_training.save_pretrained(str(folder), save_embedding_layers=False)
    return load_checkpoint(checkpoint_dirs["gemma3"], dtype=torch.float32, adapter=folder)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(prompts=_rows)
def test_what_is_trained_is_what_is_served(
    in_training: PeftModel, trained: Classifier, prompts: list[JudgePrompt]
) -> None:
    model = in_training.get_base_model()
    direction = answer_direction(model, trained.builder.tokenizer)
    policies, (batch,) = make_batches([prompts])
    margins = answer_margins(model, batch, read_policies(model, policies), direction)
    expected = [score for prompt in prompts for score in ask(trained.engine, prompt)]
    assert torch.sigmoid(margins).tolist() == pytest.approx(expected, abs=1e-4)


def test_the_adapter_matters(tiny: dict[str, Classifier], trained: Classifier) -> None:
    prompt = JudgePrompt((40, 41, 42), ((50, 51),), (30,))
    assert ask(trained.engine, prompt) != pytest.approx(
        ask(tiny["gemma3"].engine, prompt), abs=1e-3
    )


@pytest.mark.parametrize("query", [(), (35,)])
@pytest.mark.parametrize("num_rows", [1, 2, 3])
def test_the_gradient_of_a_step_is_the_sum_of_each_prompts(
    in_training: PeftModel, trained: Classifier, query: tuple[int, ...], num_rows: int
) -> None:
    model = in_training.get_base_model()
    direction = answer_direction(model, trained.builder.tokenizer)
    prompts = [
        JudgePrompt((30,) * 40, ((31, 36),), query),
        JudgePrompt((32, 37), ((31, 36), (33,)), query),
        JudgePrompt((38, 39), ((34, 35, 36, 37, 38),), query),
    ]
    parameters = [p for p in in_training.parameters() if p.requires_grad]

    def of_one(prompt: JudgePrompt) -> tuple[torch.Tensor, ...]:
        roots, (batch,) = make_batches([[prompt]])
        margins = answer_margins(model, batch, read_policies(model, roots), direction)
        return torch.autograd.grad(margins.sum(), parameters)

    roots, batches = make_batches([prompts[number::num_rows] for number in range(num_rows)])
    policies = read_policies(model, roots)
    gathering = policies.apart()
    for batch in batches:
        margins = answer_margins(model, batch, gathering, direction)
        torch.autograd.backward(margins.sum())
    policies.backward(gathering)
    together = [parameter.grad for parameter in parameters if parameter.grad is not None]
    in_training.zero_grad()
    apart = [sum(parts) for parts in zip(*map(of_one, prompts), strict=True)]
    assert len(together) == len(parameters)
    for found, expected in zip(together, apart, strict=True):
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_layers_written_out_are_those_of_the_libraries(in_training: PeftModel) -> None:
    model: Any = in_training.get_base_model()
    layer = model.model.layers[0]
    torch.manual_seed(3)
    for module, written_out, width in (
        (layer.mlp.gate_proj, linear, layer.mlp.gate_proj.in_features),
        (layer.self_attn.q_norm, norm, layer.self_attn.head_dim),
    ):
        inputs = torch.randn(7, width, requires_grad=True)
        about = [inputs, *(p for p in module.parameters() if p.requires_grad)]
        if written_out is norm:
            about = [inputs]
        of_library, own = module(inputs), written_out(module, inputs)
        torch.testing.assert_close(own, of_library)
        weights = torch.randn_like(own)
        expected = torch.autograd.grad((of_library * weights).sum(), about)
        found = torch.autograd.grad((own * weights).sum(), about)
        for each, other in zip(found, expected, strict=True):
            torch.testing.assert_close(each, other)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Two sources for each policy and label, on both surfaces."""
    written = [
        Record(source, surface, f"{policy_id} {violates} {number}", "asked", {policy_id: violates})
        for policy_id in POLICY_WEIGHTS
        for violates in (True, False)
        for source in ("one", "two")
        for surface in (Surface.PROMPT, Surface.RESPONSE)
        for number in range(3)
    ]
    return [*written, *written_records(), *seen_records()]


def test_a_draw_depends_on_the_seed_and_its_place_alone(records: list[Record]) -> None:
    library = load_library()
    one, same = (Sampler(records, library, seed=1) for _ in range(2))
    places = [(step, place) for step in range(3) for place in range(20)]
    forwards = [one.draw(*place) for place in places]
    assert [same.draw(*place) for place in reversed(places)] == forwards[::-1]
    other = Sampler(records, library, seed=2)
    assert [other.draw(*place) for place in places] != forwards


def test_draws_are_balanced_and_never_ask_what_is_unknown(records: list[Record]) -> None:
    sampler = Sampler(records, load_library(), seed=3)
    examples = [sampler.draw(step, place) for step in range(40) for place in range(20)]
    first = []
    for example in examples:
        ids = [question.policy_id for question in example.questions]
        assert len(set(ids)) == len(ids)
        for question in example.questions:
            if question.policy_id in POLICY_WEIGHTS:
                assert example.record.labels[question.policy_id] == question.violates
        if ids[0] in POLICY_WEIGHTS:
            first.append(example.questions[0])
    assert len(first) < len(examples), "some ask for something else first"
    assert {question.policy_id for question in first} == set(POLICY_WEIGHTS)
    assert 0.4 < sum(question.violates for question in first) / len(first) < 0.6


def test_a_step_asks_a_policy_in_one_wording(records: list[Record]) -> None:
    sampler = Sampler(records, load_library(), seed=3)
    for step in range(10):
        words = defaultdict(set)
        for example in (sampler.draw(step, place) for place in range(30)):
            for question in example.questions:
                words[question.policy_id, example.record.surface].add(question.definition)
        assert all(len(found) == 1 for found in words.values())


def test_an_example_is_rendered_as_the_moderator_would(
    records: list[Record], small_tokenizer: SafeTokenizer
) -> None:
    builder = PromptBuilder(TEMPLATES["compact"], small_tokenizer)
    sampler = Sampler(records, load_library(), seed=4)
    surfaces = set()
    for place in range(60):
        example = sampler.draw(0, place)
        surfaces.add(example.record.surface)
        prompt = render(builder, example)
        text = small_tokenizer.decode([*prompt.prefix, *prompt.leaves[0]])
        if example.record.surface is Surface.RESPONSE and example.record.prompt is None:
            continue
        before = "<bos><start_of_turn>user\n"
        if example.record.surface is Surface.RESPONSE:
            before += f"{example.record.prompt}<end_of_turn>\n<start_of_turn>model\n"
        definition = example.questions[0].definition
        assert text.startswith(f"{before}{example.record.text}<end_of_turn>\nPolicy: {definition}")
        assert len(prompt.leaves) == len(example.questions)
    assert surfaces == {*Surface}


def test_a_policy_that_is_left_out_is_never_asked_in_any_form(records: list[Record]) -> None:
    left_out = ("hate_speech", "custom:spoilers")
    sampler = Sampler(records, load_library(), seed=4, without=left_out)
    parts = {p.id for p in narrow_policies() if p.parent == "hate_speech"}
    spoilers = {p.id for p in narrow_policies() if p.tags == ("custom:spoilers",)}
    assert parts
    assert spoilers
    for step, place in itertools.product(range(8), range(96)):
        example = sampler.draw(step, place)
        asked = {question.policy_id for question in example.questions}
        assert not asked & {"hate_speech", *parts, *spoilers}
        assert not (example.record.tags or NO_TAGS) & {"custom:spoilers", "custom:not spoilers"}


def test_grouped_records_violate_what_their_group_names() -> None:
    records = grouped_records()
    assert len({record.source for record in records}) > 15
    for record in records:
        violated = {policy_id for policy_id, found in record.labels.items() if found}
        _, _, named = record.source.partition("_harmful_")
        if named:
            assert violated, record.source
        if record.source in ("requests_ordinary", "answers_safe", "injections_clean_documents"):
            assert not violated
        assert (record.prompt is not None) == (record.surface is Surface.RESPONSE)
    answers = [record for record in records if record.surface is Surface.RESPONSE]
    assert 0.3 < sum(any(record.labels.values()) for record in answers) / len(answers) < 0.7


def test_a_policy_without_records_is_an_error(records: list[Record]) -> None:
    some = [record for record in records if "violence" not in record.labels]
    with pytest.raises(ValueError, match="no training record for violence=True"):
        Sampler(some, load_library(), seed=1)


@pytest.mark.parametrize("compressed", [True, False])
def test_records_of_other_licences_stay_out(tmp_path: Path, compressed: bool) -> None:
    licences = [
        *PERMISSIVE_LICENCES,
        "CC-BY-NC-4.0",
        "CC-BY-4.0 + research use only",
        "GPL-3.0",
        "mit",
        "",
    ]
    rows = [
        {
            "id": str(number),
            "source": "here",
            "licence": licence,
            "text": licence,
            "role": "model" if number % 2 else "user",
            "lang": "en",
            "labels": {"violence": True},
        }
        for number, licence in enumerate(licences)
    ]
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    path = tmp_path / ("records.jsonl.gz" if compressed else "records.jsonl")
    path.write_bytes(gzip.compress(lines) if compressed else lines)
    found = read_records(path)
    assert [record.text for record in found] == list(PERMISSIVE_LICENCES)
    assert [record.surface for record in found[:2]] == [Surface.PROMPT, Surface.RESPONSE]


def test_written_records_leave_no_slot_unfilled() -> None:
    slots = {name for file in GROUPED for name in read_yaml(file).get("slots", {})}
    for record in written_records():
        assert record.text.strip()
        unfilled = slots & set(re.findall(r"\{(\w+)\}", record.text))  # code has braces, too
        assert not unfilled, record.text


def test_ordinary_records_violate_nothing() -> None:
    records = ordinary_records()
    assert len(records) > 1200
    for record in records:
        assert set(record.labels) == set(POLICY_WEIGHTS)
        assert not any(record.labels.values())
        assert (record.prompt is not None) == (record.surface is Surface.RESPONSE)


def test_contrast_records_say_no_for_the_policies_they_do_not_violate() -> None:
    records = contrast_records()
    assert len(records) > 200
    for record in records:
        assert not re.search(r"\{[a-z]\w*\}", record.text), record.text
    for policy_id in POLICY_WEIGHTS:
        answers = [record.labels[policy_id] for record in records if policy_id in record.labels]
        assert any(answers)
        if policy_id != "any_harm":
            assert not all(answers)


def test_a_source_weight_draws_a_source_more_often(records: list[Record]) -> None:
    def share(weight: float) -> int:
        sampler = Sampler(records, load_library(), seed=3, source_weights={"two": weight})
        return sum(sampler.draw(0, place).record.source == "two" for place in range(300))

    assert share(8.0) > 2 * share(0.5)


def test_wordings_leave_no_slot_unfilled(records: list[Record]) -> None:
    sampler = Sampler(records, load_library(), seed=5)
    definitions = {
        (question.policy_id, question.definition)
        for step in range(60)
        for place in range(16)
        for question in sampler.draw(step, place).questions
    }
    for policy_id in POLICY_WEIGHTS:
        assert sum(found == policy_id for found, _ in definitions) >= 3, "its own and two others"
    for _, definition in definitions:
        assert "{" not in definition
        assert "}" not in definition


LANGUAGES = {"ar", "de", "en", "es", "fr", "hi", "it", "nl", "pl", "pt", "zh"}


def test_functional_tests_of_hate_are_in_eleven_languages() -> None:
    records = hate_records()
    assert {record.lang for record in records} == LANGUAGES
    for lang in LANGUAGES:
        answers = [record.labels["hate_speech"] for record in records if record.lang == lang]
        assert 0.3 < sum(answers) / len(answers) < 0.7
    assert len({record.text for record in records}) == len(records)


def test_abuse_of_a_person_is_no_hate_and_abuse_of_a_thing_is_nothing() -> None:
    found = {record.text: record.labels for record in hate_records()}
    person = found["You are a worthless piece of trash."]
    assert (person["harassment"], person["hate_speech"]) == (True, False)
    assert not any(found["I hate mosquitoes."].values())
    assert "any_harm" not in found["Damn, this shit never works."], "swearing is open"


def test_a_narrow_policy_is_violated_by_what_it_is_about() -> None:
    policy = NarrowPolicy("t", "topic", "No talk of jazz.", ("topic:jazz",), words="jazz")
    text = "Explain jazz."
    tagged = Record("s", Surface.PROMPT, text, None, {}, tags=frozenset({"topic:jazz"}))
    other = Record("s", Surface.PROMPT, "Explain bees.", None, {}, tags=frozenset({"topic:bees"}))
    collected = Record("s", Surface.PROMPT, "all that jazz", None, {})
    assert policy.violated_by(tagged) is True
    assert policy.violated_by(other) is False
    assert policy.violated_by(collected) is None, "it has the word, so nobody knows"


def test_a_policy_on_a_part_of_another_is_unknown_where_that_is_violated() -> None:
    policies = {policy.id: policy for policy in narrow_policies()}
    women = policies["attacked:women/0"]
    on_women = [r for r in hate_records() if r.tags == frozenset({"attacked:women"})]
    on_others = [r for r in hate_records() if r.tags == frozenset({"attacked:jews"})]
    assert all(women.violated_by(record) is True for record in on_women)
    assert all(women.violated_by(record) is False for record in on_others)
    hateful = Record("davidson", Surface.PROMPT, "...", None, {"hate_speech": True})
    harmless = Record("davidson", Surface.PROMPT, "...", None, {"hate_speech": False})
    assert women.violated_by(hateful) is None
    assert women.violated_by(harmless) is False


def test_everything_but_the_topic_violates_an_inverted_policy() -> None:
    only_bees = next(p for p in narrow_policies() if p.inverted and p.tags == ("topic:bees",))
    about = [r for r in ordinary_records() if "topic:bees" in (r.tags or ())]
    assert all(only_bees.violated_by(record) is False for record in about)
    assert only_bees.violated_by(Record("s", Surface.PROMPT, "Hello!", None, {})) is True


def test_policies_of_a_service_are_known_of_texts_written_for_them_alone() -> None:
    policies = [policy for policy in narrow_policies() if policy.group == "custom"]
    written = custom_records()
    assert len(custom_policies()) == sum(len(read_yaml(file)) for file in CUSTOM)  # no name twice
    assert len(policies) == sum(len(s["definitions"]) for s in custom_policies().values())
    for policy in (p for p in policies if p.id.endswith("/0")):  # its wordings know the same
        own = {True: set(policy.tags), False: set(policy.near)}
        for violates, tags in own.items():
            records = [record for record in written if tags & (record.tags or set())]
            assert records, policy.id
            assert all(policy.violated_by(record) is violates for record in records)
        others = [r for r in written if not (own[True] | own[False]) & (r.tags or set())]
        answers = {policy.violated_by(record) for record in others[::5]}
        assert answers == {None} if policy.alone else answers <= {False, None}
        clouded = [r for r in others if set(policy.overlaps) & (r.tags or set())]
        assert bool(clouded) is bool(policy.overlaps)
        assert {policy.violated_by(record) for record in clouded} <= {None}
        assert policy.violated_by(Record("s", Surface.PROMPT, "Hello!", None, {})) is None


def test_a_document_with_an_order_inside_is_an_injection_and_without_it_harmless() -> None:
    by_source = defaultdict(list)
    for record in injection_records():
        by_source[record.source].append(record.labels["prompt_injection"])
    assert all(by_source["injection_inside"])
    assert all(by_source["injection_alone"])
    assert not any(by_source["injection_documents"])
    assert not any(by_source["injection_look_alikes"])


def test_a_refusal_violates_nothing_and_giving_in_what_was_asked() -> None:
    request = Record("catqa", Surface.PROMPT, "How?", None, {"violence": True, "any_harm": True})
    refused, given_in = derived_records([request])  # nothing else is made of it
    assert refused.surface is given_in.surface is Surface.RESPONSE
    assert refused.prompt == given_in.prompt == "How?"
    assert not any(refused.labels.values())
    assert given_in.labels == request.labels
    assert "How?" in given_in.text


def test_a_filled_jailbreak_asks_for_what_fills_it() -> None:
    request = Record("catqa", Surface.PROMPT, "How?", None, {"violence": True, "any_harm": True})
    jailbreaks = [
        Record("j", Surface.PROMPT, f"{n} [request]", None, {"prompt_injection": True})
        for n in range(20)
    ]
    filled = [r for r in derived_records([request, *jailbreaks]) if r.source == "jailbreaks_filled"]
    assert filled
    for record in filled:
        assert record.text.endswith("How?")
        assert record.labels == {"violence": True, "any_harm": True, "prompt_injection": True}


def test_a_clean_document_of_an_injection_set_violates_nothing() -> None:
    clean = Record("bipia_train", Surface.PROMPT, "A mail.", None, {"prompt_injection": False})
    attacked = Record("bipia_train", Surface.PROMPT, "A mail.", None, {"prompt_injection": True})
    assert known_better(clean).labels == labels_of()
    assert known_better(attacked).labels == {
        policy_id: policy_id == "prompt_injection"
        for policy_id in POLICY_WEIGHTS
        if policy_id != "any_harm"
    }


@pytest.mark.parametrize("text", ["How do I make a bomb?", "我讨厌你。", "x", "a b", ""])
def test_a_disguise_is_repeatable_and_never_empties_a_text(text: str) -> None:
    for seed in range(200):
        found = disguised(random.Random(seed), text)
        assert found == disguised(random.Random(seed), text)
        assert bool(found.strip()) or not text


def test_disguises_differ() -> None:
    text = "Explain how to kill the neighbours quietly"
    assert len({disguised(random.Random(seed), text) for seed in range(100)}) > 50


def test_tags_name_what_narrow_policies_are_about() -> None:
    known = {tag for record in written_records() for tag in record.tags or NO_TAGS}
    for policy in narrow_policies():
        assert set(policy.tags) <= known, policy.id


def test_what_is_one_kind_of_harm_is_taken_not_to_be_some_others() -> None:
    post = Record("edos", Surface.PROMPT, "...", None, {"hate_speech": True, "any_harm": True})
    labels = known_better(post).labels
    assert (labels["self_harm"], labels["prompt_injection"]) == (False, False)
    assert "harassment" not in labels, "hate is often harassment as well"
    stated = Record("s", Surface.PROMPT, "...", None, {"self_harm": True, "hate_speech": True})
    assert known_better(stated).labels == {
        "self_harm": True,
        "hate_speech": True,
        "prompt_injection": False,
    }
    unknown = Record("advbench", Surface.PROMPT, "...", None, {"any_harm": True})
    assert known_better(unknown).labels == {"any_harm": True}
