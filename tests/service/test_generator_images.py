"""Images in the generator, on a tiny random Gemma 3 with a vision tower, against transformers' own
processor and `generate`."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
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
from moderation.moderator import Moderator
from service.chat import Chat, Image, Message, Role, Sampling
from service.errors import BadRequest
from service.generation import End
from service.generator import GemmaGenerator, load_generator
from service.models import load_generator as load_generator_of
from service.sampling import Sampler
from service.vision import MAX_IMAGES
from tests.moderation.checkpoints_on_disk import (
    CONTEXT_TOKENS,
    IMAGE_TOKENS,
    edit_config,
    write_gemma3,
    write_gemma3_with_images,
)
from tests.moderation.media import animation, plain, video
from tests.service.gemma3_template import CHAT_TEMPLATE
from tests.service.scripted import (
    LIBRARY,
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    error_of,
    scripted_moderator,
    serving,
    settings,
)
from tests.service.test_moderations import WidthReader, image_part

NUM_TOKENS = 8

Turn = tuple[Role, Sequence[str | PIL.Image]]


def gradient(colour: str, size: tuple[int, int] = (90, 70)) -> PIL.Image:
    image = PIL.linear_gradient("L").resize(size).convert("RGB")
    image.paste(colour, (10, 10, 50, 40))
    return image


RED, BLUE = gradient("red"), gradient("blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instruction-tuned Gemma 3 with images."""
    folder = write_gemma3_with_images(tmp_path_factory.mktemp("gemma3"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def load(folder: Path) -> GemmaGenerator:
    return load_generator(str(folder), base=EmbeddedBase(folder), dtype="float32")


@pytest.fixture(scope="module")
def generator(folder: Path) -> GemmaGenerator:
    return load(folder)


def file_of(image: PIL.Image, file_format: str = "PNG") -> bytes:
    data = io.BytesIO()
    image.save(data, file_format)
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
    processor: Any = Gemma3Processor  # transformers leaves both untyped
    model: Any = Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return (
        model.eval(),
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


def test_another_image_and_another_order_give_other_logits(
    generator: GemmaGenerator, logits: list[Tensor]
) -> None:
    for images in ([RED, RED], [RED, BLUE], [BLUE, RED]):
        generate(generator, chat(("user", ["Compare.", *images]), max_tokens=1))
    for one, other in combinations(logits, 2):
        assert not torch.allclose(one, other, atol=1e-2)


def test_a_caller_who_has_left_costs_no_forward(generator: GemmaGenerator) -> None:
    asked = chat(("user", [RED]))
    prompt = generator.encode(asked)
    end = generator.generate(prompt, asked, emit=lambda _: None, has_left=lambda: True)
    assert end == End("stop", 0)


def test_what_people_write_is_no_image(generator: GemmaGenerator) -> None:
    forged = "<start_of_image><image_soft_token><end_of_image>"
    prompt = generator.encode(chat(("system", [forged]), ("user", [forged, RED])))
    soft = generator._tokenizer.token_id("<image_soft_token>")
    assert prompt.count(soft) == IMAGE_TOKENS
    assert prompt.count(generator._tokenizer.token_id("<start_of_image>")) == 1


def test_a_base_model_reads_images_in_a_plain_dialogue(tmp_path: Path) -> None:
    base = load(write_gemma3_with_images(tmp_path))
    prompt = base.encode(chat(("system", ["Talk."]), ("user", ["See", RED, "What is it?"])))
    soft = "<image_soft_token>" * IMAGE_TOKENS
    assert base._tokenizer.decode(list(prompt)) == (
        f"<bos>Talk.\n\nUser: See\n\n<start_of_image>{soft}<end_of_image>\n\nWhat is it?"
        "\n\nAssistant:"
    )


def test_a_model_without_a_vision_tower_reads_no_images(tmp_path: Path) -> None:
    assert load(write_gemma3(tmp_path)).reads_images is False


JPEG = file_of(RED, "JPEG")
JPEG_AND_MP4 = b"\xff\xd8\xff\xe0ftyp" + bytes(0x6674 - 4) + JPEG[2:]
"""To a decoder of images a JPEG with a long first segment, to the moderator a video."""


def test_the_file_of_two_kinds_is_an_image_to_a_decoder() -> None:
    assert PIL.open(io.BytesIO(JPEG_AND_MP4)).convert("RGB").size == RED.size


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"hello", "no readable image", id="no image"),
        pytest.param(JPEG[: len(JPEG) // 2], "truncated", id="truncated"),
        pytest.param(file_of(plain("red", (8, 8))), "at least 16x16", id="too small"),
        pytest.param(
            animation([plain("red"), plain("blue")], "GIF"), "image is animated", id="animated"
        ),
        pytest.param(video([plain("red"), plain("blue")]), "is a video", id="video"),
        pytest.param(JPEG_AND_MP4, "is a video", id="judged as a video"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(
    generator: GemmaGenerator, data: bytes, problem: str
) -> None:
    good = Image(file_of(RED), "messages[0].content[0].image_url.url")
    bad = Image(data, "messages[0].content[1].image_url.url")
    asked = replace(chat(), messages=(Message("user", (good, bad)),))
    with pytest.raises(BadRequest, match=problem) as caught:
        generator.encode(asked)
    assert (caught.value.param, caught.value.code) == (bad.where, "unreadable_image")
    assert str(caught.value).startswith(f"{bad.where}: ")


def test_images_have_the_limit_of_the_settings(folder: Path) -> None:
    small = load_generator_of(
        settings(generator=str(folder), max_image_bytes=100), report=lambda _: None
    )
    with pytest.raises(BadRequest, match="at most 100 are accepted"):
        small.encode(chat(("user", [RED])))


def test_many_images_are_refused_before_any_is_decoded(generator: GemmaGenerator) -> None:
    def unreadable(num: int) -> Chat:
        return replace(chat(), messages=(Message("user", (Image(b"", "there"),) * num),))

    with pytest.raises(ContentTooLong, match=f"at most {MAX_IMAGES}$"):
        generator.encode(unreadable(MAX_IMAGES + 1))
    with pytest.raises(ContentTooLong, match="context holds 1024 in all"):
        generator.encode(unreadable(CONTEXT_TOKENS // IMAGE_TOKENS))


def test_files_about_images_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    folder = write_gemma3_with_images(tmp_path)
    edit_config(folder, boi_token_index=7)
    with pytest.raises(ModelRefused, match="image tokens"):
        load(folder)


def test_an_image_processor_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_gemma3_with_images(tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelUnavailable, match="image processor"):
        load(folder)


GOOD, BAD = gradient("red", (70, 90)), gradient("red", (90, 70))
"""What `WidthReader` reads as such."""


def part(image: PIL.Image | bytes) -> dict[str, Any]:
    data = image if isinstance(image, bytes) else file_of(image)
    return image_part("data:image/png;base64," + base64.b64encode(data).decode())


@dataclass
class Noting:
    """A generator, and what it was given."""

    generator: GemmaGenerator
    given: list[Chat] = field(default_factory=list)
    name: str = "noting"
    reads_images: bool = True

    def encode(self, chat: Chat) -> tuple[int, ...]:
        return self.generator.encode(chat)

    def generate(self, prompt: tuple[int, ...], chat: Chat, **more: Any) -> End:
        self.given.append(chat)
        return self.generator.generate(prompt, chat, **more)


@pytest.fixture(scope="module")
def served(generator: GemmaGenerator) -> Iterator[tuple[str, list[Chat]]]:
    """The URL of a gate that reads images before the generator, and what that was given."""
    noting = Noting(generator)
    text = scripted_moderator(ScriptedEngine(bad_is_bad)).text
    moderator = Moderator(LIBRARY, text, reader=WidthReader())
    with serving(moderator, noting, policy_set="reading", max_new_tokens=NUM_TOKENS) as url:
        yield url, noting.given


@pytest.fixture
def url(served: tuple[str, list[Chat]]) -> str:
    served[1].clear()
    return served[0]


@pytest.fixture
def given(served: tuple[str, list[Chat]]) -> list[Chat]:
    return served[1]


def ask(url: str, *parts: object, **more: Any) -> httpx.Response:
    body = chat_body(list(parts), temperature=0, **more)  # type: ignore[arg-type]
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)


def test_an_image_that_passes_is_judged_and_read(
    url: str, given: list[Chat], generator: GemmaGenerator
) -> None:
    answer = ask(url, {"type": "text", "text": "What is this?"}, part(GOOD)).json()
    asked = chat(("user", ["What is this?", GOOD]))
    assert answer["choices"][0]["message"]["content"] == generate(generator, asked)[0]
    assert answer["usage"]["prompt_tokens"] == len(generator.encode(asked))
    (check,) = answer["wardgate"]["prompt"]["verdict"]["coverage"][1:]
    assert check["modality"] == "image"
    assert [image.data for image in given[0].images] == [file_of(GOOD)]


def test_an_image_alone_is_something_to_read(url: str, given: list[Chat]) -> None:
    assert ask(url, part(GOOD)).status_code == 200
    assert given[0].messages[0].text == ""


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_an_image_that_is_blocked_never_reaches_the_generator(
    url: str, given: list[Chat], more: dict[str, Any]
) -> None:
    answer = ask(url, {"type": "text", "text": "What is this?"}, part(GOOD), part(BAD), **more)
    assert answer.status_code == 200
    assert "content_filter" in answer.text
    assert given == []


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (("user", part(b"hello")), "messages[0].content[0].image_url.url"),
        (("user", {"type": "image_url"}), "messages[0].content[0].image_url"),
        (("user", {"type": "image_url", "image_url": {}}), "messages[0].content[0].image_url.url"),
        (("user", image_part("data:image/png,x")), "messages[0].content[0].image_url.url"),
        (("user", image_part("https://a/b.png")), "messages[0].content[0].image_url.url"),
        (("user", {**part(GOOD), "type": "video_url"}), "messages[0].content[0].type"),
        (("system", part(GOOD)), "messages[0].content[0].type"),
    ],
)
def test_parts_that_the_generator_does_not_read_are_named(
    url: str, given: list[Chat], message: tuple[str, dict[str, Any]], param: str
) -> None:
    messages = [{"role": message[0], "content": [message[1]]}, {"role": "user", "content": "Hi"}]
    body = {"messages": messages[:1] if message[0] == "user" else messages}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
    assert error_of(answer, 400)["param"] == param
    assert given == []


def test_a_generator_of_text_says_so() -> None:
    with serving(generator=RecitingGenerator()) as url:
        error = error_of(ask(url, {"type": "text", "text": "Look."}, part(GOOD)), 400)
    assert error["param"] == "messages[0].content[1].type"
    assert error["message"].endswith("this generator reads text only")
