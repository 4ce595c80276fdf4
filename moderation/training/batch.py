"""A training batch: judge prompts as rows of tokens, packed by length.

A *root* is what is read for itself: a content or a policy in the layout `compositional`, content,
policy and question together in the layout `shieldgemma`. Roots of similar length stand in one
group, padded to its longest. Behind all groups follow the queries, one token each, which see a
content and a policy.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.training.records import Record
from policies import Surface

Item = TypeVar("Item", bound=tuple[JudgePrompt, Any])

Root = tuple[int, object]
"""Names a root: the prompt's number and which of its questions, or a policy by its tokens."""

MAX_CONTENT_TOKENS = 1000
"""Longer records are passed over: cutting one could cut away what its label is about."""

GROUP_GROWTH = 2.0
"""Each group holds roots up to this much longer than its shortest one."""


@dataclass(frozen=True, slots=True)
class Group:
    """Roots of similar length, side by side in the packed row."""

    lengths: Tensor
    """``(B,)`` tokens of each root without its padding."""
    width: int
    """Tokens of each root with it."""
    asking: Tensor
    """``(B, A)`` the queries that see each root; what is left of a row is filled with any."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids and who sees what, on one device."""

    ids: Tensor
    """``(T,)`` the groups one after the other, then the queries."""
    groups: tuple[Group, ...]
    num_queries: int
    seen: Tensor
    """``(2 * num_queries,)`` where each query's content and policy stand among all places of
    `Group.asking`, row by row and group by group."""
    answers: Tensor
    """``(Q,)`` the token at which each question is answered."""

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        groups = tuple(
            replace(group, lengths=group.lengths.to(device), asking=group.asking.to(device))
            for group in self.groups
        )
        return replace(
            self,
            ids=self.ids.to(device),
            groups=groups,
            seen=self.seen.to(device),
            answers=self.answers.to(device),
        )


def render_record(
    builder: PromptBuilder, record: Record, definitions: Sequence[str]
) -> JudgePrompt:
    """The judge prompt of a record, as the moderator would build it."""
    context = builder.content_tokens(record.prompt).ids if record.prompt else ()
    return builder.text_prompt(
        record.surface,
        builder.content_tokens(record.text).ids,
        definitions,
        context=context if record.surface is Surface.RESPONSE else (),
    )


def in_rows(prompts: Iterable[Item], row_tokens: int) -> Iterator[list[Item]]:
    """Judge prompts, each with something about it, in rows of so many tokens of content."""
    row: list[Item] = []
    tokens = 0
    for item in prompts:
        prompt = item[0]
        size = len(prompt.prefix)
        if not prompt.query:  # one root a question
            size = sum(size + len(leaf) for leaf in prompt.leaves)
        if row and tokens + size > row_tokens:
            yield row
            row, tokens = [], 0
        row.append(item)
        tokens += size
    if row:
        yield row


def make_batch(prompts: Sequence[JudgePrompt]) -> Batch:
    """Packs judge prompts; a policy that several ask is one root.

    Returns:
        The batch, its questions in the order of the prompts and of their leaves.

    Raises:
        ValueError: a query of several tokens; the training knows queries of one.
    """
    roots: dict[Root, tuple[int, ...]] = {}  # a policy by itself, others by number
    queries: list[int] = []
    sees: list[tuple[Root, Root]] = []
    for number, prompt in enumerate(prompts):
        if not prompt.query:
            roots |= {
                (number, index): prompt.prefix + leaf for index, leaf in enumerate(prompt.leaves)
            }
            continue
        if len(prompt.query) != 1:
            raise ValueError(f"found a query of {len(prompt.query)} tokens; expected one token")
        content = (number, None)
        roots[content] = prompt.prefix
        for leaf in prompt.leaves:
            roots[-1, leaf] = leaf
            queries += prompt.query
            sees.append((content, (-1, leaf)))
    asking: dict[Root, list[int]] = defaultdict(list)
    for query, pair in enumerate(sees):
        for root in pair:
            asking[root].append(query)
    ids: list[int] = []
    groups: list[Group] = []
    last: dict[Root, int] = {}
    places: dict[tuple[Root, int], int] = {}
    num_places = 0
    for keys in _grouped(roots):
        width = max(len(roots[key]) for key in keys)
        most = max(len(asking[key]) for key in keys)
        table = []
        for key in keys:
            last[key] = len(ids) + len(roots[key]) - 1
            ids += [*roots[key], *[0] * (width - len(roots[key]))]
            places |= {(key, query): num_places + n for n, query in enumerate(asking[key])}
            # filled with other queries each: the gradient of one query would gather them all
            fill = [n % len(queries) for n in range(num_places, num_places + most)]
            table.append([*asking[key], *fill[len(asking[key]) :]])
            num_places += most
        lengths = torch.tensor([len(roots[key]) for key in keys])
        groups.append(Group(lengths, width, torch.tensor(table, dtype=torch.long)))
    if queries:
        answers = [*range(len(ids), len(ids) + len(queries))]
    else:  # in the order of the questions, not of the groups
        answers = [last[key] for key in roots]
    return Batch(
        ids=torch.tensor([*ids, *queries]),
        groups=tuple(groups),
        num_queries=len(queries),
        seen=torch.tensor(
            [places[root, query] for query, pair in enumerate(sees) for root in pair],
            dtype=torch.long,
        ),
        answers=torch.tensor(answers),
    )


def _grouped(roots: dict[Root, tuple[int, ...]]) -> Iterable[list[Root]]:
    group: list[Root] = []
    for key in sorted(roots, key=lambda key: len(roots[key])):
        if group and len(roots[key]) > GROUP_GROWTH * len(roots[group[0]]):
            yield group
            group = []
        group.append(key)
    yield group
