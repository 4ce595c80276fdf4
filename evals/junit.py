"""Checks as a JUnit XML file, which GitHub's reporters, GitLab and Jenkins read.

Source: the form that pytest writes (`junit_family=xunit1`): `file` and `line` stand at the case.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

# what XML 1.0 cannot hold, not even escaped
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One test case."""

    group: str
    """Shown as its class."""
    name: str
    """Tells it apart in its group."""
    status: Literal["passed", "failed", "known_failure", "error"]
    message: str | None
    """Why it did not pass."""
    file: Path
    line: int
    wall_s: float = 0.0


def junit_xml(suite: str, checks: Sequence[Check]) -> bytes:
    """The file; a known failure is a test that was skipped, as in pytest."""
    counts = {
        "tests": len(checks),
        "failures": sum(check.status == "failed" for check in checks),
        "errors": sum(check.status == "error" for check in checks),
        "skipped": sum(check.status == "known_failure" for check in checks),
    }
    totals = {name: str(count) for name, count in counts.items()}
    totals["time"] = f"{sum(check.wall_s for check in checks):.3f}"
    root = ElementTree.Element("testsuites", {"name": suite, **totals})
    parent = ElementTree.SubElement(root, "testsuite", {"name": suite, **totals})
    for check in checks:
        case = ElementTree.SubElement(
            parent,
            "testcase",
            {
                "classname": _clean(check.group),
                "name": _clean(check.name),
                "file": _clean(str(check.file)),
                "line": str(check.line),
                "time": f"{check.wall_s:.3f}",
            },
        )
        if check.status != "passed":
            tag = {"failed": "failure", "error": "error", "known_failure": "skipped"}[check.status]
            message = _clean(check.message or "")
            child = ElementTree.SubElement(case, tag, {"type": check.status, "message": message})
            child.text = f"{_clean(str(check.file))}:{check.line}: {message}"
    ElementTree.indent(root)
    file = io.BytesIO()
    ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
    return file.getvalue()


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
