"""What a change of policies does to verdicts: how many turn, in which direction, and where."""

from dataclasses import dataclass

import polars as pl

from evals.compare import Comparison, compare_rows
from evals.metrics import Interval, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """One direction in which verdicts change."""

    count: int
    share: float | None
    """Of the records that both versions judged; None without any."""
    ci95: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """Records whose verdict changes."""

    n: int
    """Records that both versions judged."""
    newly_flagged: Flips
    no_longer_flagged: Flips

    @property
    def num_flips(self) -> int:
        """In both directions."""
        return self.newly_flagged.count + self.no_longer_flagged.count

    @property
    def share(self) -> float:
        """Of verdicts that change, to sort by; 1 where there are none to change any more."""
        return self.num_flips / self.n if self.n else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Radius:
    """What a change does to one kind of data."""

    data: str
    policy: str
    turned: Turned
    only_old_scored: int
    """Records that the new version could not score, and the old one could."""
    not_scored: int
    """Records that the old version could not score."""
    partial: int
    """Records of which a part was not judged: their verdicts say nothing of it."""
    calibrated: tuple[bool, bool]
    """Whether the scores of the old and the new version are."""
    labelled: Comparison | None
    """On the records with a label; None without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What a change does to the records with one value of a column."""

    data: str
    policy: str
    value: str | None
    """None: the records that do not say."""
    turned: Turned


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """A change by one column."""

    slices: tuple[Slice, ...]
    """The one with the largest share of changed verdicts first."""
    hidden: int
    """Slices of too few records."""


def blast_radius(rows: pl.DataFrame, *, seed: int) -> list[Radius]:
    """What a change does to each data, the policy with the largest share of flips first.

    Args:
        rows: of `evals.policy_diff_run.SCHEMA`.
        seed: of the intervals of labelled numbers.
    """
    found = [
        _radius(str(data), str(policy), members, seed)
        for (data, policy), members in rows.group_by("data", "policy", maintain_order=True)
    ]
    order = list(dict.fromkeys(each.data for each in found))
    return sorted(found, key=lambda each: (order.index(each.data), -each.turned.share))


def by_slice(rows: pl.DataFrame, column: str, *, min_records: int) -> Slices:
    """The same for each value of a column; slices of fewer records are hidden."""
    found = [
        Slice(
            data=str(data),
            policy=str(policy),
            value=None if value is None else str(value),
            turned=_turned(members),
        )
        for (data, policy, value), members in rows.group_by(
            "data", "policy", column, maintain_order=True
        )
    ]
    shown = [each for each in found if each.turned.n >= min_records]
    return Slices(
        slices=tuple(sorted(shown, key=lambda each: (-each.turned.share, -each.turned.n))),
        hidden=len(found) - len(shown),
    )


def _radius(data: str, policy: str, rows: pl.DataFrame, seed: int) -> Radius:
    scored = rows.drop_nulls(["label", "calibrated", "calibrated_b"])
    partial = (pl.col("coverage") == "partial") | (pl.col("coverage_b") == "partial")
    return Radius(
        data=data,
        policy=policy,
        turned=_turned(rows),
        only_old_scored=len(
            rows.filter(pl.col("error").is_null(), pl.col("error_b").is_not_null())
        ),
        not_scored=rows["error"].count(),
        partial=len(rows.filter(partial)),
        calibrated=(_all(rows["is_calibrated"]), _all(rows["is_calibrated_b"])),
        labelled=compare_rows(scored, seed=seed)[policy] if len(scored) else None,
    )


def _turned(rows: pl.DataFrame) -> Turned:
    both = rows.drop_nulls(["violates", "violates_b"])
    return Turned(
        n=len(both),
        newly_flagged=_flips(both, pl.col("violates_b") & ~pl.col("violates")),
        no_longer_flagged=_flips(both, pl.col("violates") & ~pl.col("violates_b")),
    )


def _flips(rows: pl.DataFrame, which: pl.Expr) -> Flips:
    count, n = len(rows.filter(which)), len(rows)
    return Flips(count=count, share=count / n if n else None, ci95=wilson(count, n))


def _all(flags: pl.Series) -> bool:
    there = flags.drop_nulls()
    return bool(len(there)) and bool(there.all())
