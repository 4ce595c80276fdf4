"""The table of the service's memory, and the documentation's copy of it."""

import json

from benchmarks.memory import table
from tests.e2e.serving import ROOT

RESULT = ROOT / "benchmarks" / "results" / "engine" / "memory.json"


def test_a_service_without_a_generator_has_no_chat() -> None:
    mib = {"peak": 3, "now": 2, "anonymous": 1, "files": 1}
    runs = [
        {"dtype": "bfloat16", "generator": "embedded", "after": {"the start": mib, "a chat": mib}},
        {"dtype": "float32", "generator": "none", "after": {"the start": mib}},
    ]
    assert table(runs).splitlines() == [
        "| after | bfloat16, with generator | float32, no generator |",
        "| --- | --- | --- |",
        "| the start | peak 3, now 2 | peak 3, now 2 |",
        "| a chat | peak 3, now 2 | - |",
    ]


def test_the_documentation_has_the_table_that_was_measured() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert table(json.loads(RESULT.read_text())["runs"]) in page
