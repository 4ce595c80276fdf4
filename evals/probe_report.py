"""What probes change: the numbers of each policy on the clean texts beside those on changed ones.

Both are of the same records, those that the probe changes and that could be scored both ways.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
from pydantic import JsonValue

from evals.metrics import Bools, Floats, Interval, au_prc, count
from evals.probes import Probe
from evals.resampling import au_prc_change


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeScores:
    """What a run of a probe left."""

    probe: Probe
    scores: pl.DataFrame
    """Rows of `evals.results.SCHEMA`."""
    unchanged: int
    """Records whose text the probe leaves as it is: they are not scored again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one probe does to one policy. A number that does not exist is None."""

    n: int
    positives: int
    au_prc_clean: float | None
    """None without both classes, as for the others of its kind."""
    au_prc_probed: float | None
    au_prc_change: float | None
    """Probed less clean: under 0 where the probe evades."""
    au_prc_change_ci95: tuple[float, float] | None
    recall_clean: float | None
    """At the threshold of the policy set, as are the next ones; None without positives."""
    recall_probed: float | None
    fpr_clean: float | None
    """None without negatives."""
    fpr_probed: float | None
    now_pass: int
    """Records that were flagged and no longer are, whatever their label."""
    now_flagged: int
    """Records that were not flagged and now are."""
    mean_drop_positives: float | None
    """Mean of clean less probed score of the records that violate."""
    mean_drop_negatives: float | None
    unscorable: int
    """Records that were scored clean and cannot be scored as the probe changes them."""
    partial: int
    """Records of which a part was not judged."""
    reason: str | None
    """Why numbers are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """Everything that the probes of one data set found."""

    about: dict[str, JsonValue]
    probes: dict[str, Probe]
    unchanged: dict[str, int]
    """Records that a probe leaves as they are, by probe."""
    effects: dict[str, dict[str, Effect]]
    """By policy and probe."""

    def mean_change(self, policy_id: str) -> float | None:
        """Of AU-PRC, over the probes that have one."""
        changes = [
            effect.au_prc_change
            for effect in self.effects[policy_id].values()
            if effect.au_prc_change is not None
        ]
        return float(np.mean(changes)) if changes else None

    def as_json(self) -> dict[str, JsonValue]:
        """The report for machines."""
        return {
            **self.about,
            "probes": {
                name: {"what": probe.what, "unchanged_records": self.unchanged[name]}
                for name, probe in self.probes.items()
            },
            "policies": {
                policy_id: {
                    "mean_au_prc_change": self.mean_change(policy_id),
                    "probes": {name: _as_json(effect) for name, effect in effects.items()},
                }
                for policy_id, effects in self.effects.items()
            },
        }


def report_of(
    clean: pl.DataFrame,
    found: Sequence[ProbeScores],
    *,
    seed: int,
    about: dict[str, JsonValue],
) -> ProbeReport:
    """Holds the scores of each probe against the clean ones.

    Args:
        clean: rows of `evals.results.SCHEMA`.
        found: of the same records.
        seed: of the bootstrap.
        about: what the report says of the runs.
    """
    effects: dict[str, dict[str, Effect]] = {
        policy_id: {} for policy_id in sorted(clean["policy"].unique())
    }
    for each in found:
        pairs = clean.join(each.scores, on=["record_id", "policy"], suffix="_probed")
        for policy_id, of_policy in effects.items():
            rows = pairs.filter(policy=policy_id)
            if not rows.is_empty():
                of_policy[each.probe.name] = _effect(rows, seed)
    return ProbeReport(
        about=about,
        probes={each.probe.name: each.probe for each in found},
        unchanged={each.probe.name: each.unchanged for each in found},
        effects=effects,
    )


def _effect(pairs: pl.DataFrame, seed: int) -> Effect:
    """`pairs` are the rows of one policy, clean, and probed with `_probed` behind the names."""
    could = pairs.drop_nulls("calibrated")
    rows = could.drop_nulls("calibrated_probed")
    labels: Bools = rows["label"].to_numpy().astype(np.bool_)
    clean, probed = _floats(rows["calibrated"]), _floats(rows["calibrated_probed"])
    was, is_now = _bools(rows["violates"]), _bools(rows["violates_probed"])
    before, after = count(labels, was), count(labels, is_now)
    au_prc_clean, au_prc_probed = au_prc(labels, clean), au_prc(labels, probed)
    change, interval, reason = None, None, None
    num_pos = int(labels.sum())
    found = f"found {num_pos} positives and {len(labels) - num_pos} negatives"
    if au_prc_clean is None or au_prc_probed is None:
        reason = f"AU-PRC needs positives and negatives; {found}"
    else:
        change = au_prc_probed - au_prc_clean
        if min(num_pos, len(labels) - num_pos) < 2:
            reason = f"an interval needs 2 positives and 2 negatives; {found}"
        else:
            interval = au_prc_change(labels, clean, probed, seed=seed)
    return Effect(
        n=len(labels),
        positives=num_pos,
        au_prc_clean=au_prc_clean,
        au_prc_probed=au_prc_probed,
        au_prc_change=change,
        au_prc_change_ci95=_pair(interval),
        recall_clean=before.recall,
        recall_probed=after.recall,
        fpr_clean=before.fpr,
        fpr_probed=after.fpr,
        now_pass=int(np.sum(was & ~is_now)),
        now_flagged=int(np.sum(~was & is_now)),
        mean_drop_positives=_mean((clean - probed)[labels]),
        mean_drop_negatives=_mean((clean - probed)[~labels]),
        unscorable=len(could) - len(rows),
        partial=len(rows.filter(coverage_probed="partial")),
        reason=reason,
    )


def _floats(column: pl.Series) -> Floats:
    return column.to_numpy().astype(np.float64)


def _bools(column: pl.Series) -> Bools:
    return column.to_numpy().astype(np.bool_)


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _pair(interval: Interval | None) -> tuple[float, float] | None:
    return (interval.low, interval.high) if interval else None


def _as_json(effect: Effect) -> dict[str, JsonValue]:
    interval = effect.au_prc_change_ci95
    return {**asdict(effect), "au_prc_change_ci95": list(interval) if interval else None}
