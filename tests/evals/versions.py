"""Versions of a made-up policy, and what a scripted classifier says by them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from evals.policy_diff import Change
from evals.policy_diff_run import EXAMPLES, Texts, example_texts, run_versions
from evals.records import Record
from evals.run import RunPlan
from policies import Action, Policy, PolicyLibrary, PolicyRule, PolicySet
from policies.schema import Example
from tests.evals.saying import saying_moderator


def version(definition: Any, *examples: Example, policy_id: str = "spam") -> Policy:
    return Policy.model_validate(
        {
            "id": policy_id,
            "version": 1,
            "title": "Spam",
            "definition": definition,
            "severity": "low",
            "examples": examples,
        }
    )


def change(old: Policy, new: Policy, thresholds: tuple[float, float] = (0.5, 0.5)) -> Change:
    rules = [PolicyRule(id=old.id, threshold=each, action=Action.BLOCK) for each in thresholds]
    return Change(old=old, new=new, old_rule=rules[0], new_rule=rules[1])


def records(*texts: str, labels: Mapping[str, bool] | None = None) -> list[Record]:
    return [
        Record(id=f"r{number}", text=text, role="user", labels=dict(labels or {}))
        for number, text in enumerate(texts)
    ]


def diff_plan(changes: Sequence[Change], out: Path, *, data: str = EXAMPLES) -> RunPlan:
    rules = tuple(each.new_rule for each in changes)
    policy_set = PolicySet(id="diff", version=1, policies=rules)
    return RunPlan(data=Path(data), policy_set=policy_set, out=out / data, batch=2)


def scored(changes: Sequence[Change], out: Path, **data: Sequence[Record]) -> pl.DataFrame:
    """What both versions say of each data, and of the examples where those are to be asked."""
    texts = [
        Texts(plan=diff_plan(changes, out, data=name), sha256=name, records=records)
        for name, records in data.items()
    ]
    if not texts:
        texts = [example_texts(diff_plan(changes, out), changes)]
    old = saying_moderator(PolicyLibrary({each.old.id: each.old for each in changes}, {}))
    new = saying_moderator(PolicyLibrary({each.new.id: each.new for each in changes}, {}))
    return run_versions(old, new, changes, texts)
