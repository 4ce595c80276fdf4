"""Annotations of a build on GitHub: lines that its runner finds in what a command prints.

Source: docs.github.com, "Workflow commands for GitHub Actions", setting an error message.
"""

from pathlib import Path


def annotation(message: str, *, file: Path, line: int, title: str) -> str:
    """One line that shows `message` as an error at a line of a file."""
    return (
        f"::error file={_property(str(from_here(file)))},line={line},title={_property(title)}"
        f"::{_data(message)}"
    )


def from_here(path: Path) -> Path:
    """The path as seen from the working directory, where it lies in it."""
    whole, here = path.absolute(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else path


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
