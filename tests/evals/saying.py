"""A classifier that scores a text as the text says: `says 0.7` scores 0.7, and 0.8 by a policy that
says `adds 0.1`.

Prompts, tokens and the moderator are the real ones; only the engine is scripted.
"""

import math
import re
from typing import Any

from torch import nn

from moderation.checkpoints import Classifier
from moderation.errors import EngineStopped, Unscorable
from moderation.moderator import Moderator
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import ModelInfo
from policies import PolicyLibrary
from tests.moderation.asking import OneByOne
from tests.moderation.small_tokenizer import small_tokenizer_json
from tests.moderation.speaking import NO, TOKENIZER, YES, Reply, completion

SAYS = re.compile(r"says (\d\.\d+|nothing|stop)")
ADDS = re.compile(r"adds (-?\d\.\d+)")


class SayingEngine(OneByOne):
    """Scores from the last `says` of the prompt."""

    max_prompt_tokens = 8192

    def answer(self, prompt: JudgePrompt) -> list[float]:
        return [_said(prompt.prefix + leaf) for leaf in prompt.leaves]


def saying_moderator(library: PolicyLibrary) -> Moderator:
    builder = PromptBuilder(TEMPLATES["compact"], SafeTokenizer(small_tokenizer_json()))
    classifier = Classifier(
        info=ModelInfo(name="saying", revision="1", template="compact", dtype="float32"),
        engine=SayingEngine(),
        builder=builder,
        model=nn.Identity(),
        window_tokens=2048,
        to_pixels=None,
        checks=(),
    )
    return Moderator(library, classifier)


def saying(body: dict[str, Any]) -> Reply:
    """The same as a model server."""
    try:
        p_yes = min(0.999, max(0.001, _said(body["prompt"])))  # 0 and 1 have no logarithm
    except Unscorable:
        return completion(None, prompt_tokens=len(body["prompt"]))
    both = {f"token_id:{YES}": math.log(p_yes), f"token_id:{NO}": math.log(1 - p_yes)}
    return completion(both, prompt_tokens=len(body["prompt"]))


def _said(ids: "list[int] | tuple[int, ...]") -> float:
    """0.5 where nothing is said, as by the probe of a model that is loaded."""
    text = TOKENIZER.decode(list(ids))
    said = SAYS.findall(text)
    if not said:
        return 0.5
    if said[-1] == "stop":
        raise EngineStopped("the worker died")
    if said[-1] == "nothing":
        raise Unscorable("the model answered with a number that is no probability (NaN)")
    added = sum(map(float, ADDS.findall(text)))
    return round(min(1.0, max(0.0, float(said[-1]) + added)), 6)
