"""Images in the generator, on a tiny random Gemma 3 with a vision tower, against transformers' own
processor and `generate`."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PIL
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
)

import service.generator
from moderation.embedded.base import EmbeddedBase
from moderation.errors import ContentTooLong, ModelRefused, ModelUnavailable
from moderation.media.images import ImageLimits
from service.chat import Chat, Image, Message, Role, Sampling
from service.errors import BadRequest
from service.generation import End
from service.generator import GemmaGenerator, load_generator
from service.sampling import Sampler
from service.vision import MAX_IMAGES
from tests.moderation.checkpoints_on_disk import (
    CONTEXT_TOKENS,
    IMAGE_TOKENS,
    edit_config,
    write_gemma3_with_images,
)
from tests.moderation.media import animation, plain, video
from tests.service.gemma3_template import CHAT_TEMPLATE

NUM_TOKENS = 8

Turn = tuple[Role, Sequence[str | PIL.Image]]


def gradient(colour: str) -> PIL.Image:
    image = PIL.linear_gradient("L").resize((90, 70)).convert("RGB")
    image.paste(colour, (10, 10, 50, 40))
    return image


RED, BLUE = gradient("red"), gradient("blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instruction-tuned Gemma 3 with images."""
    folder = write_gemma3_with_images(tmp_path_factory.mktemp("gemma3"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def load(folder: Path, **more: Any) -> GemmaGenerator:
    return load_generator(str(folder), base=EmbeddedBase(folder), dtype="float32", **more)


@pytest.fixture(scope="module")
def generator(folder: Path) -> GemmaGenerator:
    return load(folder)


def file_of(image: PIL.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def chat(*turns: Turn, max_tokens: int = NUM_TOKENS) -> Chat:
    return Chat(
        messages=tuple(
            Message(
                role,
                tuple(
                    part if isinstance(part, str) else Image(file_of(part), "there")
                    for part in parts
                ),
            )
            for role, parts in turns
        ),
        sampling=Sampling(temperature=0.0),
        stop=(),
        max_tokens=max_tokens,
    )


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the generator draws its tokens from, one after another."""
    seen: list[Tensor] = []
    pick = Sampler.pick

    def recorded(sampler: Sampler, logits: Tensor) -> int:
        seen.append(logits.clone())
        return pick(sampler, logits)

    monkeypatch.setattr(Sampler, "pick", recorded)
    return seen


def generate(generator: GemmaGenerator, asked: Chat) -> tuple[str, End]:
    pieces: list[str] = []
    end = generator.generate(
        generator.encode(asked),
        asked,
        emit=lambda piece: pieces.append(piece.text),
        has_left=lambda: False,
    )
    return "".join(pieces), end


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """transformers' model and processor."""
    processor: Any = Gemma3Processor  # transformers leaves it untyped
    return (
        Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval(),
        processor(
            Gemma3ImageProcessorPil.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
            chat_template=CHAT_TEMPLATE,
            image_seq_length=IMAGE_TOKENS,
        ),
    )


def generated_by_transformers(theirs: Any, turns: Sequence[Turn]) -> tuple[list[int], Any]:
    """The ids of a prompt, and what follows it."""
    model, processor = theirs
    conversation = [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image", "image": part}
                for part in parts
            ],
        }
        for role, parts in turns
    ]
    inputs = processor.apply_chat_template(
        conversation,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    out = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=NUM_TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return inputs["input_ids"][0].tolist(), out


CONVERSATIONS: dict[str, list[Turn]] = {
    "behind the text": [("user", ["What is this?", RED])],
    "before the text": [("user", [RED, "What is this?"])],
    "between texts": [("user", ["Look at", RED, " and tell me what it is.\n"])],
    "alone": [("user", [RED])],
    "two": [("user", ["Which of", RED, "and", BLUE, "is red?"])],
    "two in a row": [("user", [RED, BLUE])],
    "behind a system prompt": [("system", ["Be brief.\n"]), ("user", [RED, "What is this?"])],
    "in two turns": [
        ("user", ["What is this?", RED]),
        ("assistant", ["A boat."]),
        ("user", [BLUE, "And this?"]),
    ],
}


@pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_prompt_and_logits_are_those_of_transformers(
    generator: GemmaGenerator, theirs: Any, logits: list[Tensor], turns: list[Turn]
) -> None:
    ids, expected = generated_by_transformers(theirs, turns)
    asked = chat(*turns)
    assert list(generator.encode(asked)) == ids
    generate(generator, asked)
    assert len(logits) == NUM_TOKENS
    for own, their in zip(logits, expected.logits, strict=True):
        torch.testing.assert_close(own, their[0].float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", range(1, 14))
def test_no_chunk_of_a_prompt_cuts_an_image(
    generator: GemmaGenerator,
    theirs: Any,
    logits: list[Tensor],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    turns = CONVERSATIONS["in two turns"]
    _, expected = generated_by_transformers(theirs, turns)
    monkeypatch.setattr(service.generator, "PREFILL_TOKENS", size)
    generate(generator, chat(*turns))
    for own, their in zip(logits, expected.logits, strict=True):
        torch.testing.assert_close(own, their[0].float(), atol=1e-4, rtol=1e-4)
