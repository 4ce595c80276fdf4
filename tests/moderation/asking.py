"""One prompt put to an engine."""

from torch import Tensor

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
