"""Finds what is wrong or doubtful in folders of policies, all of it at once.

An error is what the loader refuses. A warning is a file that loads and is probably not what its
author meant. Knows no tokenizer: who has one passes it in as a `TokenCounter`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from policies.loader import CATALOG, SETS, LoadedFile, PolicyLibrary, survey
from policies.schema import Policy, PolicySet, Surface

MIN_DEFINITION_CHARACTERS = 40
"""Shorter definitions name a topic and no rule; ShieldGemma's own have 150 to 450."""
LONG_SHARE = 1 / 8
"""A definition over this share of the budget is doubtful: every content pays for it."""
EXTREME_BELOW, EXTREME_ABOVE = 0.02, 0.98
"""Thresholds beyond these are reached by nearly everything, or by nearly nothing."""

# The control tokens of Gemma's tokenizers and the marks of ShieldGemma's templates.
_CONTROL = re.compile(
    r"<(?:bos|eos|pad|unk|mask|start_of_turn|end_of_turn|start_of_image|end_of_image"
    r"|image_soft_token|unused\d+)>|\[multimodal\]|</?(?:BEGIN|END)_SAFETY_POLICY>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounter:
    """How tokens are counted, and how many a classifier reads at once."""

    count: Callable[[str], int]
    budget: int = 8192
    """Tokens of one classifier call: definition, content and the template's own words."""
    source: str
    """What counts, in words, for messages."""


ESTIMATE = TokenCounter(count=lambda text: -(-len(text) // 4), source="estimated as characters / 4")
"""For when no tokenizer is at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong or doubtful."""

    level: Literal["error", "warning"]
    file: Path
    line: int | None
    rule: str
    """A stable name, for machines."""
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        return f"{where}: {self.level}: {self.message} [{self.rule}]"


def lint(folders: Sequence[Path] = (), *, tokens: TokenCounter = ESTIMATE) -> list[Finding]:
    """Every finding in `folders`, or in the built-in files where none is given.

    The built-in policies are known to the sets in `folders`, as they are when loading.
    """
    found = survey(folders)
    looked_at = set(folders or (CATALOG, SETS))
    files = [file for file in found.files if file.folder in looked_at]
    findings = [
        Finding(
            level="error",
            file=error.path,
            line=error.line,
            rule="invalid-file",
            message=f"{error.key}: {error.problem}" if error.key else error.problem,
        )
        for error in found.errors
    ]
    for file in files:
        if isinstance(file.item, Policy):
            findings += _policy(file, file.item, tokens)
        else:
            findings += _policy_set(file, file.item, found.library)
    findings += _repeated_titles(found.files, looked_at)
    return sorted(findings, key=lambda finding: (str(finding.file), finding.line or 0))


def _policy(file: LoadedFile, policy: Policy, tokens: TokenCounter) -> Iterator[Finding]:
    for key, definition in _definitions(policy):
        num_tokens = tokens.count(definition)
        counted = f"the definition has {num_tokens} tokens ({tokens.source})"
        if num_tokens >= tokens.budget:
            yield _finding(
                file,
                key,
                "definition-over-budget",
                f"{counted}; the classifier reads {tokens.budget} at once, so no content could be"
                " judged by it",
                level="error",
            )
        elif num_tokens > tokens.budget * LONG_SHARE:
            yield _finding(
                file,
                key,
                "long-definition",
                f"{counted}; over {int(tokens.budget * LONG_SHARE)} it slows every call and leaves"
                f" less of the {tokens.budget} for content",
            )
        if len(definition) < MIN_DEFINITION_CHARACTERS:
            yield _finding(
                file,
                key,
                "short-definition",
                f"the definition has {len(definition)} characters; say what the content shall not"
                " contain, with examples in brackets",
            )
        for control in dict.fromkeys(_CONTROL.findall(definition)):
            yield _finding(
                file,
                key,
                "control-string",
                f"the definition contains {control!r}; give only the rule: the template around it"
                " is added for you, and control strings are read as plain text",
            )
    yield from _examples(file, policy)


def _examples(file: LoadedFile, policy: Policy) -> Iterator[Finding]:
    if policy.definition_for(Surface.PROMPT) is policy.definition_for(Surface.RESPONSE) is None:
        return  # judges images only, for which no example can be written
    labels = {example.violates for example in policy.examples}
    if not labels:
        yield _finding(file, ("id",), "no-examples", "has no examples, so nothing can test it")
    elif True not in labels:
        yield _finding(file, ("examples",), "no-violating-example", "no example violates it")
    elif False not in labels:
        yield _finding(
            file, ("examples",), "no-benign-example", "no example is benign; add a near miss"
        )


def _policy_set(
    file: LoadedFile, policy_set: PolicySet, library: PolicyLibrary
) -> Iterator[Finding]:
    for index, rule in enumerate(policy_set.policies):
        for threshold, action in rule.steps():
            if not EXTREME_BELOW <= threshold <= EXTREME_ABOVE:
                who = "nearly everything" if threshold < 0.5 else "nearly nothing"
                yield _finding(
                    file,
                    ("policies", index, "threshold", action.value),
                    "extreme-threshold",
                    f"{rule.id}: {who} reaches the threshold {threshold:g}",
                )
    yield from _refusals(file, policy_set)
    known = [library.policies[r.id] for r in policy_set.policies if r.id in library.policies]
    for surface in Surface:
        if known and all(policy.definition_for(surface) is None for policy in known):
            what = "what images show" if surface is Surface.IMAGE else f"any {surface.value}"
            yield _finding(
                file,
                ("policies",),
                "surface-not-covered",
                f"no policy of the set is defined for {surface.value!r}: {what} is not judged",
            )
    if all(rule.mode == "shadow" for rule in policy_set.policies):
        yield _finding(
            file,
            ("policies",),
            "nothing-enforced",
            "every policy is in shadow mode: nothing is blocked",
        )


def _refusals(file: LoadedFile, policy_set: PolicySet) -> Iterator[Finding]:
    """Words that nobody will read, or not in every language that others of the set have."""
    said: list[tuple[tuple[int | str, ...], object]] = [(("refusal",), policy_set.refusal)]
    for index, rule in enumerate(policy_set.policies):
        said.append((("policies", index, "refusal"), rule.refusal))
        if rule.refusal is not None and rule.mode == "shadow":
            yield _finding(
                file,
                ("policies", index, "refusal"),
                "unused-refusal",
                f"{rule.id}: a policy in shadow mode blocks nothing, so its refusal is never said",
            )
    by_key = {key: {tag.lower() for tag in words} for key, words in said if isinstance(words, dict)}
    every = set[str]().union(*by_key.values())
    for key, languages in by_key.items():
        if missing := sorted(every - languages):
            yield _finding(
                file,
                key,
                "refusal-lacks-language",
                f"the refusal has no text in {', '.join(missing)}, which others of the set have",
            )


def _repeated_titles(files: Iterable[LoadedFile], looked_at: Set[Path]) -> Iterator[Finding]:
    first: dict[str, LoadedFile] = {}
    for file in files:
        if isinstance(file.item, Policy):
            title = file.item.title.casefold()
            if title in first and file.folder in looked_at:
                yield _finding(
                    file,
                    ("title",),
                    "repeated-title",
                    f"{file.item.title!r} is also the title of {first[title].item.id!r}",
                )
            first.setdefault(title, file)


def _definitions(policy: Policy) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where each definition stands, and its text."""
    if isinstance(policy.definition, str):
        yield ("definition",), policy.definition
        return
    for surface in Surface:
        if (text := policy.definition_for(surface)) is not None:
            yield ("definition", surface.value), text


def _finding(
    file: LoadedFile,
    key: Sequence[int | str],
    rule: str,
    message: str,
    *,
    level: Literal["error", "warning"] = "warning",
) -> Finding:
    return Finding(
        level=level, file=file.path, line=file.document.line_of(key), rule=rule, message=message
    )
