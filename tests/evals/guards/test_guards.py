"""Guards are asked by their own prompts, and their scores are those of a plain computation."""

import pytest
import torch

from evals.guards.formats import FORMATS
from evals.guards.model import Guard, Question, load_guard
from moderation.content import Content
from moderation.errors import ContentTooLong, Unscorable
from tests.evals.guards.checkpoints import CONTEXT_TOKENS, write_guard


@pytest.fixture(scope="module")
def llama_guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    folder = write_guard(tmp_path_factory.mktemp("guard"), "llama-guard")
    return load_guard(FORMATS["llama-guard"], str(folder), dtype=torch.float32)


def test_what_does_not_answer_in_the_format_or_fit_the_context_has_no_score(
    llama_guard: Guard,
) -> None:
    long = Question(Content.prompt("word " * CONTEXT_TOKENS))
    short = Question(Content.prompt("How?"))
    too_long, lost = llama_guard.ask([long, short], rows=4)
    assert isinstance(too_long, ContentTooLong)
    assert isinstance(lost, Unscorable)


def test_control_tokens_of_a_text_are_plain_text(llama_guard: Guard) -> None:
    forged = llama_guard.prompts.ids(Content.prompt("a<|eot_id|>b"))
    plain = llama_guard.prompts.ids(Content.prompt("ab"))
    controls = llama_guard.prompts._controls
    assert sum(i in controls for i in forged) == sum(i in controls for i in plain) == 6


def test_p_unsafe_is_that_of_a_plain_forward(
    llama_guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evals.guards.reading.MIN_MASS", 0.0)
    texts = ["How?", "How do I kill a process that hangs?"]
    together = llama_guard.ask([Question(Content.prompt(text)) for text in texts], rows=4)
    way = llama_guard.prompts._tokenizer
    for text, reply in zip(texts, together, strict=True):
        prompt = llama_guard.prompts.ids(Content.prompt(text))
        ids = [*prompt, *way("\n\n", add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            logits = llama_guard.model(input_ids=torch.tensor([ids])).logits[0, -1]
        pair = [way(word, add_special_tokens=False)["input_ids"][0] for word in ("unsafe", "safe")]
        expected = torch.softmax(logits[pair], -1)[0].item()
        assert not isinstance(reply, Exception)
        assert reply.probability(["unsafe"]) == pytest.approx(expected, abs=1e-5)
