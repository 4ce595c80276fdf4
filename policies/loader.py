"""Reads policies and policy sets from YAML files, each problem named with file and line."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from policies.errors import PolicyFileError, UnknownPolicy
from policies.schema import Policy, PolicySet

CATALOG = Path(str(files("policies") / "catalog"))
"""The built-in policies, one a file."""
SETS = Path(str(files("policies") / "sets"))
"""The built-in policy sets, one a file."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class PolicyLibrary:
    """All loaded policies and policy sets, by id; every set names only loaded policies."""

    policies: dict[str, Policy]
    sets: dict[str, PolicySet]

    def policy(self, policy_id: str) -> Policy:
        """Raises `UnknownPolicy`."""
        if policy_id not in self.policies:
            raise UnknownPolicy("policy", policy_id, list(self.policies))
        return self.policies[policy_id]

    def policy_set(self, set_id: str) -> PolicySet:
        """Raises `UnknownPolicy`."""
        if set_id not in self.sets:
            raise UnknownPolicy("policy set", set_id, list(self.sets))
        return self.sets[set_id]


def load_library(extra: Iterable[Path] = ()) -> PolicyLibrary:
    """The built-in catalogue and sets, with the folders in `extra` laid over them.

    A folder may hold policies and policy sets side by side: a file with a `policies` key is a
    set. A policy of `extra` replaces the built-in one of the same id; within one folder an id
    may stand only once.

    Raises:
        PolicyFileError: a file breaks the schema, an id stands twice, a folder has no YAML
            file, or a set names a policy that is not loaded.
    """
    policies: dict[str, Policy] = {}
    sets: dict[str, PolicySet] = {}
    origin: dict[str, Path] = {}
    for folder in (CATALOG, SETS, *extra):
        found = _yaml_files(folder)
        seen: dict[str, Path] = {}
        for path in found:
            item = load_file(path)
            kind = "set" if isinstance(item, PolicySet) else "policy"
            key = f"{kind} {item.id}"
            if key in seen:
                raise PolicyFileError(path, None, f"{key!r} is already defined in {seen[key]}")
            seen[key] = path
            if isinstance(item, PolicySet):
                sets[item.id] = item
                origin[item.id] = path
            else:
                policies[item.id] = item
    for policy_set in sets.values():
        for rule in policy_set.policies:
            if rule.id not in policies:
                known = ", ".join(sorted(policies))
                raise PolicyFileError(
                    origin[policy_set.id],
                    _line_of(origin[policy_set.id], rule.id),
                    f"names the unknown policy {rule.id!r}; known: {known}",
                )
    return PolicyLibrary(policies, sets)


def load_file(path: Path) -> Policy | PolicySet:
    """Reads one file: a policy set when it has a `policies` key, else a policy.

    Raises:
        PolicyFileError: unreadable, not YAML, or not of the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise PolicyFileError(path, None, f"cannot be read: {exc}") from exc
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else None
        raise PolicyFileError(path, line, f"is not valid YAML: {exc.problem}") from exc
    except yaml.YAMLError as exc:
        raise PolicyFileError(path, None, f"is not valid YAML: {exc}") from exc
    if not isinstance(data, dict) or not isinstance(node, yaml.MappingNode):
        raise PolicyFileError(path, 1, "expected a mapping with the keys of a policy")
    _refuse_repeated_keys(path, node)
    model = PolicySet if "policies" in data else Policy
    return _validate(path, node, data, model)


def _validate(path: Path, node: yaml.Node, data: object, model: type[Model]) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        problem = exc.errors()[0]
        location = ".".join(str(step) for step in problem["loc"]) or model.__name__
        more = f" (and {exc.error_count() - 1} more)" if exc.error_count() > 1 else ""
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key; known: {', '.join(model.model_fields)}"
            if len(problem["loc"]) > 1:
                message = "unknown key"
        raise PolicyFileError(
            path, _line_at(node, problem["loc"]), f"{location}: {message}{more}"
        ) from exc


def _line_at(node: yaml.Node, location: tuple[int | str, ...]) -> int:
    """The line of the deepest part of `location` that stands in the file."""
    line = node.start_mark.line + 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            match = [(key, value) for key, value in node.value if key.value == step]
            if not match:
                continue  # the name of a union's branch, or a key that is missing
            line = match[0][0].start_mark.line + 1
            node = match[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _refuse_repeated_keys(path: Path, node: yaml.Node) -> None:
    """YAML lets the last of two equal keys win in silence; a policy must not."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise PolicyFileError(
                    path, key.start_mark.line + 1, f"the key {key.value!r} stands twice"
                )
            seen.add(key.value)
            _refuse_repeated_keys(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(path, item)


def _yaml_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise PolicyFileError(folder, None, "is not a folder of policy files")
    found = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not found:
        raise PolicyFileError(folder, None, "holds no *.yaml file")
    return found


def _line_of(path: Path, needle: str) -> int | None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if needle in line:
            return number
    return None
