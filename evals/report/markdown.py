"""A report as Markdown, without the diagrams; whatever comes from records is taken literally."""

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from evals.report import findings, words
from evals.report.content import Mistake, Report, RunPart
from evals.slices import Numbers


def report_markdown(report: Report) -> str:
    """The page, ending in a newline."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {_literal(words.title(report))}"
    yield ""
    if report.with_texts:
        yield f"**This file holds texts of the data**, {words.SHARING}"
        yield ""
    for number, run in enumerate(report.runs, start=1):
        if len(report.runs) > 1:
            yield f"## Run {number}: {_literal(run.name)}"
            yield ""
        yield from _run(run, report)
    if report.published:
        yield "## Published numbers, not measured here"
        yield ""
        yield words.ELSEWHERE
        yield ""
        yield from _table(
            ("System", "Data", "Number", "Published", "Source", "Note"),
            [
                [
                    *map(_literal, (each.system, each.data, each.metric)),
                    f"{each.value:g}",
                    _literal(each.source),
                    _literal(each.note or ""),
                ]
                for each in report.published
            ],
        )
    yield "## How to read this"
    yield ""
    for name, meaning in words.READING.items():
        yield f"* **{name}**: {meaning}"


def _run(run: RunPart, report: Report) -> Iterator[str]:
    yield _literal(findings.what_was_evaluated(run))
    yield ""
    yield f"**{findings.verdict(run)}**"
    yield ""
    if run.bars:
        yield findings.rates(run)
        yield ""
    for finding in findings.noteworthy(run):
        yield f"* {_literal(finding)}"
    yield ""
    if run.bars:
        yield from _table(
            ("Bar", "Policy", "Number", "Records", "Expected", "Found"),
            [
                [
                    words.BAR_STATUS[held.status],
                    *map(_literal, (held.policy, held.bar.metric, words.bar_where(held))),
                    *map(_literal, (held.bar.limit, words.bar_found(held))),
                ]
                for held in words.bars(run)
            ],
        )
    rows = [(part.id, part.numbers) for part in run.policies]
    if len(rows) > 1:
        rows += [("all, micro", run.whole.micro), ("all, macro", run.whole.macro)]
    yield from _table(
        ("Policy", "Scored", "Violate", *words.NAMES.values()),
        [
            [
                _literal(name),
                *(str(numbers.get(key, "")) for key in ("n", "positives")),
                *(_cell(numbers, key) for key in words.NAMES),
            ]
            for name, numbers in rows
        ],
    )
    yield from _missing(words.lines_missing(run, report), words.NAMES)
    sliced = words.told_apart(run)
    for name in words.HEAT if sliced else ():
        yield f"### {words.NAMES[name]} by slice"
        yield ""
        yield from _table(
            ("Slice", "Records", *(_literal(part.id) for part in run.policies)),
            [
                [
                    _literal(f"{column} {each.value or 'not said'}"),
                    str(each.num_records),
                    *(
                        _cell(each.policies[part.id], name) if part.id in each.policies else "few"
                        for part in run.policies
                    ),
                ]
                for column, found in sliced.items()
                for each in found.slices
            ],
        )
    if run.sliced:
        yield f"“few” is fewer than {report.min_records} scored records."
        yield from map(_literal, words.not_shown(run))
        yield ""
        yield from _missing(words.slices_missing(run), words.HEAT)
    yield "### Worst mistakes"
    yield ""
    for part in run.policies:
        yield f"* {_literal(part.id)}: {words.num_mistakes(part)}"
        for each in part.mistakes:
            yield f"  * {_literal(words.mistake(each))}, {_literal(each.record_id)}"
            yield from _text(each)
    yield ""
    yield "### What was run"
    yield ""
    yield from _table(
        ("Name", "Value"),
        [[_literal(name), _literal(words.plain(value))] for name, value in run.about.items()],
    )


def _text(each: Mistake) -> Iterator[str]:
    """In one line of HTML, which no line of the text can end."""
    for what, text in (("what it answers", each.prompt), ("the text", each.text)):
        if text is not None:
            shown = escape(words.visible(text)).replace("\n", "&#10;")
            yield f"    <details><summary>{what}</summary><pre>{shown}</pre></details>"
            yield ""


def _missing(lines: Sequence[tuple[str, Numbers]], names: Iterable[str]) -> Iterator[str]:
    if lines:
        yield "Why numbers are missing:"
        yield ""
        for where, numbers in lines:
            for reason, missing in words.missing(numbers, names).items():
                yield f"* {_literal(where)}, {', '.join(missing)}: {_literal(reason)}"
        yield ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _cell(numbers: Numbers, name: str) -> str:
    if name not in numbers:
        return ""
    found = words.cell(numbers, name)
    return f"{found.value} {found.interval}" if found.interval else found.value


def _literal(text: str) -> str:
    """A text in one line in which nothing is markup, wherever it stands."""
    line = " ".join(words.visible(text).split())
    # as entities, which Markdown never takes for its own signs, unlike what a backslash leaves
    literal = "".join(f"&#{ord(each)};" if each in _SIGNS else each for each in line)
    # these begin a link, to GitHub
    return re.sub(r"(?i)(www)\.", r"\1&#46;", literal.replace("://", "&#58;//"))


_SIGNS = frozenset("\\`*_{}[]<>()#+!|~&$@\"'=")
