"""What is scored: the contents, the policies, and the prompts of both layouts."""

import itertools
from dataclasses import dataclass

from moderation.checkpoints import Classifier
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
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
"""Six policies of the catalogue."""
CONTENT_TOKENS = {
    "W1": (30, 150, 30, 150, 600),
    "W2": (6000,),
    "W3": (150,),
}
"""Lengths of the contents, repeated as often as asked: W1 has 40% short, 40% medium and 20% long
texts, W2 long documents, W3 a single message."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The prompts of one workload, the same contents and policies in each layout."""

    name: str
    shieldgemma: tuple[JudgePrompt, ...]
    compositional: tuple[JudgePrompt, ...]


def make_workload(classifier: Classifier, name: str, *, repeats: int = 1) -> Workload:
    """The prompts of a workload, in the template of each layout."""
    library = load_library()
    definitions = [
        text
        for policy_id in POLICIES
        if (text := library.policy(policy_id).definition_for(Surface.PROMPT)) is not None
    ]
    builders = [
        PromptBuilder(TEMPLATES[template], classifier.builder.tokenizer)
        for template in ("compact", "compositional")
    ]
    ids = classifier.builder.content_tokens(TEXT * 250).ids
    lengths = list(itertools.chain.from_iterable([CONTENT_TOKENS[name]] * repeats))
    # every content starts elsewhere: none may profit from what another left behind
    contents = [ids[7 * index : 7 * index + length] for index, length in enumerate(lengths)]
    both = [
        tuple(builder.text_prompt(Surface.PROMPT, content, definitions) for content in contents)
        for builder in builders
    ]
    return Workload(name, *both)
