"""The engine's scores are those of the plain forward, one prompt at a time, in float32."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    ShieldGemma2ForImageClassification,
)

from moderation.checkpoints import Classifier
from moderation.engine import LocalEngine, violation_scores
from moderation.errors import EngineError, Unscorable
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from policies import Surface
from tests.moderation.asking import ask
from tests.moderation.checkpoints_on_disk import IMAGE_SIDE, SLIDING_WINDOW

TOLERANCE = 1e-4
"""The contract; what is found is about 1e-6."""

Plain = Callable[[tuple[int, ...], Tensor | None], float]
"""P(Yes) of one whole prompt through a public class of transformers."""

_ids = st.integers(min_value=20, max_value=800)  # past the control tokens


def _tokens(longest: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(_ids, min_size=1, max_size=longest).map(tuple)


prompts = st.builds(
    JudgePrompt,
    prefix=_tokens(3 * SLIDING_WINDOW),
    leaves=st.lists(_tokens(2 * SLIDING_WINDOW), min_size=1, max_size=5).map(tuple),
)


@pytest.fixture(scope="module")
def plain(checkpoint_dirs: dict[str, Path], tiny: dict[str, Classifier]) -> dict[str, Plain]:
    classes: dict[str, Any] = {
        "gemma2": Gemma2ForCausalLM,
        "gemma3": Gemma3ForCausalLM,
        "gemma3_with_images": Gemma3ForConditionalGeneration,
        "shieldgemma2": ShieldGemma2ForImageClassification,
    }
    return {
        name: plain_forward(
            model_class.from_pretrained(checkpoint_dirs[name], dtype=torch.float32).eval(),
            tiny[name],
        )
        for name, model_class in classes.items()
    }


def plain_forward(model: Any, classifier: Classifier) -> Plain:
    """One prompt at a time, all logits, no cache of ours."""
    tokenizer = classifier.builder.tokenizer
    answers = [tokenizer.token_id("Yes"), tokenizer.token_id("No")]

    @torch.inference_mode()
    def p_yes(ids: tuple[int, ...], pixels: Tensor | None = None) -> float:
        inputs = {"input_ids": torch.tensor([ids])}
        if pixels is not None:
            inputs["pixel_values"] = pixels
            inputs["token_type_ids"] = inputs["input_ids"].eq(model.config.image_token_id).long()
        output = model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]))
        if isinstance(model, ShieldGemma2ForImageClassification):
            return float(output.probabilities[0, 0])
        return float(output.logits[0, -1, answers].softmax(-1)[0])

    return p_yes


def full_prompts(prompt: JudgePrompt) -> list[tuple[int, ...]]:
    return [(*prompt.prefix, *leaf) for leaf in prompt.leaves]


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "gemma3_with_images", "shieldgemma2"])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(prompt=prompts)
def test_a_shared_prefix_scores_like_whole_prompts(
    tiny: dict[str, Classifier], plain: dict[str, Plain], name: str, prompt: JudgePrompt
) -> None:
    found = ask(tiny[name].engine, prompt)
    expected = [plain[name](ids, None) for ids in full_prompts(prompt)]
    assert found == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("name", ["gemma3_with_images", "shieldgemma2"])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    leaves=st.lists(_tokens(2 * SLIDING_WINDOW), min_size=1, max_size=4), seed=st.integers(0, 99)
)
def test_an_image_in_the_prefix_scores_like_whole_prompts(
    tiny: dict[str, Classifier],
    plain: dict[str, Plain],
    name: str,
    leaves: list[tuple[int, ...]],
    seed: int,
) -> None:
    prefix = tiny[name].builder.image_prompt(["No violence."]).prefix
    prompt = JudgePrompt(prefix, tuple(leaves))
    pixels = random_pixels(seed)
    found = ask(tiny[name].engine, prompt, pixels=pixels)
    expected = [plain[name](ids, pixels) for ids in full_prompts(prompt)]
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_the_score_depends_on_the_image(tiny: dict[str, Classifier]) -> None:
    classifier = tiny["shieldgemma2"]
    prefix = classifier.builder.image_prompt(["No violence."]).prefix
    prompt = JudgePrompt(prefix, tuple((token,) for token in range(30, 50)))
    dark, light = (
        ask(classifier.engine, prompt, pixels=torch.full((1, 3, IMAGE_SIDE, IMAGE_SIDE), value))
        for value in (-1.0, 1.0)
    )
    assert max(abs(one - other) for one, other in zip(dark, light, strict=True)) > 0.05


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(prompt=prompts, data=st.data())
def test_neither_order_nor_number_of_leaves_matters(
    tiny: dict[str, Classifier], prompt: JudgePrompt, data: st.DataObject
) -> None:
    engine = tiny["gemma3"].engine
    together = ask(engine, prompt)
    order = data.draw(st.permutations(range(len(prompt.leaves))))
    shuffled = JudgePrompt(prompt.prefix, tuple(prompt.leaves[place] for place in order))
    assert ask(engine, shuffled) == pytest.approx(
        [together[place] for place in order], abs=TOLERANCE
    )
    alone = [ask(engine, JudgePrompt(prompt.prefix, (leaf,)))[0] for leaf in prompt.leaves]
    assert alone == pytest.approx(together, abs=TOLERANCE)


def test_the_final_softcap_is_part_of_a_gemma_2_score(tiny: dict[str, Classifier]) -> None:
    hidden = torch.full((1, 2), 3.0)
    rows = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    capped = violation_scores(hidden, rows, 3.0)
    assert float(capped) == pytest.approx(
        float(torch.softmax(torch.tanh(torch.tensor([6.0, 3.0]) / 3) * 3, -1)[0])
    )
    assert float(capped) != pytest.approx(float(violation_scores(hidden, rows, None)), abs=0.05)


def test_a_higher_yes_logit_is_a_higher_score() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # Yes reads the first number, No the second
    scores = violation_scores(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), rows, None)
    assert scores[0] == 0.5
    assert scores[1] > 0.8
    assert scores[2] < 0.2


def test_raising_the_models_yes_logit_raises_the_score(tiny: dict[str, Classifier]) -> None:
    classifier = tiny["gemma3"]
    tokenizer = classifier.builder.tokenizer
    yes, no = tokenizer.token_id("Yes"), tokenizer.token_id("No")
    prompt = JudgePrompt((2, 30, 31), ((40, 41),))
    straight = ask(classifier.engine, prompt)[0]
    swapped = LocalEngine(classifier.model, yes_id=no, no_id=yes, max_prompt_tokens=1024)
    assert ask(swapped, prompt)[0] == pytest.approx(1 - straight, abs=1e-6)
    logits = classifier.model(input_ids=torch.tensor([[2, 30, 31, 40, 41]])).logits[0, -1]
    assert (straight > 0.5) == bool(logits[yes] > logits[no])


def test_a_model_that_answers_nan_is_unscorable(tiny: dict[str, Classifier]) -> None:
    model = cast(Any, copy.deepcopy(tiny["gemma3"].model))
    with torch.no_grad():
        model.get_input_embeddings().weight[40] = float("nan")
    engine = LocalEngine(model, yes_id=21, no_id=22, max_prompt_tokens=1024)
    assert 0 <= ask(engine, JudgePrompt((2, 30), ((31,),)))[0] <= 1
    with pytest.raises(Unscorable, match="no probability"):
        ask(engine, JudgePrompt((2, 40), ((31,),)))


def test_a_failing_forward_is_an_engine_error(tiny: dict[str, Classifier]) -> None:
    classifier = tiny["shieldgemma2"]
    prompt = JudgePrompt((2, 30), ((31,),))  # no placeholder for the image
    with pytest.raises(EngineError, match=r"the forward of 3 tokens failed \(\w+\)"):
        ask(classifier.engine, prompt, pixels=random_pixels(0))


def random_pixels(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, IMAGE_SIDE, IMAGE_SIDE, generator=generator) * 2 - 1


@pytest.mark.model
@pytest.mark.parametrize("content_tokens", [0, 40, 600])
def test_the_embedded_model_scores_like_whole_prompts(
    embedded: Classifier, content_tokens: int
) -> None:
    """600 tokens reach past its sliding window of 512."""
    words = embedded.builder.content_tokens("The quick brown fox jumps over the lazy dog. " * 80)
    prompt = PromptBuilder(TEMPLATES["compact"], embedded.builder.tokenizer).text_prompt(
        Surface.PROMPT,
        words.ids[:content_tokens],
        ["The prompt shall not contain insults.", "No violence.", "Anything harmful. " * 8],
    )
    plain = plain_forward(embedded.model, embedded)
    expected = [plain(ids, None) for ids in full_prompts(prompt)]
    assert ask(embedded.engine, prompt) == pytest.approx(expected, abs=TOLERANCE)
