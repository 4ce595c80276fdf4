"""`wardgate policies diff`: which verdicts another version of a policy changes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from policies import (
    Policy,
    PolicyFileError,
    PolicyLibrary,
    PolicySet,
    UnknownPolicy,
    load_file,
    load_library,
)
from policies.loader import load_files
from wardgate.compare_command import cell, numbers
from wardgate.eval_errors import fails_in_one_line, needs_eval_extra
from wardgate.loading import open_measured
from wardgate.models_commands import MODEL_HELP, CalibrationOption, DtypeOption, JsonOption
from wardgate.output import FAILED, one_line, print_json, stderr, stdout
from wardgate.policies_commands import PolicyDirOption
from wardgate.progress import RecordProgress

if TYPE_CHECKING:
    import polars as pl

    from evals.policy_diff import Change, Flips, Radius
    from evals.records import Record

_LONGEST_TEXT = 200
"""Characters of a text in the table; --json has it whole."""

_EDITS = {"same": ("{}", ""), "removed": ("[-{}-]", "red"), "added": ("{{+{}+}}", "green")}
"""How words are shown: the marks of git's --word-diff, and a colour."""

VERSION_HELP = "A policy file, a folder of them, or the id of a policy."


def diff(
    old: Annotated[str, typer.Argument(help=VERSION_HELP)],
    new: Annotated[str, typer.Argument(help="The other version, named in the same way.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            readable=True,
            help="Records besides the policies' examples: JSONL, or .gz; labels may be {}. May be"
            " given several times.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", help="Only this policy of the folders; may be given again."),
    ] = None,
    policy_dir: PolicyDirOption = None,
    policy_set: Annotated[
        str,
        typer.Option(
            help="Has the thresholds of both versions, as each folder defines it. A policy that it"
            " does not name has that of the set 'default', or 0.5."
        ),
    ] = "default",
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "embedded",
    calibration: CalibrationOption = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Only this many records of each file, by a hash of their ids."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample and of the intervals.")] = 0,
    dtype: DtypeOption = None,
    device: Annotated[str, typer.Option(help="A torch device, such as cuda.")] = "cpu",
    max_flips: Annotated[
        str | None,
        typer.Option(
            help="Exit 1 if a policy changes more verdicts than this on a file, or than this share:"
            " 20, 0.01 or 1%. Without --data, on the examples."
        ),
    ] = None,
    flips: Annotated[int, typer.Option(min=0, help="Changed verdicts to list.")] = 20,
    show: Annotated[bool, typer.Option("--show", help="Print the texts that were judged.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Score two versions of policies on the same texts: how many verdicts change, and which.

    The texts are the examples of both versions and the records of --data. Texts are shown only if
    asked for.

    Exits with 1 when --max-flips is exceeded, or when with it a record can no longer be scored.
    """
    needs_eval_extra(as_json=as_json)
    limit = _limit(max_flips) if max_flips is not None else None
    from evals.policy_diff import EXAMPLES, blank_rows, blast_radius, example_records
    from evals.records import read_records, sample_records

    with fails_in_one_line(as_json=as_json):
        a, b = (_version(name, policy_dir or ()) for name in (old, new))
        pairing = _pair(a, b, policy or (), policy_set)
        changes = pairing.changes
        texts: dict[str, Sequence[Record]] = {EXAMPLES: example_records(changes)}
        for path in data or ():
            records = read_records(path)
            texts[str(path)] = (
                records if sample is None else sample_records(records, sample, seed=seed)
            )
        if changes and not any(texts.values()):
            raise typer.BadParameter("the policies have no examples; give records with --data")
        rows = blank_rows()
        if changes:
            rows = _score(a, b, changes, texts, model, dtype, device, calibration)
    radii = blast_radius(rows, seed=seed)
    exceeded = [
        radius
        for radius in radii
        if limit is not None
        and (radius.data != EXAMPLES or not data)
        and (_num_flips(radius) > limit.of(radius.n) or radius.only_old_scored)
    ]
    listed = _listed(rows, texts if show else {}, flips)
    num_flipped = sum(_num_flips(radius) for radius in radii)
    if as_json:
        print_json(
            {
                "old": old,
                "new": new,
                "changes": [_change(change) for change in changes],
                "unchanged": pairing.unchanged,
                "added": pairing.added,
                "removed": pairing.removed,
                "blast_radius": [_radius(radius) for radius in radii],
                "exceeded": [{"data": each.data, "policy": each.policy} for each in exceeded],
                "flips": {"total": num_flipped, "listed": listed},
            }
        )
    else:
        console = stdout()
        _print_changes(console, pairing)
        if radii:
            _print_radii(console, radii)
        if changes:
            console.print(f"{num_flipped} verdicts change{':' if listed else '.'}")
        if listed:
            console.print(_flips_table(listed, show=show))
        for radius in exceeded:
            console.print(_why(radius, str(max_flips)), style="red", markup=False, soft_wrap=True)
    if exceeded:
        raise typer.Exit(FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """Policies as one of the arguments has them."""

    library: PolicyLibrary
    ids: frozenset[str]
    """That the argument names."""
    is_folder: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairing:
    """What became of each policy."""

    changes: "list[Change]"
    unchanged: list[str]
    added: list[str]
    removed: list[str]


@dataclass(frozen=True, slots=True)
class _Limit:
    """How many flips are too many: a number, or a share of the records."""

    value: float
    is_share: bool

    def of(self, n: int) -> float:
        return self.value * n if self.is_share else self.value


def _limit(text: str) -> _Limit:
    """`20`, `0.01` or `1%`."""
    if re.fullmatch(r"\d+", text):
        return _Limit(int(text), is_share=False)
    found = re.fullmatch(r"(\d*\.?\d+)(%?)", text)
    share = float(found[1]) / (100 if found[2] else 1) if found else 2.0
    if share > 1.0:
        raise typer.BadParameter(
            f"{text!r} is neither a number of verdicts nor a share of them: expected, say, 20, 0.01"
            " or 1%",
            param_hint="--max-flips",
        )
    return _Limit(share, is_share=True)


def _version(name: str, policy_dir: Sequence[Path]) -> _Version:
    """The policies that a file, a folder or an id means."""
    path = Path(name)
    if path.is_dir():
        loaded = load_files([*policy_dir, path])
        ids = [f.item.id for f in loaded.files if f.folder == path and isinstance(f.item, Policy)]
        return _Version(library=loaded.library, ids=frozenset(ids), is_folder=True)
    library = load_library(policy_dir)
    if path.is_file():
        policy = load_file(path)
        if not isinstance(policy, Policy):
            raise PolicyFileError(path, None, "is a policy set; expected a policy, or a folder")
        library = replace(library, policies={**library.policies, policy.id: policy})
    else:
        policy = library.policy(name)
    return _Version(library=library, ids=frozenset([policy.id]), is_folder=False)


def _pair(old: _Version, new: _Version, only: Sequence[str], set_id: str) -> _Pairing:
    """Each policy that an argument names, as both would have it deployed.

    A policy that one folder lacks is the built-in one there, as it is where the folder is used.
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
    pairing = _Pairing(changes=[], unchanged=[], added=[], removed=[])
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


def _score(
    old: _Version,
    new: _Version,
    changes: "Sequence[Change]",
    texts: "Mapping[str, Sequence[Record]]",
    model: str,
    dtype: str | None,
    device: str,
    calibration: Path | None,
) -> "pl.DataFrame":
    # torch takes seconds to import; wrong use must not wait for it
    from evals.policy_diff import score_versions
    from moderation.moderator import Moderator

    with RecordProgress(stderr()) as progress:
        after = open_measured(
            new.library,
            PolicySet(id="diff", version=1, policies=tuple(each.new_rule for each in changes)),
            model,
            dtype=dtype,
            device=device,
            calibration=calibration,
            normalise=True,
            report=progress.report,
        )
        before = Moderator(old.library, after.text)
        return score_versions(before, after, changes, texts, progress=progress.update)


def _num_flips(radius: "Radius") -> int:
    return radius.newly_flagged.count + radius.no_longer_flagged.count


def _listed(
    rows: "pl.DataFrame", texts: "Mapping[str, Sequence[Record]]", most: int
) -> list[dict[str, object]]:
    from evals.compare import flipped

    text_of = {
        (name, record.id): record.text for name, records in texts.items() for record in records
    }
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


def _why(radius: "Radius", limit: str) -> str:
    where = f"{radius.policy} on {radius.data}"
    if radius.only_old_scored:
        return f"{where}: {radius.only_old_scored} records can no longer be scored"
    return f"{where}: {_num_flips(radius)} of {radius.n} verdicts change; --max-flips is {limit}"


def _change(change: "Change") -> dict[str, object]:
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


def _radius(radius: "Radius") -> dict[str, object]:
    return {
        "data": radius.data,
        "policy": radius.policy,
        "n": radius.n,
        "newly_flagged": _flips(radius.newly_flagged),
        "no_longer_flagged": _flips(radius.no_longer_flagged),
        "only_old_scored": radius.only_old_scored,
        "not_scored": radius.not_scored,
        "calibrated": list(radius.calibrated),
        "labelled": None if radius.labelled is None else numbers(radius.labelled),
    }


def _flips(flips: "Flips") -> dict[str, object]:
    interval = flips.ci95
    return {
        "count": flips.count,
        "share": flips.share,
        "ci95": None if interval is None else [interval.low, interval.high],
    }


def _print_changes(console: Console, pairing: _Pairing) -> None:
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


def _print_radii(console: Console, radii: "Sequence[Radius]") -> None:
    table = Table(title="Verdicts that change, with 95% intervals", title_justify="left")
    table.add_column("policy", no_wrap=True)
    table.add_column("data", overflow="fold")
    for head in ("n", "newly flagged", "no longer flagged", "not scored: old, now"):
        table.add_column(head, justify="right")
    for each in radii:
        table.add_row(
            each.policy,
            escape(each.data),
            str(each.n),
            _rate(each.newly_flagged),
            _rate(each.no_longer_flagged),
            f"{each.not_scored}, {each.only_old_scored}",
        )
    console.print(table)
    for name in dict.fromkeys(each.policy for each in radii if each.calibrated == (True, False)):
        _warn(
            console,
            f"scores of {name} were calibrated and are raw with the new words: part of the change"
            " is the missing calibration (docs/calibration.md)",
        )
    labelled = [each for each in radii if each.labelled is not None]
    if not labelled:
        return
    table = Table(title="Labelled records: new less old, with 95% intervals", title_justify="left")
    table.add_column("policy", no_wrap=True)
    table.add_column("data", overflow="fold")
    for head in ("n", "pos.", "AU-PRC", "F1", "FPR", "right only before / now", "p"):
        table.add_column(head, justify="right")
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


def _rate(flips: "Flips") -> str:
    if flips.share is None or flips.ci95 is None:
        return str(flips.count)
    low, high = flips.ci95.low, flips.ci95.high
    return f"{flips.count}: {flips.share:.1%} [{low:.1%}, {high:.1%}]"


def _flips_table(listed: list[dict[str, object]], *, show: bool) -> Table:
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
