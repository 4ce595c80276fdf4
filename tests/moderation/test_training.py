"""The training forward is the engine's, its examples are repeatable, its records are licensed."""

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moderation.checkpoints import Classifier
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.training.data import (
    PERMISSIVE_LICENCES,
    POLICY_WEIGHTS,
    Record,
    Sampler,
    contrast_records,
    ordinary_records,
    read_records,
)
from moderation.training.packing import pack
from moderation.training.train import answer_margins, render
from policies import Surface, load_library
from tests.moderation.asking import ask
from tests.moderation.checkpoints_on_disk import SLIDING_WINDOW

_tokens = st.lists(st.integers(20, 800), min_size=1, max_size=2 * SLIDING_WINDOW).map(tuple)
_prompts = st.lists(
    st.builds(
        JudgePrompt,
        prefix=_tokens,
        leaves=st.lists(_tokens, min_size=1, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(prompts=_prompts)
def test_a_packed_row_scores_like_the_engine(
    tiny: dict[str, Classifier], prompts: list[JudgePrompt]
) -> None:
    classifier = tiny["gemma3"]
    tokenizer = classifier.builder.tokenizer
    yes_no = torch.tensor([tokenizer.token_id("Yes"), tokenizer.token_id("No")])
    with torch.inference_mode():
        margins = answer_margins(classifier.model, prompts, yes_no)
    expected = [score for prompt in prompts for score in ask(classifier.engine, prompt)]
    assert torch.sigmoid(margins).tolist() == pytest.approx(expected, abs=1e-4)


def test_the_gradient_of_a_padded_row_is_finite(tiny: dict[str, Classifier]) -> None:

    model = copy.deepcopy(tiny["gemma3"].model).requires_grad_(True)
    prompts = [JudgePrompt((30,) * 40, ((31,),)), JudgePrompt((32,), ((33,),))]
    margins: Any = answer_margins(model, prompts, torch.tensor([40, 41]))
    margins.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_leaf_sees_its_prefix_and_itself() -> None:
    packed = pack([JudgePrompt((5, 6), ((7, 8), (9,)))], window=2)
    assert packed.ids.tolist() == [[5, 6, 7, 8, 9]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert packed.answers.tolist() == [3, 4]
    full, sliding = (packed.masks[f"{kind}_attention"][0, 0].int().tolist() for kind in KINDS)
    assert full == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert sliding == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 1, 0, 0, 1],
    ]


KINDS = ("full", "sliding")


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
    return [*written, *ordinary_records()]


def test_a_draw_depends_on_the_seed_and_its_place_alone(records: list[Record]) -> None:
    library = load_library()
    one, same = (Sampler(records, library, seed=1) for _ in range(2))
    forwards = [one.draw(place) for place in range(60)]
    assert [same.draw(place) for place in reversed(range(60))] == forwards[::-1]
    other = Sampler(records, library, seed=2)
    assert [other.draw(place) for place in range(60)] != forwards


def test_draws_are_balanced_and_never_ask_what_is_unknown(records: list[Record]) -> None:
    sampler = Sampler(records, load_library(), seed=3)
    examples = [sampler.draw(place) for place in range(800)]
    for example in examples:
        assert 1 <= len(example.questions) <= 3
        ids = [question.policy_id for question in example.questions]
        assert len(set(ids)) == len(ids)
        for question in example.questions:
            assert example.record.labels[question.policy_id] == question.violates
    first = [example.questions[0] for example in examples]
    assert {question.policy_id for question in first} == set(POLICY_WEIGHTS)
    assert 0.4 < sum(question.violates for question in first) / len(first) < 0.6


def test_an_example_is_rendered_as_the_moderator_would(
    records: list[Record], small_tokenizer: SafeTokenizer
) -> None:
    builder = PromptBuilder(TEMPLATES["compact"], small_tokenizer)
    sampler = Sampler(records, load_library(), seed=4)
    surfaces = set()
    for place in range(40):
        example = sampler.draw(place)
        surfaces.add(example.record.surface)
        prompt = render(builder, example)
        text = small_tokenizer.decode([*prompt.prefix, *prompt.leaves[0]])
        before = "<bos><start_of_turn>user\n"
        if example.record.surface is Surface.RESPONSE:
            before += f"{example.record.prompt}<end_of_turn>\n<start_of_turn>model\n"
        definition = example.questions[0].definition
        assert text.startswith(f"{before}{example.record.text}<end_of_turn>\nPolicy: {definition}")
        assert len(prompt.leaves) == len(example.questions)
    assert surfaces == {Surface.PROMPT, Surface.RESPONSE}


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
    records = ordinary_records()
    assert len(records) > 400
    assert {record.source for record in records} == {
        "ordinary_requests",
        "ordinary_look_alikes",
        "ordinary_responses",
    }
    for record in records:
        assert record.text.strip()
        assert not re.search(r"\{\w*\}", record.text), record.text
        assert set(record.labels) == set(POLICY_WEIGHTS)
        assert not any(record.labels.values())
        assert (record.prompt is not None) == (record.surface is Surface.RESPONSE)


def test_contrast_records_say_no_for_the_policies_they_do_not_violate() -> None:
    records = contrast_records()
    assert len(records) > 200
    for record in records:
        assert not re.search(r"\{\w*\}", record.text), record.text
    for policy_id in POLICY_WEIGHTS:
        answers = [record.labels[policy_id] for record in records if policy_id in record.labels]
        assert any(answers)
        if policy_id != "any_harm":
            assert not all(answers)


def test_a_source_weight_draws_a_source_more_often(records: list[Record]) -> None:
    def share(weight: float) -> int:
        sampler = Sampler(records, load_library(), seed=3, source_weights={"two": weight})
        return sum(sampler.draw(place).record.source == "two" for place in range(300))

    assert share(8.0) > 2 * share(0.5)


def test_wordings_leave_no_slot_unfilled(records: list[Record]) -> None:
    sampler = Sampler(records, load_library(), seed=5)
    definitions = {
        (question.policy_id, question.definition)
        for place in range(1500)
        for question in sampler.draw(place).questions
    }
    for policy_id in POLICY_WEIGHTS:
        assert sum(found == policy_id for found, _ in definitions) >= 3, "its own and two others"
    for _, definition in definitions:
        assert "{" not in definition
        assert "}" not in definition
