"""The engine beyond one whole prompt: the compositional layout, kept policies, growing content."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Gemma2ForCausalLM, Gemma3ForCausalLM

from moderation import gemma
from moderation.checkpoints import Classifier
from moderation.engine import LocalEngine, violation_scores
from moderation.growing import GrowingContent
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from policies import Surface
from tests.moderation.asking import ask, computed_rows
from tests.moderation.checkpoints_on_disk import SLIDING_WINDOW
from tests.moderation.test_engine import TOLERANCE, full_prompts, plain_forward, prompts

MODELS: dict[str, Any] = {"gemma2": Gemma2ForCausalLM, "gemma3": Gemma3ForCausalLM}

_ids = st.integers(min_value=20, max_value=800)  # past the control tokens


def tokens(longest: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(_ids, min_size=1, max_size=longest).map(tuple)


compositional = st.builds(
    JudgePrompt,
    prefix=tokens(3 * SLIDING_WINDOW),
    leaves=st.lists(tokens(3 * SLIDING_WINDOW), min_size=1, max_size=4).map(tuple),
    query=tokens(4),
)
exhaustive = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def models(checkpoint_dirs: dict[str, Path]) -> dict[str, Any]:
    """Transformers' own, with masks that are added to the products."""
    return {
        name: model_class.from_pretrained(
            checkpoint_dirs[name], dtype=torch.float32, attn_implementation="eager"
        ).eval()
        for name, model_class in MODELS.items()
    }


@torch.inference_mode()
def masked_forward(model: Any, prompt: JudgePrompt, answers: Sequence[int]) -> list[float]:
    """One row a policy, policy before content before query, with the layout's mask: neither of
    policy and content sees the other, and both end where the query begins."""
    scores = []
    for leaf in prompt.leaves:
        sizes = [len(leaf), len(prompt.prefix), len(prompt.query)]
        begin = max(sizes[:2])  # position of the query
        starts = [begin - sizes[0], begin - sizes[1], begin]
        positions = torch.cat(
            [torch.arange(at, at + size) for at, size in zip(starts, sizes, strict=True)]
        )
        part = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
        sees = (part[:, None] == part[None]) | (part[:, None] == 2)
        distance = positions[:, None] - positions[None]
        sees &= distance >= 0
        masks = {
            "full_attention": sees,
            "sliding_attention": sees & (distance < model.config.sliding_window),
        }
        hidden = model.model(
            input_ids=torch.tensor([leaf + prompt.prefix + prompt.query]),
            position_ids=positions[None],
            attention_mask={
                kind: torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)[None, None]
                for kind, mask in masks.items()
            },
            use_cache=False,
        ).last_hidden_state
        rows = model.get_output_embeddings().weight[list(answers)]
        softcap = getattr(model.config, "final_logit_softcapping", None)
        scores.append(float(violation_scores(hidden[:, -1], rows, softcap)))
    return scores


def answers_of(classifier: Classifier) -> list[int]:
    tokenizer = classifier.builder.tokenizer
    return [tokenizer.token_id("Yes"), tokenizer.token_id("No")]


@pytest.mark.parametrize("name", MODELS)
@exhaustive
@given(prompt=compositional)
def test_the_compositional_layout_scores_like_a_plain_forward_with_its_mask(
    tiny: dict[str, Classifier], models: dict[str, Any], name: str, prompt: JudgePrompt
) -> None:
    expected = masked_forward(models[name], prompt, answers_of(tiny[name]))
    engine = tiny[name].engine
    assert ask(engine, prompt) == pytest.approx(expected, abs=TOLERANCE), "policies computed"
    assert ask(engine, prompt) == pytest.approx(expected, abs=TOLERANCE), "policies kept"


@exhaustive
@given(prompt=compositional)
def test_a_policys_score_depends_on_no_other_policy(
    tiny: dict[str, Classifier], prompt: JudgePrompt
) -> None:
    engine = tiny["gemma3"].engine
    alone = [
        ask(engine, JudgePrompt(prompt.prefix, (leaf,), prompt.query))[0] for leaf in prompt.leaves
    ]
    assert ask(engine, prompt) == pytest.approx(alone, abs=TOLERANCE)


def test_a_kept_policy_is_not_computed_again_and_the_longest_unused_is_forgotten(
    tiny: dict[str, Classifier],
) -> None:
    model = tiny["gemma3"].model
    engine = LocalEngine(model, yes_id=21, no_id=22, max_prompt_tokens=64, kept_tokens=10)

    def put(*policies: tuple[int, ...]) -> None:
        ask(engine, JudgePrompt((30, 31), policies, (40,)))

    first, second, third = (50, 51, 52, 53), (60, 61, 62, 63), (70, 71, 72, 73)
    with computed_rows(model) as rows:
        put(first, second)
        put(first, second)
        put(first, third)  # 12 tokens are too many: the second goes
        put(first, second)
    assert rows[:2] == [2 + 4 + 4 + 2, 2 + 2]
    assert rows[2:] == [2 + 4 + 2, 2 + 4 + 2]


