"""What can be wrong with a policy file.

PolicyError
├── PolicyFileError   a file cannot be read as a policy or a policy set; names file and line
└── UnknownPolicy     an id that no loaded policy has
"""

from pathlib import Path


class PolicyError(Exception):
    """Root of everything that `policies` raises."""


class PolicyFileError(PolicyError):
    """A policy or policy-set file that breaks the schema."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        where = f"{path}:{line}" if line is not None else str(path)
        super().__init__(f"{where}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem


class UnknownPolicy(PolicyError):
    """A policy id or policy-set id that is not loaded."""

    def __init__(self, kind: str, name: str, known: list[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(sorted(known)) or 'none'}")
        self.name = name
