"""What is scored: contents, policies, the prompts of both layouts, and how much work they are."""

import itertools
from dataclasses import dataclass
from typing import Any

from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from policies import Surface, load_library

TEXT = (
    "The council met on Tuesday to discuss the new tram line, which will run from the harbour to"
    " the university and is expected to open in four years. "
)
POLICIES = (
    "dangerous_content",
    "harassment",
    "hate_speech",
    "sexually_explicit",
    "violence",
    "self_harm",
)
"""Six policies of the catalogue, each made as long as policies in use are."""
POLICY_TOKENS = (90, 120)
"""Least and most tokens of a policy's text."""
DETAILS = (
    " This includes content that asks for it, plans it, praises it or explains how it is done.",
    " It is no violation to report on it, to warn of it, to oppose it or to ask for help.",
    " Fiction is judged by what it would enable a reader to do.",
    " What is quoted is judged as if it had been said.",
    " Jokes are judged likewise.",
    " Names do not matter.",
)
"""Sentences that follow a definition until it is long enough."""
CONTENT_TOKENS = {
    "W1": (30, 150, 30, 150, 600),
    "W2": (6000,),
    "W3": (150,),
}
"""Lengths of the contents, repeated in turn: W1 has 40% short, 40% medium and 20% long texts, W2
long documents, W3 a single message."""
NUM_CONTENTS = {"W1": 64, "W2": 4, "W3": 1}
"""Of a full run."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The prompts of one workload, the same contents and policies in each layout."""

    name: str
    shieldgemma: tuple[JudgePrompt, ...]
    compositional: tuple[JudgePrompt, ...]


def make_workload(tokenizer: SafeTokenizer, name: str, *, most: int | None = None) -> Workload:
    """The prompts of a workload, those of a full run or only the first ones."""
    wanted = min(NUM_CONTENTS[name], most or NUM_CONTENTS[name])
    definitions = long_policies(tokenizer)
    lengths = itertools.islice(itertools.cycle(CONTENT_TOKENS[name]), wanted)
    # a number comes first: no content may profit from what another left in a prefix cache
    contents = [
        tokenizer.content(f"{number}. {TEXT * 250}").ids[:length]
        for number, length in enumerate(lengths, start=1000)
    ]
    both = [
        tuple(builder.text_prompt(Surface.PROMPT, content, definitions) for content in contents)
        for builder in (
            PromptBuilder(TEMPLATES[template], tokenizer)
            for template in ("compact", "compositional")
        )
    ]
    return Workload(name, *both)


def long_policies(tokenizer: SafeTokenizer) -> list[str]:
    """The texts of the policies, each of `POLICY_TOKENS`."""
    library = load_library()
    least, most = POLICY_TOKENS
    found = []
    for policy_id in POLICIES:
        text = library.policy(policy_id).definition_for(Surface.PROMPT)
        assert text is not None, f"{policy_id} has words for prompts"
        for sentence in DETAILS:
            if len(tokenizer.content(text)) < least:
                text += sentence
        num_tokens = len(tokenizer.content(text))
        assert least <= num_tokens <= most, f"{policy_id} has {num_tokens} tokens"
        found.append(text)
    return found


def needed_gflop(prompt: JudgePrompt, config: Any) -> float:
    """GFLOP that one prompt needs at least in the shieldgemma layout.

    The content once, each question once behind it, every token attending to those before it
    (within the window, in a sliding layer), and two rows of the output head a question. A multiply
    and an add are two operations; norms and activations are left out.

    Args:
        prompt: without a query.
        config: of a `Gemma3ForCausalLM`.
    """
    width = config.num_attention_heads * config.head_dim
    kept = config.num_key_value_heads * config.head_dim
    attention = 2 * width + 2 * kept  # q and o, k and v
    weights = config.hidden_size * (attention + 3 * config.intermediate_size)
    products = 2 * weights * config.num_hidden_layers * prompt.num_tokens
    seen = 0
    for kind in config.layer_types:
        window = config.sliding_window if kind == "sliding_attention" else None
        seen += _pairs(0, len(prompt.prefix), window)
        for leaf in prompt.leaves:
            seen += _pairs(len(prompt.prefix), len(leaf), window)
    head = 2 * 2 * config.hidden_size * len(prompt.leaves)
    return float(products + 4 * width * seen + head) / 1e9


def _pairs(start: int, length: int, window: int | None) -> int:
    """Pairs of a token and one that it attends to, itself included."""
    places = range(start + 1, start + length + 1)
    return sum(places) if window is None else sum(min(place, window) for place in places)
