"""Imports point one way: policies <- moderation <- {service, evals} <- wardgate; the client stands
apart, and only evals asks services with it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS: dict[str, set[str]] = {
    "policies": set(),
    "moderation": {"policies"},
    "service": {"moderation", "policies"},
    "evals": {"moderation", "policies", "wardgate_client"},
    "wardgate": {"policies", "moderation", "service", "evals"},
    "wardgate_client": set(),
}
OUTSIDE = {"tests", "benchmarks"}
"""Folders that no package may import."""

MODEL_SERVERS = ROOT / "moderation" / "remote" / "server.py"
"""A client of model servers; it serves nothing."""
HTTP = {"fastapi", "starlette", "uvicorn", "httpx", "openai"}


def imported(path: Path) -> set[str]:
    """Top-level names of every import in a file, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} has a relative import"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("package", LAYERS)
def test_imports_only_point_down(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        wrong = imported(path) & (LAYERS.keys() | OUTSIDE) - LAYERS[package] - {package}
        assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("package", ["policies", "moderation", "evals"])
def test_http_stays_in_the_service(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        if path == MODEL_SERVERS:
            continue
        assert not imported(path) & HTTP, f"{path} imports {imported(path) & HTTP}"


def run_without(blocked: tuple[str, ...], code: str) -> "subprocess.CompletedProcess[str]":
    """Runs `code` in a fresh interpreter in which the `blocked` packages cannot be imported."""
    # None in sys.modules makes an import fail as if the package were not installed
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); "
    return subprocess.run(
        [sys.executable, "-c", block + code], cwd=ROOT, capture_output=True, text=True, check=False
    )


HEAVY = ("torch", "transformers", "tokenizers", "numpy", "safetensors")


@pytest.mark.parametrize(
    "code",
    [
        "import policies, policies.lint; policies.load_library(); policies.lint.lint()",
        "import moderation.verdict, moderation.content, moderation.errors",
        "import moderation.registry",
        "import wardgate.main",
    ],
)
def test_light_modules_run_without_torch(code: str) -> None:
    done = run_without(HEAVY, code)
    assert done.returncode == 0, done.stderr


def test_the_client_needs_httpx_alone() -> None:
    others = ("fastapi", "starlette", "uvicorn", "pydantic", "yaml", "typer", "rich", "PIL")
    done = run_without((*HEAVY, *others), "import wardgate_client")
    assert done.returncode == 0, done.stderr
    standard = sys.stdlib_module_names | {"httpx", "wardgate_client"}
    for path in (ROOT / "wardgate_client").rglob("*.py"):
        assert imported(path) <= standard, path


def test_the_block_of_the_test_above_does_block() -> None:
    done = run_without(HEAVY, "import moderation.engine")
    assert "import of torch halted" in done.stderr
