"""Every command that the documentation shows is run as it stands there.

Fenced blocks are read from README.md, docs/*.md and docs/tutorials/*.md: `sh` blocks run in bash,
`python` blocks in Python, each page's in order, and a block whose fence names a file
(```yaml my-policies/x.yaml) is written to that file first. `make` lines are held against the
Makefile, which cannot run itself here.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.serving import ROOT, Served, environment, serve

pytestmark = pytest.mark.model

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
]
FENCE = re.compile(r"^```(\w+)[ ]?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    file: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.stem}: {self.text.strip().splitlines()[0][:50]}"


BLOCKS = [
    Block(page, language, file, text)
    for page in PAGES
    for language, file, text in FENCE.findall(page.read_text(encoding="utf-8"))
]
COMMANDS = [block for block in BLOCKS if block.language == "sh" and "make " not in block.text]
PROGRAMS = [block for block in BLOCKS if block.language == "python"]
MAKE_TARGETS = {
    target
    for block in BLOCKS
    if block.language == "sh"
    for target in re.findall(r"^make (\w+)$", block.text, re.MULTILINE)
}


@pytest.fixture(scope="module")
def served(cache_dir: Path) -> Iterator[Served]:
    with serve(WARDGATE_CACHE_DIR=str(cache_dir)) as served:
        served.wait_ready()
        yield served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: the examples of the repository, and the files that the pages show."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "docs").symlink_to(ROOT / "docs")
    for block in BLOCKS:
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    return folder


def run(command: list[str], text: str, folder: Path, served: Served, cache_dir: Path) -> str:
    """Runs a block's text, the documented address replaced by the one that is served here."""
    bin_folder = Path(sys.executable).parent
    done = subprocess.run(
        [*command, text.replace("http://127.0.0.1:8080", served.url)],
        cwd=folder,
        env=environment(
            WARDGATE_CACHE_DIR=str(cache_dir), PATH=f"{bin_folder}:{os.environ['PATH']}"
        ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.name)
def test_a_documented_command_works(
    block: Block, folder: Path, served: Served, cache_dir: Path
) -> None:
    output = run(["bash", "-euo", "pipefail", "-c"], block.text, folder, served, cache_dir)
    assert output.strip()
    assert '"error":' not in output  # a key; a value is what Llama Stack calls a level


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.name)
def test_a_documented_program_works(
    block: Block, folder: Path, served: Served, cache_dir: Path
) -> None:
    assert run([sys.executable, "-c"], block.text, folder, served, cache_dir).strip()


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert {"run", "test", "check"} <= MAKE_TARGETS
    for target in MAKE_TARGETS:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_calls_that_serve_prints_are_the_ones_of_the_readme(served: Served) -> None:
    said = " ".join(served.stderr.replace(served.url, "http://127.0.0.1:8080").split())
    for block in COMMANDS:
        if block.page.name == "README.md" and "curl" in block.text:
            body = re.search(r"'(\{\"(?:input|model)\".*\})'", block.text, re.DOTALL)
            assert body is not None
            assert " ".join(body[1].split()) in said
