"""One prompt at a time: put to an engine, or answered by one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from moderation.caller import PATIENT, Caller
from moderation.engine import Ask, Engine
from moderation.growing import GrowingContent
from moderation.prompts import JudgePrompt


def ask(
    engine: Engine,
    prompt: JudgePrompt,
    *,
    pixels: Tensor | None = None,
    growing: GrowingContent | None = None,
) -> list[float]:
    """P(Yes) of every leaf."""
    [scores] = engine.p_yes([Ask(prompt, pixels, growing)])
    return scores


@contextmanager
def computed_rows(model: Any) -> Iterator[list[int]]:
    """Rows that the first layer of a model projects, by call."""
    rows: list[int] = []
    projection = model.model.layers[0].self_attn.q_proj
    handle = projection.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        handle.remove()


class OneByOne:
    """What scripted engines have in common; each answers a single prompt."""

    is_concurrent = False

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        found = []
        for each in asks:
            caller.check()
            found.append(self.answer(each.prompt))
        return found

    def answer(self, prompt: JudgePrompt) -> list[float]:
        raise NotImplementedError
