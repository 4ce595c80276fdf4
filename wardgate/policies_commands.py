"""`wardgate policies`: what is loaded, what it says, and what is wrong with a folder of it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moderation.embedded.base import base_directory
from policies import Policy, PolicyError, PolicySet, Surface, UnknownPolicy, load_library
from policies.lint import ESTIMATE, Finding, TokenCounter, lint
from policies.schema import json_schema
from wardgate.environment import default_cache_dir
from wardgate.models_commands import JsonOption
from wardgate.output import FAILED, print_error, print_json, stdout

app = typer.Typer(help="List, show and check policies.", no_args_is_help=True)

PolicyDirOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--policy-dir",
        help="Folder with policies or sets of your own; may be given several times.",
    ),
]


class Kind(StrEnum):
    """Which JSON Schema."""

    POLICY = "policy"
    POLICY_SET = "policy-set"


@app.command("list", epilog="Example: wardgate policies list --policy-dir ./my-policies")
def list_policies(policy_dir: PolicyDirOption = None, as_json: JsonOption = False) -> None:
    """List all policies and policy sets."""
    try:
        library = load_library(policy_dir or ())
    except PolicyError as exc:
        raise typer.Exit(print_error(exc, as_json=as_json)) from exc
    if as_json:
        print_json(
            {
                "policies": [_policy_summary(policy) for policy in library.policies.values()],
                "sets": [_set_summary(policy_set) for policy_set in library.sets.values()],
            }
        )
        return
    table = Table("Policy", "Version", "Title", "Severity", "Judges", "Hash", box=None)
    for policy in library.policies.values():
        table.add_row(
            policy.id,
            str(policy.version),
            escape(policy.title),
            policy.severity,
            ", ".join(_surfaces(policy)),
            policy.hash,
        )
    sets = Table("Policy set", "Version", "Policies", "Hash", box=None)
    for policy_set in library.sets.values():
        ids = ", ".join(rule.id for rule in policy_set.policies)
        sets.add_row(policy_set.id, str(policy_set.version), ids, policy_set.hash)
    console = stdout()
    console.print(table)
    console.print()
    console.print(sets)


@app.command(epilog="Example: wardgate policies show dangerous_content")
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="A policy or a policy set.")],
    policy_dir: PolicyDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one policy with the words for each surface, or one policy set."""
    try:
        library = load_library(policy_dir or ())
        if name not in library.policies and name not in library.sets:
            raise UnknownPolicy("policy or policy set", name, [*library.policies, *library.sets])
    except PolicyError as exc:
        raise typer.Exit(print_error(exc, as_json=as_json)) from exc
    item = library.policies.get(name) or library.sets[name]
    if as_json:
        print_json({**item.model_dump(mode="json", exclude_none=True), "hash": item.hash})
    elif isinstance(item, Policy):
        _print_policy(stdout(), item)
    else:
        _print_set(stdout(), item)


@app.command("lint", epilog="Example: wardgate policies lint ./my-policies --strict")
def lint_folders(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="The built-in policies by default."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Report everything that is wrong or doubtful in folders of policies; exit 1 on errors."""
    tokens = _token_counter()
    findings = lint(folders or (), tokens=tokens)
    num_errors = sum(finding.level == "error" for finding in findings)
    num_warnings = len(findings) - num_errors
    if as_json:
        print_json({"findings": [_finding(f) for f in findings], "tokens": tokens.source})
    else:
        console = stdout()
        for finding in findings:
            style = "red" if finding.level == "error" else "yellow"
            console.print(str(finding), style=style, markup=False, soft_wrap=True)
        console.print(
            f"{_counted(num_errors, 'error')}, {_counted(num_warnings, 'warning')};"
            f" tokens {tokens.source}",
            markup=False,
            soft_wrap=True,
        )
    if num_errors or (strict and findings):
        raise typer.Exit(FAILED)


@app.command(epilog="Example: wardgate policies schema policy-set > policy-set.schema.json")
def schema(kind: Annotated[Kind, typer.Argument(help="Of which file.")] = Kind.POLICY) -> None:
    """Print the JSON Schema of policy files, for editors."""
    print_json(json_schema("policy" if kind is Kind.POLICY else "policy-set"))


def _token_counter() -> TokenCounter:
    """The embedded model's tokenizer where it has been converted already, else an estimate."""
    tokenizer = base_directory(default_cache_dir()) / "tokenizer.json"
    if not tokenizer.is_file():
        return ESTIMATE
    from tokenizers import Tokenizer

    encode = Tokenizer.from_file(str(tokenizer)).encode
    return TokenCounter(
        count=lambda text: len(encode(text, add_special_tokens=False).ids),
        source="counted by Gemma 3's tokenizer",
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _surfaces(policy: Policy) -> list[str]:
    return [surface.value for surface in Surface if policy.definition_for(surface) is not None]


def _policy_summary(policy: Policy) -> dict[str, object]:
    return {
        "id": policy.id,
        "version": policy.version,
        "hash": policy.hash,
        "title": policy.title,
        "severity": policy.severity,
        "surfaces": _surfaces(policy),
    }


def _set_summary(policy_set: PolicySet) -> dict[str, object]:
    return {
        "id": policy_set.id,
        "version": policy_set.version,
        "hash": policy_set.hash,
        "policies": [rule.id for rule in policy_set.policies],
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "level": finding.level,
        "file": str(finding.file),
        "line": finding.line,
        "rule": finding.rule,
        "message": finding.message,
    }


def _print_policy(console: Console, policy: Policy) -> None:
    console.print(f"{policy.id}  version {policy.version}  hash {policy.hash}", style="bold")
    console.print(f"{policy.title} (severity {policy.severity})", markup=False)
    if policy.source:
        console.print(f"source: {policy.source}", markup=False)
    for surface in _surfaces(policy):
        console.print(f"\n{surface}", style="bold")
        console.print(policy.definition_for(Surface(surface)), markup=False)
    for example in policy.examples:
        label = "violates" if example.violates else "benign"
        console.print(f"\nexample, {example.surface.value}, {label}", style="bold")
        console.print(example.text, markup=False)


def _print_set(console: Console, policy_set: PolicySet) -> None:
    console.print(
        f"{policy_set.id}  version {policy_set.version}  hash {policy_set.hash}", style="bold"
    )
    table = Table("Policy", "Thresholds", "Mode", box=None)
    for rule in policy_set.policies:
        steps = ", ".join(f"{action.value} from {value:g}" for value, action in rule.steps())
        table.add_row(rule.id, steps, rule.mode)
    console.print(table)
    console.print(f"on error: {policy_set.on_error}; on incomplete: {policy_set.on_incomplete}")
