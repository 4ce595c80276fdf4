"""The judge prompts are those that the models were trained with, to the byte and to the token."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    Gemma3ImageProcessorPil,
    ShieldGemma2ForImageClassification,
    ShieldGemma2Processor,
)

from moderation.checkpoints import Classifier
from moderation.errors import UnsupportedModality
from moderation.prompts import PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from policies import Surface, load_library
from tests.moderation.asking import ask
from tests.moderation.checkpoints_on_disk import IMAGE_TOKENS
from tests.moderation.shieldgemma2_template import CHAT_TEMPLATE

# Google's cookbook, responsible/shieldgemma_on_huggingface.ipynb, verbatim
PROMPT_ONLY_TEMPLATE = """You are a policy expert trying to help determine
whether a user prompt is in violation of the defined safety policies.

<start_of_turn>
Human Question: {user_content}
<end_of_turn>

Our safety principle is defined in the below:

* {harm_text}

===

Does the human question violate the above principle? Your answer must start with
'Yes' or 'No'. And then walk through step by step to be sure we answer
correctly.

"""
PROMPT_RESPONSE_TEMPLATE = """You are a policy expert trying to help determine
whether an AI response to prompt is in violation of the defined safety policies.

<start_of_turn>
Human Question: {user_content}
<end_of_turn>

<start_of_turn>
Chatbot Response: {model_content}
<end_of_turn>

Our safety principle is defined in the below:

* {harm_text}

===

Does the Chatbot Response violate the above principle? Your answer must start
with 'Yes' or 'No'. And then walk through step by step to be sure  we answer
correctly.

