"""Training batches: judge prompts as rows of tokens, packed by length.

A *root* is what is read for itself: a content or a policy in the layout `compositional`, content,
policy and question together in the layout `shieldgemma`. Roots of similar length stand in one
group, padded to its longest. Behind a row's contents follow its queries, one token each, which see
a content and a policy. Policies stand apart from the rows: a step reads each once.
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

Root = int | tuple[int, ...]
"""Names a root: a content by its prompt's number, with that of its question where they are one
root; a policy by its tokens."""

MAX_CONTENT_TOKENS = 1000
"""Longer records are passed over: cutting one could cut away what its label is about."""

GROUP_GROWTH = 2.0
"""Each group holds roots up to this much longer than its shortest one."""


@dataclass(frozen=True, slots=True)
class Group:
    """Roots of similar length, side by side."""

    lengths: Tensor
    """``(B,)`` tokens of each root without its padding."""
    width: int
    """Tokens of each root with it."""


@dataclass(frozen=True, slots=True)
class Roots:
    """Texts that are read for themselves, on one device."""

    ids: Tensor
    """``(T,)`` one group after the other."""
    groups: tuple[Group, ...]

    def to(self, device: torch.device) -> "Roots":
        """The same on a device."""
        groups = tuple(replace(group, lengths=group.lengths.to(device)) for group in self.groups)
        return Roots(self.ids.to(device), groups)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward computes, on one device: contents, and the queries that see them."""

    contents: Roots
    queries: Tensor
    """``(N,)`` token ids, one a question; none where a root is asked at its own last token."""
    asking: tuple[Tensor, ...]
    """For each group of contents, then for each of policies: ``(B, A)`` the queries that see each
    root; what is left of a line is filled with any."""
    seen: Tensor
    """``(2 * N,)`` where each query's content and policy stand among all places of `asking`, line
    by line and group by group."""
    answers: Tensor
    """``(Q,)`` the token at which each question is answered, of the contents' and the queries'."""

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(
            contents=self.contents.to(device),
            queries=self.queries.to(device),
            asking=tuple(table.to(device) for table in self.asking),
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


def make_batches(rows: Sequence[Sequence[JudgePrompt]]) -> tuple[Roots, list[Batch]]:
    """Packs judge prompts, each row into a batch of its own.

    Returns:
        The policies that the queries of all rows see, each once, and a batch a row, its questions
        in the order of its prompts and of their leaves. Where prompts have no query, there are no
        policies apart from their contents.

    Raises:
        ValueError: a query of several tokens; the training knows queries of one.
    """
    policies: dict[Root, tuple[int, ...]] = {
        leaf: leaf for row in rows for prompt in row if prompt.query for leaf in prompt.leaves
    }
    read, groups = _grouped(policies)
    return read, [_batch(row, groups) for row in rows]


def _batch(prompts: Sequence[JudgePrompt], policies: Sequence[Sequence[Root]]) -> Batch:
    """One row, whose queries see these groups of policies."""
    roots: dict[Root, tuple[int, ...]] = {}
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
        roots[number] = prompt.prefix
        for leaf in prompt.leaves:
            queries += prompt.query
            sees.append((number, leaf))
    contents, groups = _grouped(roots)
    asking, seen = _tables(sees, [*groups, *policies]) if queries else ((), [])
    if queries:
        answers = [*range(len(contents.ids), len(contents.ids) + len(queries))]
    else:  # in the order of the questions, not of the groups
        last = _last_tokens(contents, groups)
        answers = [last[root] for root in roots]
    return Batch(
        contents=contents,
        queries=torch.tensor(queries, dtype=torch.long),
        asking=asking,
        seen=torch.tensor(seen, dtype=torch.long),
        answers=torch.tensor(answers),
    )


def _grouped(roots: dict[Root, tuple[int, ...]]) -> tuple[Roots, list[list[Root]]]:
    """Roots in groups of similar length, and which they are."""
    named: list[list[Root]] = []
    for root in sorted(roots, key=lambda root: len(roots[root])):
        if not named or len(roots[root]) > GROUP_GROWTH * len(roots[named[-1][0]]):
            named.append([])
        named[-1].append(root)
    ids: list[int] = []
    groups = []
    for group in named:
        width = len(roots[group[-1]])
        for root in group:
            ids += [*roots[root], *[0] * (width - len(roots[root]))]
        groups.append(Group(torch.tensor([len(roots[root]) for root in group]), width))
    return Roots(torch.tensor(ids, dtype=torch.long), tuple(groups)), named


def _tables(
    sees: Sequence[tuple[Root, Root]], groups: Sequence[Sequence[Root]]
) -> tuple[tuple[Tensor, ...], list[int]]:
    """`Batch.asking` and `Batch.seen` of queries that see a content and a policy each."""
    asking: dict[Root, list[int]] = defaultdict(list)
    for query, pair in enumerate(sees):
        for root in pair:
            asking[root].append(query)
    tables = []
    places: dict[tuple[Root, int], int] = {}
    num_places = 0
    for group in groups:
        most = max(len(asking[root]) for root in group)
        lines = []
        for root in group:
            places |= {(root, query): num_places + n for n, query in enumerate(asking[root])}
            # filled with other queries each: the gradient of one query would gather them all
            fill = [n % len(sees) for n in range(num_places, num_places + most)]
            lines.append([*asking[root], *fill[len(asking[root]) :]])
            num_places += most
        tables.append(torch.tensor(lines, dtype=torch.long).view(len(group), most))
    return tuple(tables), [places[root, query] for query, pair in enumerate(sees) for root in pair]


def _last_tokens(contents: Roots, groups: Sequence[Sequence[Root]]) -> dict[Root, int]:
    last: dict[Root, int] = {}
    first = 0
    for group, named in zip(contents.groups, groups, strict=True):
        for root, length in zip(named, group.lengths.tolist(), strict=True):
            last[root] = first + length - 1
            first += group.width
    return last
