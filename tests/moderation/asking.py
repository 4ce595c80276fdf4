"""One prompt at a time: put to an engine, or answered by one."""

from collections.abc import Sequence

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
