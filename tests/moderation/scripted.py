"""An engine that scores by the words it sees; everything around it is real."""

import time
from dataclasses import dataclass, field

from torch import nn

from moderation.checkpoints import Classifier
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import ModelInfo
from tests.moderation.asking import OneByOne


@dataclass
class WordEngine(OneByOne):
    """P(Yes) of a prompt is the highest score of the words that its prefix holds.

    A leaf whose policy text names a word is scored by that word alone.
    """

    tokenizer: SafeTokenizer
    words: dict[str, float]
    max_prompt_tokens: int = 4096
    seconds: float = 0.0
    """How long one call takes."""
    prompts: list[JudgePrompt] = field(default_factory=list)
    """What was asked."""

    def answer(self, prompt: JudgePrompt) -> list[float]:
        assert prompt.longest <= self.max_prompt_tokens
        self.prompts.append(prompt)
        time.sleep(self.seconds)
        text = self.tokenizer.decode(list(prompt.prefix))
        return [self._score(text, self.tokenizer.decode(list(leaf))) for leaf in prompt.leaves]

    def _score(self, text: str, question: str) -> float:
        asked = [word for word in self.words if word in question] or list(self.words)
        return max((self.words[word] for word in asked if word in text), default=0.01)


def word_classifier(
    engine: WordEngine, *, template: str = "compact", window_tokens: int = 512
) -> Classifier:
    """A classifier around a `WordEngine`."""
    return Classifier(
        info=ModelInfo(name="words", revision="1", template=template, dtype="float32"),
        engine=engine,
        builder=PromptBuilder(TEMPLATES[template], engine.tokenizer),
        model=nn.Identity(),
        window_tokens=window_tokens,
        to_pixels=None,
        checks=(),
    )
