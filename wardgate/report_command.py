"""`wardgate eval report`: what finished runs found, as a page for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from policies import PolicyFileError
from wardgate.eval_errors import needs_eval_extra, print_eval_error
from wardgate.finished_options import BY, BY_HELP, PolicyOption, split_names
from wardgate.models_commands import JsonOption
from wardgate.output import FAILED, WRONG_USE, print_error, print_json, stderr, stdout
from wardgate.progress import counting

if TYPE_CHECKING:
    from evals.finished import FinishedRun
    from evals.records import Record
    from evals.report.content import Report

Format = Literal["html", "md", "json"]


def report(
    runs: Annotated[
        list[Path], typer.Argument(exists=True, file_okay=False, help="Folders of finished runs.")
    ],
    out: Annotated[
        Path, typer.Option(dir_okay=False, help="The file: .html, .md or .json by its ending.")
    ],
    format_: Annotated[
        Format | None, typer.Option("--format", help="Where the ending does not say it.")
    ] = None,
    by: Annotated[str, typer.Option(help=BY_HELP)] = BY,
    policy: PolicyOption = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Records that were scored, for columns that a run does not keep and for texts;"
            " can be repeated.",
        ),
    ] = None,
    show_text: Annotated[
        bool,
        typer.Option(
            "--show-text", help="Put the texts of the mistakes into the file; needs --data."
        ),
    ] = False,
    mistakes: Annotated[
        int, typer.Option(min=0, help="To list of each kind and policy, the worst first.")
    ] = 5,
    bars: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Bars as of eval gate, for a verdict."),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A YAML file of published numbers to show apart."
        ),
    ] = None,
    min_records: Annotated[
        int, typer.Option(min=1, help="Hide slices, and policies in a slice, of fewer records.")
    ] = 30,
    as_json: JsonOption = False,
) -> None:
    """Write what finished runs found into one file: HTML that needs nothing else, Markdown or JSON.

    Texts of records are left out unless asked for, so that the file can be passed on.

    Exits with 1 when a folder holds no finished run or --data is not what it scored.
    """
    needs_eval_extra(as_json=as_json)
    from evals.bars import read_bars
    from evals.columns import check_columns
    from evals.errors import RunError
    from evals.finished import read_run
    from evals.journal import write_whole
    from evals.records import RecordError
    from evals.report.content import Report, Wanted
    from evals.report.describe import describe_run
    from evals.report.published import read_published

    kind = _format(out, format_)
    if show_text and not data:
        raise typer.BadParameter("a run keeps no text; --show-text needs --data")
    try:
        held = read_bars(bars) if bars is not None else None
        numbers = read_published(published) if published is not None else ()
    except PolicyFileError as exc:
        print_error(exc, as_json=as_json)
        raise typer.Exit(WRONG_USE) from exc
    wanted = Wanted(
        by=split_names(by),
        policies=policy or [],
        min_records=min_records,
        num_mistakes=mistakes,
        with_texts=show_text,
        bars=held,
    )
    try:
        check_columns([*wanted.by, *(held.columns if held else [])], with_data=bool(data))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    try:
        finished = [read_run(folder) for folder in runs]
        scored = _records(finished, data or [])
        with counting(stderr(), "measuring runs", len(finished)) as done:
            parts = []
            for run, records in zip(finished, scored, strict=True):
                parts.append(describe_run(run, wanted, records))
                done()
        text = _render(
            Report(
                runs=tuple(parts),
                min_records=min_records,
                with_texts=show_text,
                published=numbers,
            ),
            kind,
        )
        # a lone surrogate in a field of a record becomes the escape that JSON has for it
        write_whole(out, text.encode(errors="backslashreplace"))
    except (RunError, RecordError) as exc:
        print_eval_error(exc.code, str(exc), as_json=as_json)
        raise typer.Exit(FAILED) from exc
    if as_json:
        print_json({"report": str(out), "format": kind, "with_texts": show_text})
    else:
        stdout().print(f"report: {out}", soft_wrap=True, markup=False)


def _format(out: Path, wanted: Format | None) -> Format:
    if wanted is not None:
        return wanted
    for known in get_args(Format):
        if out.suffix == f".{known}":
            return known  # type: ignore[no-any-return]
    raise typer.BadParameter(
        f"the ending of {out.name!r} names no format; expected .html, .md or .json, or --format"
    )


def _records(runs: "Sequence[FinishedRun]", data: Sequence[Path]) -> "list[list[Record]]":
    """The records of each run; none where no data was given. Raises `RunError`, `RecordError`."""
    from evals.columns import records_of
    from evals.errors import RunError
    from evals.records import file_sha256

    if not data:
        return [[] for _ in runs]
    by_hash = {file_sha256(path): records_of(path, runs) for path in data}
    for run in runs:
        if run.manifest.data.sha256 not in by_hash:
            raise RunError(
                f"{run.folder} scored {run.manifest.data.name}, which is not among the --data; give"
                " the records of every run, or of none"
            )
    return [by_hash[run.manifest.data.sha256] for run in runs]


def _render(report: "Report", kind: Format) -> str:
    from evals.report.machine import report_json
    from evals.report.markdown import report_markdown
    from evals.report.page import report_html

    return {"html": report_html, "md": report_markdown, "json": report_json}[kind](report)
