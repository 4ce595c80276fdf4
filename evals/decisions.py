"""What a policy set would do to the records of a finished run, each taken as a whole.

The scores are the run's, thresholds and actions the set's: nothing is scored again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from evals.errors import RunError
from evals.finished import FinishedRun
from evals.metrics import Interval, wilson
from policies import Action, PolicyLibrary, PolicyRule, PolicySet


@dataclass(frozen=True, slots=True)
class Share:
    """Records that get an action."""

    count: int
    share: float
    ci95: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Records that are alike by their labels."""

    n: int
    not_scored: int
    """Records of which nothing could be scored: a gate does `on_error` to them. Not among `n`."""
    partial: int
    """Records that were not judged in full: they get at least the set's `on_incomplete`."""
    partly_asked: int
    """Records that the run did not judge by every enforced policy of the set, because they have no
    label for it: what they get is the least that they would get."""
    actions: dict[Action, Share]
    """Of the most severe policy, mildest action first; only those that the set can take."""
    policies: dict[str, dict[Action, Share]]
    """The same of each policy alone, of all `n` records; those in shadow are here alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What a set does to harmless and to violating records."""

    harmless: Kind
    """No label for a policy of the set says that it is violated."""
    violating: Kind
    """One says so, whichever."""


def decide_run(run: FinishedRun, policy_set: PolicySet, library: PolicyLibrary) -> Decisions:
    """The decisions of a set on a run's scores.

    Args:
        run: whose labelled rows count.
        policy_set: whose policies, thresholds and actions count.
        library: with the words of its policies.

    Raises:
        RunError: the run has no scores of any policy of the set, or a policy was scored by other
            words than it has now.
    """
    hashes = run.manifest.policy_set.policies
    for rule in policy_set.policies:
        now = library.policy(rule.id).hash
        if hashes.get(rule.id, now) != now:
            raise RunError(
                f"{run.folder} scored the policy {rule.id!r} by other words (hash"
                f" {hashes[rule.id]}) than it has now ({now}); score the data again"
            )
    ids = [rule.id for rule in policy_set.policies]
    scored = run.scores.filter(pl.col("policy").is_in(ids))
    unscored = run.unscored.filter(pl.col("policy").is_in(ids))
    if not len(scored):
        raise RunError(
            f"{run.folder} has no labelled scores of a policy of {policy_set.id!r}"
            f" ({', '.join(ids)}); it has {', '.join(sorted(run.scores['policy'].unique()))}"
        )
    labels = pl.concat([scored, unscored]).group_by("record_id").agg(harmful=pl.col("label").any())
    kinds = []
    for harmful in (False, True):
        members = labels.filter(harmful=harmful)
        kinds.append(
            _kind(
                scored.join(members, on="record_id", how="semi"),
                unscored.join(members, on="record_id", how="semi"),
                policy_set,
            )
        )
    return Decisions(harmless=kinds[0], violating=kinds[1])


def _kind(scored: pl.DataFrame, unscored: pl.DataFrame, policy_set: PolicySet) -> Kind:
    rows = pl.concat([_ranked(scored, rule) for rule in policy_set.policies])
    enforced = [rule.id for rule in policy_set.policies if rule.mode == "enforce"]
    is_enforced = pl.col("policy").is_in(enforced)
    records = rows.group_by("record_id").agg(
        rank=pl.col("rank").filter(is_enforced).max().fill_null(Action.ALLOW.rank),
        asked=is_enforced.sum(),
        partial=(pl.col("coverage") != "scored").any(),
    )
    on_incomplete = Action(policy_set.on_incomplete)
    incomplete = pl.when("partial").then(on_incomplete.rank).otherwise(Action.ALLOW.rank)
    ranks = records.select(pl.max_horizontal("rank", incomplete)).to_series()
    num, num_partial = len(records), int(records["partial"].sum())
    possible = {action for rule in policy_set.policies for _, action in rule.steps()}
    possible |= {Action.ALLOW} | ({on_incomplete} if num_partial else set())
    return Kind(
        n=num,
        not_scored=unscored.join(records, on="record_id", how="anti")["record_id"].n_unique(),
        partial=num_partial,
        partly_asked=int((records["asked"] < len(enforced)).sum()),
        actions=_shares(ranks, num, possible),
        policies={
            rule.id: _shares(
                rows.filter(policy=rule.id)["rank"], num, {action for _, action in rule.steps()}
            )
            for rule in policy_set.policies
        },
    )


def _ranked(rows: pl.DataFrame, rule: PolicyRule) -> pl.DataFrame:
    """The rows of a policy with the rank of the action that its rule takes."""
    rank = pl.lit(Action.ALLOW.rank, pl.Int64)
    for threshold, action in rule.steps():  # they rise
        rank = pl.when(pl.col("calibrated") >= threshold).then(action.rank).otherwise(rank)
    return rows.filter(policy=rule.id).with_columns(rank.alias("rank"))


def _shares(ranks: pl.Series, num: int, possible: Iterable[Action]) -> dict[Action, Share]:
    found = {}
    for action in sorted(possible, key=lambda action: action.rank):
        count = int((ranks == action.rank).sum())
        interval = wilson(count, num)
        if interval is not None:
            found[action] = Share(count=count, share=count / num, ci95=interval)
    return found
