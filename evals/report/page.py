"""A report as one page of HTML: no script, nothing from elsewhere, all texts escaped."""

import re
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evals.report import charts, findings, words
from evals.report.content import Report

_PACKAGE = "evals.report"


def report_html(report: Report) -> str:
    """The page, ending in a newline."""
    environment = Environment(
        loader=PackageLoader(_PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # our own file, without a "<": it would end its element early if it had one
    css = Markup((files(_PACKAGE) / "report.css").read_text(encoding="utf-8"))
    return environment.get_template("report.html.j2").render(
        report=report,
        css=css,
        charts=charts,
        findings=findings,
        words=words,
        breakable=_breakable,
    )


def _breakable(name: str) -> Markup:
    """A name that a narrow page may break behind its dots and underscores."""
    return Markup("<wbr>").join(re.split(r"(?<=[._])", name))
