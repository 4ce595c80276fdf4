"""The command line as a whole: help, version, start-up."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer.main
from typer.testing import CliRunner

from wardgate.main import app


def commands() -> Iterator[tuple[str, ...]]:
    """The path of every command, found by walking what is registered."""

    def walk(path: tuple[str, ...], command: object) -> Iterator[tuple[str, ...]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield path
            return
        for name, child in children.items():
            yield from walk((*path, name), child)

    return walk((), typer.main.get_command(app))


def test_all_commands_are_registered() -> None:
    assert set(commands()) >= {
        ("score",),
        ("serve",),
        ("policies", "list"),
        ("policies", "show"),
        ("policies", "lint"),
        ("policies", "schema"),
        ("models", "list"),
        ("models", "check"),
        ("eval", "run"),
    }


@pytest.mark.parametrize("path", [(), *commands()], ids=lambda path: " ".join(path) or "wardgate")
def test_every_help_shows_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert f"Example: wardgate {' '.join(path)}".strip() in result.stdout


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("wardgate 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["score"],
        ["score", "text", "--file", __file__],
        ["score", "text", "--surface", "image"],
        ["score", "text", "--dtype", "float16"],
        ["score", "text", "--context", "a prompt"],
        ["score", "text", "--policies", "no_such_set"],
        ["score", "--image", "/no/such/file.png"],
        ["score", "--file", "/no/such/file.txt"],
        ["score", "--jsonl", "/"],
        ["policies", "show", "no_such_policy"],
        ["policies", "schema", "nonsense"],
        ["models", "check"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_two(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert not result.stdout


def test_help_starts_without_torch() -> None:
    code = "import sys, wardgate.main as m; sys.argv=['wardgate', '--help']\n"
    code += "try: m.main()\nfinally: assert not {'torch', 'transformers'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