@pytest.mark.parametrize("name", MODELS)
@exhaustive
@given(data=st.data())
def test_a_kept_preamble_changes_no_score(
    tiny: dict[str, Classifier], name: str, data: st.DataObject
) -> None:
    engine = tiny[name].engine
    preamble = data.draw(tokens(2 * SLIDING_WINDOW))
    for prompt in data.draw(st.lists(st.one_of(prompts, compositional), min_size=1, max_size=3)):
        whole = replace(prompt, prefix=preamble + prompt.prefix)
        expected = ask(engine, whole)
        kept = replace(whole, num_static=len(preamble))
        assert ask(engine, kept) == pytest.approx(expected, abs=TOLERANCE)
        assert ask(engine, kept) == pytest.approx(expected, abs=TOLERANCE), "again"
        assert ask(engine, kept, growing=GrowingContent()) == pytest.approx(expected, abs=TOLERANCE)


def test_a_preamble_is_computed_once(tiny: dict[str, Classifier]) -> None:
    engine = LocalEngine(tiny["gemma3"].model, yes_id=21, no_id=22, max_prompt_tokens=64)
    with computed_rows(tiny["gemma3"].model) as rows:
        for content in (50, 51):
            ask(engine, JudgePrompt((30, 31, 32, content), ((40,),), num_static=3))
    assert rows == [3 + 1 + 1, 1 + 1]


growths = st.lists(tokens(SLIDING_WINDOW), min_size=1, max_size=6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("query", [(), (35, 36)])
@exhaustive
@given(data=st.data(), pieces=growths)
def test_a_growing_content_scores_like_a_fresh_one_at_every_length(
    tiny: dict[str, Classifier],
    name: str,
    query: tuple[int, ...],
    data: st.DataObject,
    pieces: list[tuple[int, ...]],
) -> None:
    """Between two calls the last tokens may change: a word that goes on is tokenised anew."""
    engine = tiny[name].engine
    assert isinstance(engine, LocalEngine)
    leaves = data.draw(st.lists(tokens(SLIDING_WINDOW), min_size=1, max_size=3).map(tuple))
    growing, content = GrowingContent(), tuple[int, ...]()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gemma, "MAX_LAST_TOKENS", data.draw(st.integers(0, SLIDING_WINDOW)))
        for piece in pieces:
            back = min(len(content), data.draw(st.one_of(st.integers(0, 3), st.integers(0, 60))))
            content = content[: len(content) - back] + piece
            prompt = JudgePrompt(content, leaves, query)
            fresh = pytest.approx(ask(engine, prompt), abs=TOLERANCE)
            assert ask(engine, prompt, growing=growing) == fresh
            assert ask(engine, prompt, growing=growing) == fresh, "again"


def test_a_growing_content_costs_its_new_tokens(tiny: dict[str, Classifier]) -> None:
    engine = LocalEngine(tiny["gemma3"].model, yes_id=21, no_id=22, max_prompt_tokens=1024)
    growing = GrowingContent()
    with computed_rows(tiny["gemma3"].model) as rows:
        for length in (100, 120, 140):
            content = tuple(range(30, 30 + length))
            ask(engine, JudgePrompt(content, ((40, 41),), (35,)), growing=growing)
    assert rows == [100 + 2 + 1, 20 + 1, 20 + 1]


def test_most_of_a_growing_content_is_not_copied_each_time(tiny: dict[str, Classifier]) -> None:
    engine = LocalEngine(tiny["gemma3"].model, yes_id=21, no_id=22, max_prompt_tokens=1024)
    growing = GrowingContent()
    kept = []
    for length in (100, 200, 300, 400, 500):
        content = (30, 31, 32, 33, 34) * (length // 5)
        ask(engine, JudgePrompt(content, ((40, 41),), (35,)), growing=growing)
        kept.append(growing.kept)
    assert [[len(each.tokens) for each in segments] for segments in kept] == [
        [100],
        [100, 100],
        [100, 200],
        [400],
        [400, 100],
    ]
    assert kept[0][0] is kept[1][0] is kept[2][0]


@pytest.mark.model
def test_the_embedded_model_in_both_layouts_and_grown(embedded: Classifier) -> None:
    """600 tokens reach past its sliding window of 512."""
    engine = embedded.engine
    assert isinstance(engine, LocalEngine)
    words = embedded.builder.content_tokens("The quick brown fox jumps over the lazy dog. " * 80)
    policies = ["The prompt shall not contain insults.", "Anything harmful. " * 8]
    builder = PromptBuilder(TEMPLATES["compositional"], embedded.builder.tokenizer)
    prompt = builder.text_prompt(Surface.PROMPT, words.ids[:600], policies)
    model: Any = embedded.model
    model.set_attn_implementation("eager")  # takes masks that are added
    expected = masked_forward(model, prompt, answers_of(embedded))
    model.set_attn_implementation("sdpa")
    assert ask(engine, prompt) == pytest.approx(expected, abs=TOLERANCE)
    growing = GrowingContent()
    for length in (1, 300, 599, 600):
        grown = builder.text_prompt(Surface.PROMPT, words.ids[:length], policies)
        found = ask(engine, grown, growing=growing)
    assert found == pytest.approx(expected, abs=TOLERANCE)
    content_first = PromptBuilder(TEMPLATES["compact"], embedded.builder.tokenizer)
    compact = content_first.text_prompt(Surface.PROMPT, words.ids[:600], policies)
    plain = plain_forward(embedded.model, embedded)
    assert ask(engine, compact, growing=growing) == pytest.approx(
        [plain(ids, None) for ids in full_prompts(compact)], abs=TOLERANCE
    )
