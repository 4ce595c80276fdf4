"""Two versions of policies, each a file, a folder or an id: what became of every policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from policies import Policy, PolicyFileError, PolicyLibrary, UnknownPolicy, load_file, load_library
from policies.loader import load_files

if TYPE_CHECKING:
    from evals.policy_diff import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Policies as one of the arguments has them."""

    library: PolicyLibrary
    ids: frozenset[str]
    """That the argument names."""
    is_folder: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """What became of each policy."""

    changes: "list[Change]"
    unchanged: list[str]
    added: list[str]
    removed: list[str]


def read_version(name: str, policy_dir: Sequence[Path]) -> Version:
    """The policies that a file, a folder or an id means.

    Raises:
        PolicyError: there is no such policy, or a file of it is wrong.
    """
    path = Path(name)
    if path.is_dir():
        loaded = load_files([*policy_dir, path])
        ids = [f.item.id for f in loaded.files if f.folder == path and isinstance(f.item, Policy)]
        return Version(library=loaded.library, ids=frozenset(ids), is_folder=True)
    library = load_library(policy_dir)
    if path.is_file():
        policy = load_file(path)
        if not isinstance(policy, Policy):
            raise PolicyFileError(path, None, "is a policy set; expected a policy, or a folder")
        library = replace(library, policies={**library.policies, policy.id: policy})
    else:
        policy = library.policy(name)
    return Version(library=library, ids=frozenset([policy.id]), is_folder=False)


def pair_versions(old: Version, new: Version, only: Sequence[str], set_id: str) -> Pairing:
    """Each policy that an argument names, as both would have it deployed.

    A policy that one folder lacks is the built-in one there, as it is where the folder is used.

    Args:
        old, new: the versions.
        only: ids of the policies that are wanted; all of them without any.
        set_id: the policy set that has the thresholds.

    Raises:
        BadParameter: two files, or ids, of different policies.
        UnknownPolicy: there is no such policy or set.
    """
    from evals.policy_diff import Change
    from evals.policy_tests import rule_of

    if not (old.is_folder or new.is_folder) and old.ids != new.ids:
        raise typer.BadParameter(
            f"OLD is the policy {min(old.ids)!r} and NEW {min(new.ids)!r}; expected two versions"
            " of one policy, with one id"
        )
    ids = old.ids | new.ids
    if old.is_folder != new.is_folder:
        ids = (new if old.is_folder else old).ids
    for policy_id in only:
        if policy_id not in ids:
            raise UnknownPolicy("policy", policy_id, sorted(ids))
    pairing = Pairing(changes=[], unchanged=[], added=[], removed=[])
    for policy_id in sorted(only or ids):
        if policy_id not in old.library.policies:
            pairing.added.append(policy_id)
        elif policy_id not in new.library.policies:
            pairing.removed.append(policy_id)
        else:
            rules = [
                rule_of(policy_id, version.library.policy_set(set_id), version.library)[0]
                for version in (old, new)
            ]
            change = Change(
                old=old.library.policy(policy_id),
                new=new.library.policy(policy_id),
                old_rule=rules[0],
                new_rule=rules[1],
            )
            if change.of_words or change.old_threshold != change.new_threshold:
                pairing.changes.append(change)
            else:
                pairing.unchanged.append(policy_id)
    return pairing
