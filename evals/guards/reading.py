"""The probability of each answer that a guard's format allows, from the logits of a few positions.

Each way through the answer's choices is written behind the prompt, and one forward of it weighs the
options of every choice on the way: no token is generated.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evals.guards.formats import Choice
from moderation.errors import ModelRefused, Unscorable
from moderation.remote.logprobs import MIN_MASS

Encode = Callable[[str], tuple[int, ...]]
"""The ids of words that stand behind a model's prompt."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A complete answer."""

    names: frozenset[str]
    """Of the options that were taken."""
    probability: float


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A choice in a model's tokens."""

    choice: Choice
    row: int
    at: int
    """How many tokens of the row stand before it."""
    tokens: tuple[int, ...]
    """The first token of each option."""
    then: tuple["_Weighed | None", ...]
    """By option."""


class Answer:
    """The answer of a format in a model's tokens."""

    def __init__(self, choice: Choice, encode: Encode) -> None:
        """Writes every way through the answer.

        Raises:
            ModelRefused: the tokenizer writes it so that it cannot be read: options begin with the
                same token, or words merge with those before them.
        """
        self.rows: list[tuple[int, ...]] = []
        """Ids to write behind a prompt: each way up to its last choice."""
        self._first = self._weighed(choice, "", encode)

    def outcomes(self, logits: Sequence[Tensor]) -> list[Outcome]:
        """All complete answers; their probabilities add up to 1.

        Args:
            logits: of each row ``(1 + tokens, V)``: from the prompt's last token to its own last.

        Raises:
            Unscorable: the model answers in other words than the format's, or with no number.
        """
        found = list(_outcomes(self._first, logits))
        mass = math.fsum(mass for _, mass in found)
        if not mass >= MIN_MASS:  # NaN is not either
            raise Unscorable(
                f"the answers of the format have a probability of {mass:.2g} together; expected at"
                f" least {MIN_MASS}: the model is of another format, or is lost with this content"
            )
        return [outcome for outcome, _ in found]

    def _weighed(self, choice: Choice, before: str, encode: Encode) -> _Weighed:
        before += choice.words
        ids = encode(before)
        tokens: list[int] = []
        then: list[_Weighed | None] = []
        for option in choice.options:
            written = encode(before + option.words)
            if len(written) == len(ids) or written[: len(ids)] != ids:
                raise ModelRefused(
                    f"the tokenizer merges the answer {option.words!r} with the words before it"
                    f" ({before!r}); expected the tokenizer that the guard was trained with"
                )
            tokens.append(written[len(ids)])
            behind = before + option.words
            then.append(self._weighed(option.then, behind, encode) if option.then else None)
        if len(set(tokens)) < len(tokens):
            words = ", ".join(repr(option.words) for option in choice.options)
            raise ModelRefused(
                f"the tokenizer begins two of the answers {words} with the same token, so they"
                " cannot be told apart; expected the tokenizer that the guard was trained with"
            )
        deeper = [each for each in then if each is not None]
        if not deeper:
            self.rows.append(ids)
        row = deeper[0].row if deeper else len(self.rows) - 1
        for token, each in zip(tokens, then, strict=True):
            if each is not None and self.rows[each.row][: len(ids) + 1] != (*ids, token):
                raise ModelRefused(f"the tokenizer merges words of the answer behind {before!r}")
        return _Weighed(choice, row, len(ids), tuple(tokens), tuple(then))


def _outcomes(weighed: _Weighed, logits: Sequence[Tensor]) -> Iterator[tuple[Outcome, float]]:
    """With each, the probability of its very words, which is less where others are likely too."""
    at = logits[weighed.row][weighed.at].double()
    every = torch.softmax(at, dim=-1)[list(weighed.tokens)]
    options = torch.softmax(at[list(weighed.tokens)], dim=-1)
    for option, then, mass, share in zip(
        weighed.choice.options, weighed.then, every.tolist(), options.tolist(), strict=True
    ):
        if then is None:
            yield Outcome(frozenset({option.name}), share), mass
            continue
        for behind, behind_mass in _outcomes(then, logits):
            names = behind.names | {option.name}
            yield Outcome(names, share * behind.probability), mass * behind_mass
