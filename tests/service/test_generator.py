"""The generator on a tiny random Gemma 3, against a plain forward of the whole sequence."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from benchmarks.engine.memory import forget_peak, peak_mib
from moderation.embedded.base import EmbeddedBase
from moderation.errors import ContentTooLong, ModelRefused, ModelUnavailable
from service.chat import Chat, Message, Sampling
from service.chat_format import GemmaFormat, PlainFormat
from service.generation import End, Piece
from service.generator import GemmaGenerator, load_generator
from tests.service.scripted import TOKENIZER, byte_tokenizer

CONTEXT = 2048


def tiny_model(
    seed: int = 0, *, num_rows: int = TOKENIZER.vocabulary_size, hidden_size: int = 32
) -> Gemma3ForCausalLM:
    torch.manual_seed(seed)
    config = Gemma3TextConfig(
        vocab_size=num_rows,
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=32,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,
    )
    model = Gemma3ForCausalLM(config)
    model.train(False)
    return model


@pytest.fixture(scope="module")
def generator() -> GemmaGenerator:
    return GemmaGenerator(
        tiny_model(),
        byte_tokenizer(),
        PlainFormat(),
        name="tiny",
        end_ids=frozenset(),
        context_tokens=CONTEXT,
    )


def chat(
    text: str = "Hi", *, max_tokens: int = 12, stop: tuple[str, ...] = (), **sampling: float
) -> Chat:
    return Chat(
        messages=(Message("user", (text,)),),
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
        stop=stop,
        max_tokens=max_tokens,
    )


def generate(generator: GemmaGenerator, asked: Chat) -> tuple[str, End, list[Piece]]:
    pieces: list[Piece] = []
    end = generator.generate(
        generator.encode(asked), asked, emit=pieces.append, has_left=lambda: False
    )
    return "".join(piece.text for piece in pieces), end, pieces


@torch.inference_mode()
def greedy_by_plain_forwards(generator: GemmaGenerator, asked: Chat) -> list[int]:
    ids = list(generator.encode(asked))
    start = len(ids)
    for _ in range(asked.max_tokens):
        logits = generator._model(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[start:]


@pytest.mark.parametrize("length", [3, 600, 1200], ids=["one chunk", "two", "three"])
def test_greedy_tokens_equal_plain_forwards(generator: GemmaGenerator, length: int) -> None:
    asked = chat("abc " * (length // 4) + "x", temperature=0.0)
    expected = TOKENIZER.decode(greedy_by_plain_forwards(generator, asked)).lstrip()
    text, end, _ = generate(generator, asked)
    assert text == expected
    assert end == End("length", 12)


def test_a_prompt_takes_no_copy_of_the_head() -> None:
    one = GemmaGenerator(
        tiny_model(num_rows=65_536, hidden_size=640).bfloat16().requires_grad_(False),
        byte_tokenizer(),
        PlainFormat(),
        name="wide",
        end_ids=frozenset(),
        context_tokens=CONTEXT,
    )
    generate(one, chat("ab", max_tokens=1))
    forget_peak()
    before = peak_mib()
    generate(one, chat("cd", max_tokens=1))
    assert peak_mib() - before < 40  # the head has 80 MiB


def test_a_seed_repeats_a_response_and_another_seed_does_not(generator: GemmaGenerator) -> None:
    first, again, other = (generate(generator, chat(seed=seed))[0] for seed in (1, 1, 2))
    assert first == again != other


def test_pieces_count_the_tokens_so_far(generator: GemmaGenerator) -> None:
    _, end, pieces = generate(generator, chat(seed=1))
    counts = [piece.completion_tokens for piece in pieces]
    assert counts == sorted(counts)
    assert counts[-1] <= end.completion_tokens == 12


def test_a_stop_string_ends_the_response_before_it(generator: GemmaGenerator) -> None:
    whole, _, _ = generate(generator, chat(temperature=0.0))
    stop = whole[3:5]
    text, end, _ = generate(generator, chat(temperature=0.0, stop=(stop,)))
    assert text == whole.partition(stop)[0]
    assert end.finish_reason == "stop"
    assert end.completion_tokens < 12


def test_an_end_token_ends_the_response(generator: GemmaGenerator) -> None:
    asked = chat(temperature=0.0)
    ids = greedy_by_plain_forwards(generator, asked)
    ending = GemmaGenerator(
        generator._model,
        byte_tokenizer(),
        PlainFormat(),
        name="tiny",
        end_ids=frozenset({ids[4]}),
        context_tokens=CONTEXT,
    )
    at = ids.index(ids[4])
    text, end, _ = generate(ending, asked)
    assert end == End("stop", at + 1)
    assert text == TOKENIZER.decode(ids[:at]).lstrip()


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_caller_who_leaves_stops_the_model_at_the_next_token(
    generator: GemmaGenerator, after: int
) -> None:
    asked = chat("abc " * 300, max_tokens=500)
    questions = iter([False] * after)
    end = generator.generate(
        generator.encode(asked),
        asked,
        emit=lambda _: None,
        has_left=lambda: next(questions, True),
    )
    assert end.completion_tokens <= after


def test_a_conversation_over_the_context_is_refused(generator: GemmaGenerator) -> None:
    with pytest.raises(
        ContentTooLong, match=r"max_tokens is 12; the generator's context holds 2048"
    ):
        generator.encode(chat("x" * 2000))
    with pytest.raises(ContentTooLong, match=r"characters; the generator reads at most 2048"):
        generator.encode(chat("x" * 100_000))


def write_checkpoint(path: Path, **tokenizer_config: object) -> Path:
    tiny_model().save_pretrained(path)
    (path / "tokenizer.json").write_text(TOKENIZER._trusted.to_str())
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (path / "generation_config.json").unlink(missing_ok=True)
    return path


def load(path: Path) -> GemmaGenerator:
    return load_generator(str(path), base=EmbeddedBase(path), dtype="float32")


def test_a_directory_is_loaded_and_generates(tmp_path: Path, generator: GemmaGenerator) -> None:
    loaded = load(write_checkpoint(tmp_path))
    assert loaded.name == str(tmp_path)
    asked = chat(temperature=0.0)
    assert generate(loaded, asked)[:2] == generate(generator, asked)[:2]


def test_a_directory_below_the_home_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(Path("~/model")).name == "~/model"


def test_a_base_model_gets_the_plain_format_and_a_tuned_one_its_own(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    assert isinstance(load(base)._format, PlainFormat)
    tuned = write_checkpoint(tmp_path / "tuned", chat_template="{{ messages }}")
    assert isinstance(load(tuned)._format, GemmaFormat)
    ends = write_checkpoint(tmp_path / "ends")
    (ends / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')
    assert TOKENIZER.token_id("<end_of_turn>") == 5
    assert isinstance(load(ends)._format, GemmaFormat)


def test_what_is_no_gemma_3_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="config"):
        load(tmp_path)
    path = write_checkpoint(tmp_path / "other")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "architectures": ["Gemma3Model"]}))
    with pytest.raises(ModelRefused, match="is a Gemma3Model; a generator has to be one of"):
        load(path)
