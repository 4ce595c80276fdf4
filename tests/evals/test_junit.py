"""JUnit files: counts, places, and characters that XML cannot hold."""

from pathlib import Path
from xml.etree import ElementTree

from evals.junit import Check, junit_xml


def check(status: str, message: str | None = None, name: str = "a test") -> Check:
    return Check(
        group="spam",
        name=name,
        status=status,  # type: ignore[arg-type]
        message=message,
        file=Path("my policies/spam.yaml"),
        line=7,
        wall_s=0.25,
    )


def test_each_outcome_is_what_build_servers_call_it() -> None:
    checks = [
        check("passed"),
        check("failed", "scores 0.4; expected >= 0.5"),
        check("error", "could not be scored"),
        check("known_failure", "scores 0.4"),
    ]
    root = ElementTree.fromstring(junit_xml("a suite", checks))
    [suite] = root
    for element in (root, suite):
        assert {name: element.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
            "tests": "4",
            "failures": "1",
            "errors": "1",
            "skipped": "1",
        }
        assert element.get("time") == "1.000"
    found = [[child.tag for child in case] for case in suite]
    assert found == [[], ["failure"], ["error"], ["skipped"]]
    case = suite[1]
    assert (case.get("classname"), case.get("name")) == ("spam", "a test")
    assert (case.get("file"), case.get("line")) == ("my policies/spam.yaml", "7")
    assert case[0].get("message") == "scores 0.4; expected >= 0.5"
    assert case[0].text == "my policies/spam.yaml:7: scores 0.4; expected >= 0.5"


def test_any_text_gives_a_file_that_can_be_read() -> None:
    text = "<a & b> \x00\x1b[31m \ud800 \ufffe 漢 😀 \"'"
    root = ElementTree.fromstring(junit_xml("s", [check("failed", text, name=text)]))
    shown = "<a & b> ��[31m � � 漢 😀 \"'"
    assert root[0][0].get("name") == shown
    assert root[0][0][0].get("message") == shown
