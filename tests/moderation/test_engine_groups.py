"""Leaves of very different lengths, which run in several batches."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from moderation.engine import LocalEngine, group_by_length, violation_scores
from moderation.prompts import JudgePrompt

YES, NO = 7, 8
LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(5)
    config = Gemma3TextConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=7,  # six slide, one sees everything
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=16,
        initializer_range=0.5,  # scores far from one half
    )
    model: Any = Gemma3ForCausalLM(config)  # transformers leaves parts of it untyped
    return model.eval()


@torch.inference_mode()
def plain_score(model: Any, tokens: tuple[int, ...]) -> float:
    hidden = model.model(input_ids=torch.tensor([tokens]), use_cache=False).last_hidden_state
    head = model.get_output_embeddings().weight[[YES, NO]]
    return float(violation_scores(hidden[:, -1], head, None))


@pytest.mark.parametrize("num_prefix", [5, 60])
@pytest.mark.parametrize("lengths", [(9,), (30, 9), (40, 3, 90, 41, 3, 5, 88, 42), (1, 100, 1)])
def test_scores_equal_a_plain_forward_a_leaf_whatever_their_lengths(
    model: Any, num_prefix: int, lengths: tuple[int, ...]
) -> None:
    draw = torch.Generator().manual_seed(sum(lengths) + num_prefix)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 50, (count,), generator=draw).tolist())

    prompt = JudgePrompt(tokens(num_prefix), tuple(map(tokens, lengths)))
    engine = LocalEngine(model, yes_id=YES, no_id=NO, max_prompt_tokens=512)

    scores = engine.p_yes(prompt)

    expected = [plain_score(model, prompt.prefix + leaf) for leaf in prompt.leaves]
    assert scores == pytest.approx(expected, abs=1e-4)
    if len(set(lengths)) > 1:  # a mix-up of the order would show
        assert max(expected) - min(expected) > 1e-3


@given(lengths=LENGTHS, slack=st.integers(0, 300))
def test_groups_hold_every_leaf_once(lengths: list[int], slack: int) -> None:
    groups = group_by_length(lengths, slack=slack)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))


@given(lengths=LENGTHS, slack=st.integers(0, 300))
def test_a_leaf_never_adds_more_padding_than_a_forward_costs(
    lengths: list[int], slack: int
) -> None:
    for group in group_by_length(lengths, slack=slack):
        ordered = [lengths[index] for index in group]
        steps = itertools.pairwise(ordered)
        assert all((b - a) * (i + 1) <= slack for i, (a, b) in enumerate(steps))
