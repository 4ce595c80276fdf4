"""`wardgate policies test`: the examples of policy files, held against what a classifier says."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from moderation.errors import ModerationError
from policies import Policy, PolicyError, PolicySet, UnknownPolicy
from policies.loader import CATALOG, LoadedFile, Survey, load_files
from wardgate.environment import on_github
from wardgate.github import annotation, from_here
from wardgate.junit_option import JunitOption, write_junit
from wardgate.loading import ModelChoice, open_measured
from wardgate.models_commands import (
    CalibrationOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
)
from wardgate.output import FAILED, WRONG_USE, one_line, print_error, print_json, stderr, stdout
from wardgate.policies_commands import PolicyDirOption
from wardgate.progress import RecordProgress

if TYPE_CHECKING:
    from evals.junit import Check
    from evals.policy_tests import PolicyTest
    from moderation.verdict import ModelInfo

_SHOWN = {
    "error": "not scored",
    "failed": "failed",
    "known_failure": "known failure",
    "passed": "passed",
}
"""How a test went, in words; in the order of the table."""
_STYLES = {"error": "red", "failed": "red", "known_failure": "yellow", "passed": None}
_LONGEST_TEXT = 60
"""Characters of an example in the table and in the names of tests."""


def run_tests(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FOLDER|ID]...",
            help="Folders of policies, or ids. By default the folders of --policy-dir, and the"
            " built-in policies where there are none.",
        ),
    ] = None,
    policy_dir: PolicyDirOption = None,
    policy_set: Annotated[
        str,
        typer.Option(
            help="Has the thresholds. A policy that it does not name has that of the set"
            " 'default', or 0.5."
        ),
    ] = "default",
    model: ModelOption = "embedded",
    calibration: CalibrationOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = "cpu",
    junit: JunitOption = None,
    github: Annotated[
        bool | None,
        typer.Option(
            "--github/--no-github",
            help="Annotate the lines of failed examples on GitHub; by default in its jobs.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Test policies by their examples: each has to score on its side of the threshold.

    Exits with 1 when a test failed or an example could not be scored, with 2 when there are no
    examples.
    """
    from evals.policy_tests import collect_cases, run_policy_tests

    names = targets or []
    folders = [Path(name) for name in names if Path(name).is_dir()]
    ids = [name for name in names if not Path(name).is_dir()]
    dirs = [*(policy_dir or ()), *folders]
    try:
        loaded = load_files(dirs)
        files = _chosen(loaded, folders if names else dirs or [CATALOG], ids)
        cases = collect_cases(files, loaded.library, policy_set)
        for file in files:
            if not (isinstance(file.item, Policy) and file.item.examples):
                _warn(f"{file.item.id} has no examples, so nothing tests it")
        if not cases:
            _warn("found no examples; write some under the key 'examples' of a policy")
            raise typer.Exit(WRONG_USE)
        with RecordProgress(stderr()) as progress:
            rules = {case.policy_id: case.rule for case in cases}
            moderator = open_measured(
                loaded.library,
                PolicySet(id="tests", version=1, policies=tuple(rules.values())),
                ModelChoice(name=model, calibration=calibration, dtype=dtype, device=device),
                report=progress.report,
            )
            tests = run_policy_tests(moderator, cases, progress=progress.update)
    except (ModerationError, PolicyError) as exc:
        raise typer.Exit(print_error(exc, as_json=as_json)) from exc
    if junit is not None:
        write_junit(junit, "wardgate policies test", [_check(test) for test in tests])
    if on_github() if github is None else github:
        for test in tests:
            if test.problem is not None and test.status in ("failed", "error"):
                # GitHub reads both streams; this one holds no results
                print(
                    annotation(
                        test.problem,
                        file=test.file,
                        line=test.line,
                        title=f"policy {test.policy_id}",
                    ),
                    file=sys.stderr,
                )
    if as_json:
        print_json(_as_json(tests, policy_set, moderator.text.info))
    else:
        _print(tests, moderator.text.info)
    if any(test.status in ("failed", "error") for test in tests):
        raise typer.Exit(FAILED)


def _chosen(loaded: Survey, folders: Sequence[Path], ids: Sequence[str]) -> list[LoadedFile]:
    """The files of the policies that are to be tested."""
    for name in ids:
        if name not in loaded.library.policies:
            raise UnknownPolicy("policy or folder", name, [*loaded.library.policies])
    return [
        file
        for file in loaded.files
        if isinstance(file.item, Policy) and (file.folder in folders or file.item.id in ids)
    ]


def _warn(message: str) -> None:
    stderr().print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


def _check(test: "PolicyTest") -> "Check":
    from evals.junit import Check

    return Check(
        group=test.policy_id,
        name=f"{test.kind} at line {test.line}: {one_line(test.name, longest=_LONGEST_TEXT)}",
        status=test.status,
        message=test.problem,
        file=from_here(test.file),
        line=test.line,
        wall_s=test.wall_s,
    )


def _as_json(
    tests: "Sequence[PolicyTest]", policy_set: str, model: "ModelInfo"
) -> dict[str, object]:
    return {
        "model": asdict(model),
        "policy_set": policy_set,
        "counts": {status: _count(tests, status) for status in _SHOWN},
        "tests": [{**asdict(test), "file": str(from_here(test.file))} for test in tests],
    }


def _count(tests: "Sequence[PolicyTest]", status: str) -> int:
    return sum(test.status == status for test in tests)


def _print(tests: "Sequence[PolicyTest]", model: "ModelInfo") -> None:
    console = stdout()
    table = Table(box=None, pad_edge=False)
    table.add_column("Result", no_wrap=True)
    table.add_column("Score", justify="right", no_wrap=True)
    table.add_column("Expected", no_wrap=True)
    table.add_column("Policy", no_wrap=True)
    table.add_column("Where", overflow="fold")
    table.add_column("Example", overflow="fold", min_width=30)
    order = list(_SHOWN)
    for test in sorted(tests, key=lambda test: order.index(test.status)):
        name = one_line(test.name, longest=_LONGEST_TEXT)
        shown = name if test.kind == "example" else f"pair {name}"
        if test.status in ("failed", "error"):
            shown += f"\n{test.problem}"
        score = "-"
        if test.score is not None:
            raw = "" if test.is_calibrated or model.calibration is None else " (raw)"
            score = f"{test.score:+.3f}{raw}" if test.kind == "pair" else f"{test.score:.3f}{raw}"
        table.add_row(
            _SHOWN[test.status],
            score,
            test.needs,
            test.policy_id,
            escape(f"{from_here(test.file)}:{test.line}"),
            escape(shown),
            style=_STYLES[test.status],
        )
    console.print(table)
    told = [f"{_count(tests, status)} {words}" for status, words in _SHOWN.items()]
    console.print(f"{', '.join(told)}; by {model.name} ({model.revision})", markup=False)
