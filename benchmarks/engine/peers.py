"""What the engine is compared with: transformers, as people use it for such a classifier."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from moderation.checkpoints import Classifier
from moderation.prompts import JudgePrompt

Score = Callable[[Sequence[JudgePrompt]], list[float]]
"""The scores of all questions of some prompts, in order."""


def transformers_peers(classifier: Classifier) -> dict[str, Score]:
    """By name, the ways to score a prompt with transformers' own forward."""
    return {
        "transformers, prefix KV": partial(_each, _prefix_kv, classifier),
        "transformers, one by one": partial(_each, _one_by_one, classifier),
        "transformers, as shipped": partial(_each, _as_shipped, classifier),
    }


def _each(
    score: Callable[[Classifier, JudgePrompt], list[float]],
    classifier: Classifier,
    prompts: Sequence[JudgePrompt],
) -> list[float]:
    return [p_yes for prompt in prompts for p_yes in score(classifier, prompt)]


@torch.inference_mode()
def _as_shipped(classifier: Classifier, prompt: JudgePrompt) -> list[float]:
    """A forward a policy with its defaults: logits of every position."""
    logits = [
        classifier.model(input_ids=torch.tensor([[*prompt.prefix, *leaf]])).logits[0, -1]
        for leaf in prompt.leaves
    ]
    return [_p_yes(classifier, each) for each in logits]


@torch.inference_mode()
def _one_by_one(classifier: Classifier, prompt: JudgePrompt) -> list[float]:
    """A forward a policy, of the body and the two rows of the head that are needed."""
    hidden = [
        classifier.model.model(  # type: ignore[operator]  # a module, untyped in transformers
            input_ids=torch.tensor([[*prompt.prefix, *leaf]]), use_cache=False
        ).last_hidden_state[0, -1]
        for leaf in prompt.leaves
    ]
    return [_p_yes_from_hidden(classifier, each) for each in hidden]


@torch.inference_mode()
def _prefix_kv(classifier: Classifier, prompt: JudgePrompt) -> list[float]:
    """The content once into a cache, each policy behind a copy of it: the best that is done with
    transformers by hand, and what engines with prefix caching do."""
    body = classifier.model.model
    config: Any = classifier.model.config
    cache = DynamicCache(config=config)
    body(input_ids=torch.tensor([prompt.prefix]), past_key_values=cache)  # type: ignore[operator]
    scores = []
    for leaf in prompt.leaves:
        hidden = body(  # type: ignore[operator]
            input_ids=torch.tensor([leaf]), past_key_values=copy.deepcopy(cache)
        ).last_hidden_state[0, -1]
        scores.append(_p_yes_from_hidden(classifier, hidden))
    return scores


def _p_yes_from_hidden(classifier: Classifier, hidden: Tensor) -> float:
    head = classifier.model.get_output_embeddings().weight  # type: ignore[operator]
    rows = head[_answers(classifier)].float()
    return float(torch.softmax(rows @ hidden.float(), dim=-1)[0])


def _p_yes(classifier: Classifier, logits: Tensor) -> float:
    return float(torch.softmax(logits[_answers(classifier)].float(), dim=-1)[0])


def _answers(classifier: Classifier) -> list[int]:
    tokenizer = classifier.builder.tokenizer
    return [tokenizer.token_id("Yes"), tokenizer.token_id("No")]
