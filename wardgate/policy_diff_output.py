"""What `policies diff` prints: tables for people, objects for machines, content only if asked."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from wardgate.compare_command import cell, numbers
from wardgate.output import one_line
from wardgate.policy_versions import Pairing

if TYPE_CHECKING:
    import polars as pl

    from evals.blast_radius import Flips, Radius, Slices, Turned
    from evals.policy_diff import Change
    from evals.policy_diff_run import Texts

_LONGEST_TEXT = 200
"""Characters of a text in the table; --json has it whole."""

_EDITS = {"same": ("{}", ""), "removed": ("[-{}-]", "red"), "added": ("{{+{}+}}", "green")}
"""How words are shown: the marks of git's --word-diff, and a colour."""

_TURNED = ("n", "newly flagged", "no longer flagged")


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


def why_exceeded(radius: "Radius", limit: str) -> str:
    """In a line."""
    where = f"{radius.policy} on {radius.data}"
    if radius.only_old_scored:
        return f"{where}: {radius.only_old_scored} records can no longer be scored"
    turned = radius.turned
    return f"{where}: {turned.num_flips} of {turned.n} verdicts change; --max-flips is {limit}"


def change_json(change: "Change") -> dict[str, object]:
    """What became of a policy."""
    return {
        "policy": change.new.id,
        "versions": [change.old.version, change.new.version],
        "hashes": [change.old.hash, change.new.hash],
        "thresholds": [change.old_threshold, change.new_threshold],
        "version_not_raised": _version_not_raised(change),
        "words": {name: [asdict(edit) for edit in edits] for name, edits in change.words().items()},
    }


def _version_not_raised(change: "Change") -> bool:
    return change.of_words and change.new.version <= change.old.version


def radius_json(radius: "Radius") -> dict[str, object]:
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


def slices_json(found: "Slices") -> list[dict[str, object]]:
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


def print_changes(console: Console, pairing: Pairing) -> None:
    """Which words, thresholds and policies are others."""
    for change in pairing.changes:
        line = f"{change.new.id}: version {change.old.version} -> {change.new.version}"
        line += f", hash {change.old.hash} -> {change.new.hash}"
        if change.old_threshold != change.new_threshold:
            line += f", threshold {change.old_threshold:g} -> {change.new_threshold:g}"
        console.print(line, style="bold", markup=False, soft_wrap=True)
        if _version_not_raised(change):
            _warn(console, f"the words of {change.new.id} changed and its version was not raised")
        for name, edits in change.words().items():
            text = Text(f"  {name}: ")
            for edit in edits:
                shown, style = _EDITS[edit.kind]
                text.append(shown.format(edit.text), style).append(" ")
            console.print(text, soft_wrap=True)
    for what in ("unchanged", "added", "removed"):
        if ids := getattr(pairing, what):
            console.print(f"{what}: {', '.join(ids)}", markup=False, soft_wrap=True)


def print_radii(console: Console, radii: "Sequence[Radius]") -> None:
    """How many verdicts change, and what of that is no news of the words."""
    table = _table("Verdicts that change, with 95% intervals", *_TURNED, "not scored: old, now")
    for each in radii:
        unscored = f"{each.not_scored}, {each.only_old_scored}"
        table.add_row(each.policy, escape(each.data), *_turned_cells(each.turned), unscored)
    console.print(table)
    for each in radii:
        if each.partial:
            _warn(
                console,
                f"of {each.partial} records of {each.data} a part was not judged by {each.policy}:"
                " nobody knows whether their verdicts change",
            )
    for name in dict.fromkeys(each.policy for each in radii if each.calibrated == (True, False)):
        _warn(
            console,
            f"scores of {name} were calibrated and are raw with the new words: part of the change"
            " is the missing calibration (docs/calibration.md)",
        )
    labelled = [each for each in radii if each.labelled is not None]
    if not labelled:
        return
    table = _table(
        "Labelled records: new less old, with 95% intervals",
        *("n", "pos.", "AU-PRC", "F1", "FPR", "right only before / now", "p"),
    )
    for each in labelled:
        assert each.labelled is not None
        metrics, verdicts = each.labelled.metrics, each.labelled.verdicts
        table.add_row(
            each.policy,
            escape(each.data),
            str(each.labelled.n),
            str(each.labelled.positives),
            *(cell(metrics[name]) for name in ("au_prc", "f1_at_threshold", "fpr_at_threshold")),
            f"{verdicts.right_only_in_a} / {verdicts.right_only_in_b}",
            "-" if verdicts.p is None else f"{verdicts.p:.2g}",
        )
    console.print(table)


def print_slices(console: Console, column: str, found: "Slices", *, min_records: int) -> None:
    """The slices of a column, the one with the largest share of changed verdicts first."""
    table = _table(f"Verdicts that change by {column}, the largest share first", *_TURNED)
    table.add_column(column, overflow="fold")
    for each in found.slices:
        value = "(not said)" if each.value is None else one_line(each.value, longest=40)
        cells = _turned_cells(each.turned)
        table.add_row(each.policy, escape(each.data), *cells, escape(value))
    if found.hidden:
        table.caption = f"Hidden: {found.hidden} slices of fewer than {min_records} records."
    console.print(table)


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("policy", no_wrap=True)
    table.add_column("data", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _turned_cells(turned: "Turned") -> list[str]:
    return [str(turned.n), _rate(turned.newly_flagged), _rate(turned.no_longer_flagged)]


def _rate(flips: "Flips") -> str:
    if flips.share is None or flips.ci95 is None:
        return str(flips.count)
    low, high = flips.ci95.low, flips.ci95.high
    return f"{flips.count}: {flips.share:.1%} [{low:.1%}, {high:.1%}]"


def flips_table(listed: list[dict[str, object]], *, show: bool) -> Table:
    """The verdicts that change, with their texts where they are to be shown."""
    table = Table()
    for head in ("data", "record", "policy", "label", "old", "new", "now"):
        table.add_column(head, overflow="fold")
    if show:
        table.add_column("text", overflow="fold")
    labels = {True: "violates", False: "harmless", None: "-"}
    for each in listed:
        label = each["label"]
        assert label is None or isinstance(label, bool)
        row = [
            str(each["data"]),
            str(each["record_id"]),
            str(each["policy"]),
            labels[label],
            *("-" if score is None else f"{score:.3f}" for score in _scores(each)),
            "flagged" if each["violates_new"] else "passes",
        ]
        if show:
            row.append(one_line(str(each["text"]), longest=_LONGEST_TEXT))
        table.add_row(*(escape(cell) for cell in row))
    return table


def _scores(flip: dict[str, object]) -> list[float | None]:
    """The old and the new; None where the policy has no words for the surface."""
    found = []
    for name in ("score_old", "score_new"):
        score = flip[name]
        assert score is None or isinstance(score, float)
        found.append(score)
    return found


def _warn(console: Console, message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)
