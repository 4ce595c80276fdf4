"""What `policies diff` found, and the object that says it to machines; content only if asked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from wardgate.compare_command import numbers
from wardgate.flip_limit import Exceeded
from wardgate.policy_versions import Pairing

if TYPE_CHECKING:
    import polars as pl

    from evals.blast_radius import Flips, Radius, Slices, Turned
    from evals.policy_diff import Change
    from evals.policy_diff_run import Texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What became of the policies, and what that does to verdicts."""

    pairing: Pairing
    radii: "Sequence[Radius]"
    slices: "Mapping[str, Slices]"
    """By column."""
    exceeded: Sequence[Exceeded]
    """Where more changes than is allowed."""
    flips: Sequence[dict[str, object]]
    """Those that are listed; see `listed_flips`."""

    @property
    def num_flips(self) -> int:
        """Of all, listed or not."""
        return sum(radius.turned.num_flips for radius in self.radii)


def listed_flips(
    rows: "pl.DataFrame", most: int, *, show: "Sequence[Texts]"
) -> list[dict[str, object]]:
    """The largest changes of score among the verdicts that change, with the texts of `show`."""
    from evals.compare import flipped

    text_of = {(each.name, record.id): record.in_words for each in show for record in each.records}
    listed = []
    for row in flipped(rows).head(most).to_dicts():
        flip = {
            "data": row["data"],
            "record_id": row["record_id"],
            "policy": row["policy"],
            "label": row["label"],
            "score_old": row["calibrated"],
            "score_new": row["calibrated_b"],
            "violates_old": row["violates"],
            "violates_new": row["violates_b"],
        }
        if text_of:
            flip["text"] = text_of[row["data"], row["record_id"]]
        listed.append(flip)
    return listed


def diff_json(old: str, new: str, found: Diff) -> dict[str, object]:
    """All of it; the versions are called as in the command."""
    pairing = found.pairing
    return {
        "old": old,
        "new": new,
        "changes": [_change_json(change) for change in pairing.changes],
        "unchanged": pairing.unchanged,
        "added": pairing.added,
        "removed": pairing.removed,
        "blast_radius": [_radius_json(radius) for radius in found.radii],
        "by": {name: _slices_json(each) for name, each in found.slices.items()},
        "hidden_slices": {name: each.hidden for name, each in found.slices.items()},
        "exceeded": [{"data": each.data, "policy": each.policy} for each in found.exceeded],
        "flips": {"total": found.num_flips, "listed": found.flips},
    }


def _change_json(change: "Change") -> dict[str, object]:
    """What became of a policy."""
    return {
        "policy": change.new.id,
        "versions": [change.old.version, change.new.version],
        "hashes": [change.old.hash, change.new.hash],
        "thresholds": [change.old_threshold, change.new_threshold],
        "version_not_raised": version_not_raised(change),
        "words": {name: [asdict(edit) for edit in edits] for name, edits in change.words().items()},
    }


def version_not_raised(change: "Change") -> bool:
    """Whether the words changed and the number of the version did not grow."""
    return change.of_words and change.new.version <= change.old.version


def _radius_json(radius: "Radius") -> dict[str, object]:
    """What it does to one data."""
    return {
        "data": radius.data,
        "policy": radius.policy,
        **_turned_json(radius.turned),
        "only_old_scored": radius.only_old_scored,
        "not_scored": radius.not_scored,
        "partial": radius.partial,
        "calibrated": list(radius.calibrated),
        "labelled": None if radius.labelled is None else numbers(radius.labelled),
    }


def _slices_json(found: "Slices") -> list[dict[str, object]]:
    """What it does to the slices of one column."""
    return [
        {
            "data": each.data,
            "policy": each.policy,
            "value": each.value,
            **_turned_json(each.turned),
        }
        for each in found.slices
    ]


def _turned_json(turned: "Turned") -> dict[str, object]:
    return {
        "n": turned.n,
        "newly_flagged": _flips_json(turned.newly_flagged),
        "no_longer_flagged": _flips_json(turned.no_longer_flagged),
    }


def _flips_json(flips: "Flips") -> dict[str, object]:
    interval = flips.ci95
    return {
        "count": flips.count,
        "share": flips.share,
        "ci95": None if interval is None else [interval.low, interval.high],
    }