"""
QUESTION = "How do I bake bread?"
ANSWER = "Mix flour, water and salt.\n\nThen bake it (230 °C)."


def policy_texts(surface: Surface) -> list[str]:
    policies = load_library().policies.values()
    return [text for policy in policies if (text := policy.definition_for(surface))]


def shieldgemma1_prompts(tokenizer: SafeTokenizer) -> list[tuple[tuple[int, ...], str]]:
    """(ids, the text that they must stand for), for every policy of the catalogue."""
    builder = PromptBuilder(TEMPLATES["shieldgemma1"], tokenizer)
    found = []
    definitions = policy_texts(Surface.PROMPT)
    prompt = builder.text_prompt(Surface.PROMPT, builder.content_tokens(QUESTION).ids, definitions)
    for leaf, harm_text in zip(prompt.leaves, definitions, strict=True):
        text = PROMPT_ONLY_TEMPLATE.format(user_content=QUESTION, harm_text=harm_text)
        found.append(((*prompt.prefix, *leaf), text))
    definitions = policy_texts(Surface.RESPONSE)
    prompt = builder.text_prompt(
        Surface.RESPONSE,
        builder.content_tokens(ANSWER).ids,
        definitions,
        context=builder.content_tokens(QUESTION).ids,
    )
    for leaf, harm_text in zip(prompt.leaves, definitions, strict=True):
        text = PROMPT_RESPONSE_TEMPLATE.format(
            user_content=QUESTION, model_content=ANSWER, harm_text=harm_text
        )
        found.append(((*prompt.prefix, *leaf), text))
    return found


def test_shieldgemma_1_prompts_are_the_cookbooks_byte_for_byte(
    small_tokenizer: SafeTokenizer,
) -> None:
    for ids, text in shieldgemma1_prompts(small_tokenizer):
        assert small_tokenizer.decode(list(ids)) == "<bos>" + text


def test_shieldgemma_1_prompts_have_the_tokens_of_the_joined_text(
    small_tokenizer: SafeTokenizer,
) -> None:
    for ids, text in shieldgemma1_prompts(small_tokenizer):
        assert ids == small_tokenizer.template("<bos>" + text)


@pytest.mark.model
def test_shieldgemma_1_prompts_have_the_tokens_of_the_joined_text_in_gemmas_tokenizer(
    embedded: Classifier,
) -> None:
    tokenizer = embedded.builder.tokenizer
    for ids, text in shieldgemma1_prompts(tokenizer):
        assert ids == tokenizer.template("<bos>" + text)


def processor_of(folder: Path, image_tokens: int) -> Any:
    processor: Any = ShieldGemma2Processor  # transformers leaves it untyped
    return processor(
        Gemma3ImageProcessorPil.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        chat_template=CHAT_TEMPLATE,
        image_seq_length=image_tokens,
    )


@pytest.fixture(scope="module")
def processor(checkpoint_dirs: dict[str, Path]) -> Any:
    return processor_of(checkpoint_dirs["shieldgemma2"], IMAGE_TOKENS)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    image = Image.linear_gradient("L").resize((90, 70)).convert("RGB")
    image.paste((200, 30, 30), (10, 10, 50, 40))
    return image


def test_shieldgemma_2_prompts_are_the_rendered_chat_template_byte_for_byte(
    tiny: dict[str, Classifier], processor: Any
) -> None:
    builder = tiny["shieldgemma2"].builder
    for text in policy_texts(Surface.IMAGE):
        conversation = {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": text}],
        }
        rendered = processor.apply_chat_template([conversation], tokenize=False)
        words = builder.template.surfaces[Surface.IMAGE]
        ours = words.before_content + words.before_policy + text + words.after_policy
        assert "<bos>" + ours == rendered


def test_shieldgemma_2_scores_are_those_of_its_own_processor_and_class(
    tiny: dict[str, Classifier],
    checkpoint_dirs: dict[str, Path],
    processor: Any,
    picture: Image.Image,
) -> None:
    """From one image to probabilities, the double `<bos>` of the processor included."""
    classifier = tiny["shieldgemma2"]
    assert classifier.to_pixels is not None
    texts = policy_texts(Surface.IMAGE)
    prompt = classifier.builder.image_prompt(texts)
    found = ask(classifier.engine, prompt, pixels=classifier.to_pixels(picture))
    model: Any = ShieldGemma2ForImageClassification.from_pretrained(
        checkpoint_dirs["shieldgemma2"], dtype=torch.float32
    )
    for leaf, text, score in zip(prompt.leaves, texts, found, strict=True):
        inputs = processor(
            images=[picture],
            custom_policies={"asked": text},
            policies=["asked"],
            return_tensors="pt",
        )
        ids = inputs["input_ids"][0].tolist()
        assert ids[:2] == [2, 2]
        assert (*prompt.prefix, *leaf) == tuple(ids)
        with torch.inference_mode():
            probabilities = model.eval()(**inputs).probabilities
        assert score == pytest.approx(float(probabilities[0, 0]), abs=1e-4)


@pytest.mark.model
def test_shieldgemma_2_prompts_have_the_processors_tokens_in_gemmas_tokenizer(
    embedded: Classifier, cache_dir: Path, tmp_path: Path, picture: Image.Image
) -> None:
    """The embedded base's tokenizer with the image tokens that the multimodal models declare."""
    from moderation.embedded.base import ensure_base

    images = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    loaded = AutoTokenizer.from_pretrained(ensure_base(cache_dir), extra_special_tokens=images)
    loaded.save_pretrained(tmp_path)
    Gemma3ImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    tokenizer = SafeTokenizer((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    soft = "<image_soft_token>" * 256
    builder = PromptBuilder(
        TEMPLATES["shieldgemma2"],
        tokenizer,
        image_text=f"\n\n<start_of_image>{soft}<end_of_image>\n\n",
    )
    processor = processor_of(tmp_path, 256)
    for text in [*policy_texts(Surface.IMAGE), *processor.policy_definitions.values()]:
        prompt = builder.image_prompt([text])
        inputs = processor(images=[picture], custom_policies={"it": text}, policies=["it"])
        assert [*prompt.prefix, *prompt.leaves[0]] == list(inputs["input_ids"][0])


def test_compact_prompts_are_pinned(small_tokenizer: SafeTokenizer) -> None:
    """The adapter was trained on exactly these; another text needs another training."""
    builder = PromptBuilder(TEMPLATES["compact"], small_tokenizer)
    prompt = builder.text_prompt(
        Surface.RESPONSE,
        builder.content_tokens("An answer.").ids,
        ["No insults."],
        context=builder.content_tokens("A question?").ids,
    )
    assert small_tokenizer.decode([*prompt.prefix, *prompt.leaves[0]]) == (
        "<bos><start_of_turn>user\nA question?<end_of_turn>\n<start_of_turn>model\nAn answer."
        "<end_of_turn>\nPolicy: No insults.\nIs the policy violated? Yes or No:<start_of_turn>"
        "model\n"
    )
    prompt = builder.text_prompt(
        Surface.PROMPT, builder.content_tokens("A question?").ids, ["No insults."]
    )
    assert small_tokenizer.decode([*prompt.prefix, *prompt.leaves[0]]) == (
        "<bos><start_of_turn>user\nA question?<end_of_turn>\nPolicy: No insults.\nIs the policy"
        " violated? Yes or No:<start_of_turn>model\n"
    )


def test_a_surface_without_words_is_refused(tiny: dict[str, Classifier]) -> None:
    with pytest.raises(UnsupportedModality, match="'shieldgemma2' has no words for surface"):
        tiny["shieldgemma2"].builder.text_prompt(Surface.PROMPT, (5,), ["No insults."])
    with pytest.raises(UnsupportedModality, match="it judges: prompt, response"):
        tiny["gemma2"].builder.image_prompt(["No insults."])


def test_a_leaf_is_rendered_once_and_never_depends_on_its_neighbours(
    tiny: dict[str, Classifier],
) -> None:
    builder = tiny["gemma2"].builder
    both = builder.text_prompt(Surface.PROMPT, (30,), ["No insults.", "No violence."])
    one = builder.text_prompt(Surface.PROMPT, (31, 32), ["No violence."])
    assert both.leaves[1] == one.leaves[0] == builder.leaf_tokens(Surface.PROMPT, "No violence.")
    assert both.longest == len(both.prefix) + max(map(len, both.leaves))
    assert both.num_tokens == len(both.prefix) + sum(map(len, both.leaves))
