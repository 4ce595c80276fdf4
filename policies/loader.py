"""Loads policies and policy sets from folders of YAML files.

`survey` reads everything and reports every problem; `load_library` is the same for those who
need a library without any.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from policies.document import Document, read_document
from policies.errors import PolicyFileError, UnknownPolicy
from policies.schema import Action, Policy, PolicyRule, PolicySet
from policies.validate import validate

CATALOG = Path(str(files("policies") / "catalog"))
"""The built-in policies, one a file."""
SETS = Path(str(files("policies") / "sets"))
"""The built-in policy sets, one a file."""
ALL = "all"
"""Names the set of every loaded policy."""
SUFFIXES = (".yaml", ".yml")
"""Of the files in a folder that are read, in any case."""


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
        """A policy set by its id, or with `all` every loaded policy, flagged from 0.5.

        Raises:
            UnknownPolicy: there is no such set.
        """
        if set_id in self.sets:
            return self.sets[set_id]
        if set_id != ALL:
            raise UnknownPolicy("policy set", set_id, [*self.sets, ALL])
        rules = tuple(
            PolicyRule(id=policy_id, threshold=0.5, action=Action.FLAG)
            for policy_id in sorted(self.policies)
        )
        return PolicySet(id=ALL, version=1, policies=rules)


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A file that is a valid policy or policy set."""

    folder: Path
    document: Document
    item: Policy | PolicySet

    @property
    def path(self) -> Path:
        """The file."""
        return self.document.path


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that was found in some folders, good and bad."""

    library: PolicyLibrary
    """What could be loaded; complete only where `errors` is empty."""
    files: tuple[LoadedFile, ...]
    """The files behind the library: a replaced policy's file is not among them."""
    errors: tuple[PolicyFileError, ...]


def load_library(extra: Iterable[Path] = ()) -> PolicyLibrary:
    """The built-in catalogue and sets, with the folders in `extra` laid over them.

    A folder may hold policies and policy sets side by side: a file with a `policies` key is a
    set. A policy of `extra` replaces the built-in one of the same id; within one folder an id
    may stand only once.

    Raises:
        PolicyFileError: a file breaks the schema, an id stands twice, a folder has no YAML
            file, or a set names a policy that is not loaded.
    """
    return load_files(extra).library


def load_files(extra: Iterable[Path] = ()) -> Survey:
    """As `load_library`, with the files that the library comes from."""
    found = survey(extra)
    if found.errors:
        first, *rest = found.errors
        raise first.with_more(tuple(rest))
    return found


def load_file(path: Path) -> Policy | PolicySet:
    """Reads one file: a policy set when it has a `policies` key, else a policy.

    Raises:
        PolicyFileError: unreadable, not YAML, or not of the schema.
    """
    return validate(read_document(path))


def survey(extra: Iterable[Path] = ()) -> Survey:
    """Reads the built-in files and the folders in `extra` and collects every problem."""
    files: dict[tuple[type, str], LoadedFile] = {}
    errors: list[PolicyFileError] = []
    claimed: set[object] = set()
    """Ids in files that could not be loaded: a set that names one is not wrong as well."""
    for folder in (CATALOG, SETS, *extra):
        seen: dict[tuple[type, str], Path] = {}
        try:
            paths = _yaml_files(folder)
        except PolicyFileError as exc:
            errors.append(exc)
            continue
        for path in paths:
            try:
                document = read_document(path)
            except PolicyFileError as exc:
                errors.append(exc)
                continue
            try:
                item = validate(document)
            except PolicyFileError as exc:
                errors += [exc.with_more(()), *exc.more]
                if isinstance(name := document.data.get("id"), str):
                    claimed.add(name)
                continue
            key = (type(item), item.id)
            if key in seen:
                kind = "policy set" if isinstance(item, PolicySet) else "policy"
                errors.append(
                    PolicyFileError(
                        path,
                        document.line_of(("id",)),
                        f"the {kind} {item.id!r} is already defined in {seen[key]}",
                        key="id",
                    )
                )
                continue
            seen[key] = path
            files[key] = LoadedFile(folder, document, item)
    library = PolicyLibrary(
        {file.item.id: file.item for file in files.values() if isinstance(file.item, Policy)},
        {file.item.id: file.item for file in files.values() if isinstance(file.item, PolicySet)},
    )
    for file in files.values():
        errors += _unknown_policies(file, library, claimed)
    return Survey(library, tuple(files.values()), tuple(errors))


def _unknown_policies(
    file: LoadedFile, library: PolicyLibrary, claimed: set[object]
) -> list[PolicyFileError]:
    if not isinstance(file.item, PolicySet):
        return []
    known = ", ".join(sorted(library.policies))
    return [
        PolicyFileError(
            file.path,
            file.document.line_of(("policies", index, "id")),
            f"there is no policy {rule.id!r}; known: {known}",
            key=f"policies[{index}].id",
        )
        for index, rule in enumerate(file.item.policies)
        if rule.id not in library.policies and rule.id not in claimed
    ]


def _yaml_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise PolicyFileError(folder, None, "is not a folder of policy files")
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as exc:
        raise PolicyFileError(folder, None, f"cannot be read: {exc.strerror or exc}") from exc
    if not found:
        raise PolicyFileError(folder, None, "holds no *.yaml file")
    return found
