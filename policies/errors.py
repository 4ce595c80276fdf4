"""What can be wrong with a policy file.

PolicyError
├── PolicyFileError   a file cannot be read as a policy or a policy set; names file, line and key
└── UnknownPolicy     an id that no loaded policy has
"""

from pathlib import Path


class PolicyError(Exception):
    """Root of everything that `policies` raises."""


class PolicyFileError(PolicyError):
    """A policy or policy-set file that breaks the schema: `file:line: key: problem`."""

    def __init__(
        self,
        path: Path,
        line: int | None,
        problem: str,
        *,
        key: str | None = None,
        more: "tuple[PolicyFileError, ...]" = (),
    ) -> None:
        """`more` holds the other problems that were found at the same time."""
        where = f"{path}:{line}" if line is not None else str(path)
        named = f"{where}: {key}: {problem}" if key else f"{where}: {problem}"
        super().__init__(f"{named} (and {len(more)} more)" if more else named)
        self.path = path
        self.line = line
        self.key = key
        self.problem = problem
        self.more = more

    def with_more(self, more: "tuple[PolicyFileError, ...]") -> "PolicyFileError":
        """The same problem with other company."""
        return PolicyFileError(self.path, self.line, self.problem, key=self.key, more=more)


class UnknownPolicy(PolicyError):
    """A policy id or policy-set id that is not loaded."""

    def __init__(self, kind: str, name: str, known: list[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(sorted(known)) or 'none'}")
        self.name = name
