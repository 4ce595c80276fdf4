"""`wardgate policies diff`: which verdicts another version of a policy changes."""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from policies import PolicySet
from wardgate.data_command import DATA_HELP, AdapterOption, chosen_adapter
from wardgate.eval_errors import fails_in_one_line, needs_eval_extra
from wardgate.loading import ModelChoice, open_measured
from wardgate.models_commands import (
    CalibrationOption,
    DeviceOption,
    DtypeOption,
    ImageModelOption,
    JsonOption,
    ModelOption,
)
from wardgate.output import FAILED, print_json, stderr, stdout
from wardgate.policies_commands import PolicyDirOption
from wardgate.policy_diff_output import (
    change_json,
    flips_table,
    listed_flips,
    print_changes,
    print_radii,
    print_slices,
    radius_json,
    slices_json,
    why_exceeded,
)
from wardgate.policy_versions import Version, pair_versions, read_version
from wardgate.progress import RecordProgress
from wardgate.run_options import OUT_HELP, SampleOption, SeedOption, set_threads
from wardgate.slices_command import split_names

if TYPE_CHECKING:
    import polars as pl

    from evals.policy_diff import Change
    from evals.policy_diff_run import Texts
    from evals.run import RunPlan

VERSION_HELP = "A policy file, a folder of them, or the id of a policy."


def diff(
    old: Annotated[str, typer.Argument(help=VERSION_HELP)],
    new: Annotated[str, typer.Argument(help="The other version, named in the same way.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            readable=True,
            help=f"Besides the policies' examples; labels may be {{}}. {DATA_HELP} May be given"
            " several times.",
        ),
    ] = None,
    adapter: AdapterOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help=f"{OUT_HELP} With it the same command goes on where it was killed.",
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
    model: ModelOption = "embedded",
    image_model: ImageModelOption = None,
    calibration: CalibrationOption = None,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = None,
    device: DeviceOption = "cpu",
    max_flips: Annotated[
        str | None,
        typer.Option(
            help="Exit 1 if a policy changes more verdicts than this on a data set, or than this"
            " share: 20, 0.01 or 1%. Without --data, on the examples."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Also slice by slice: columns, separated by commas, of lang, length (tokens),"
            " source, surface, role, licence, split, label_origin and orig.KEY."
        ),
    ] = None,
    min_records: Annotated[int, typer.Option(min=1, help="Hide slices of fewer records.")] = 30,
    flips: Annotated[int, typer.Option(min=0, help="Changed verdicts to list.")] = 20,
    show: Annotated[bool, typer.Option("--show", help="Print the texts that were judged.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Score two versions of policies on the same records: how many verdicts change, and which.

    The records are the examples of both versions and those of --data. Texts are shown only if
    asked for.

    Exits with 1 when --max-flips is exceeded, or when with it a record can no longer be scored;
    with 2 when --out belongs to another run.
    """
    needs_eval_extra(as_json=as_json)
    limit = _limit(max_flips) if max_flips is not None else None
    import polars as pl

    from evals.blast_radius import blast_radius, by_slice
    from evals.columns import add_columns, check_columns
    from evals.policy_diff_run import EXAMPLES, SCHEMA
    from evals.run import RunPlan

    columns = split_names(by or "")
    try:
        check_columns(columns, with_data=True)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--by") from exc
    texts: list[Texts] = []
    rows = pl.DataFrame(schema=SCHEMA)
    with (
        fails_in_one_line(as_json=as_json),
        TemporaryDirectory() if out is None else nullcontext(out) as folder,
    ):
        a, b = (read_version(name, policy_dir or ()) for name in (old, new))
        pairing = pair_versions(a, b, policy or (), policy_set)
        changes = pairing.changes
        if changes:
            rules = tuple(change.new_rule for change in changes)
            plan = RunPlan(
                data=Path(EXAMPLES),
                policy_set=PolicySet(id="diff", version=1, policies=rules),
                out=Path(folder),
                adapter=chosen_adapter(adapter),
                sample=sample,
                seed=seed,
                threads=set_threads(None),
                device=device,
            )
            texts = _read(plan, changes, data or ())
            judge = ModelChoice(
                name=model,
                image_model=image_model,
                calibration=calibration,
                dtype=dtype,
                device=device,
            )
            rows = _score(a, b, changes, texts, judge)
    radii = blast_radius(rows, seed=seed)
    sliced = {}
    if texts and columns:
        each_with = [add_columns(rows.filter(data=t.name), columns, t.records) for t in texts]
        sliced = {
            name: by_slice(pl.concat(each_with), name, min_records=min_records) for name in columns
        }
    exceeded = [
        radius
        for radius in radii
        if limit is not None
        and (radius.data != EXAMPLES or not data)
        and (radius.turned.num_flips > limit.of(radius.turned.n) or radius.only_old_scored)
    ]
    listed = listed_flips(rows, flips, show=texts if show else ())
    num_flipped = sum(radius.turned.num_flips for radius in radii)
    if as_json:
        print_json(
            {
                "old": old,
                "new": new,
                "changes": [change_json(change) for change in changes],
                "unchanged": pairing.unchanged,
                "added": pairing.added,
                "removed": pairing.removed,
                "blast_radius": [radius_json(radius) for radius in radii],
                "by": {name: slices_json(found) for name, found in sliced.items()},
                "hidden_slices": {name: found.hidden for name, found in sliced.items()},
                "exceeded": [{"data": each.data, "policy": each.policy} for each in exceeded],
                "flips": {"total": num_flipped, "listed": listed},
            }
        )
    else:
        console = stdout()
        print_changes(console, pairing)
        if radii:
            print_radii(console, radii)
        for name, found in sliced.items():
            print_slices(console, name, found, min_records=min_records)
        if changes:
            console.print(f"{num_flipped} verdicts change{':' if listed else '.'}")
        if listed:
            console.print(flips_table(listed, show=show))
        for radius in exceeded:
            why = why_exceeded(radius, str(max_flips))
            console.print(why, style="red", markup=False, soft_wrap=True)
    if exceeded:
        raise typer.Exit(FAILED)


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


def _read(plan: "RunPlan", changes: "Sequence[Change]", data: Sequence[Path]) -> "list[Texts]":
    """The examples and all data, each in a folder of its name; what has no record is left out."""
    from evals.policy_diff_run import EXAMPLES, example_texts, read_texts

    names = [path.resolve().name for path in data]
    for name in (EXAMPLES, *names):
        if [EXAMPLES, *names].count(name) > 1:
            raise typer.BadParameter(
                f"two of the data are called {name!r}, which names their folder in --out; give"
                " them other names, or each a command of its own",
                param_hint="--data",
            )
    texts = [example_texts(replace(plan, out=plan.out / EXAMPLES, adapter=None), changes)]
    for path, name in zip(data, names, strict=True):
        texts.append(read_texts(replace(plan, data=path, out=plan.out / name)))
    if not any(each.records for each in texts):
        raise typer.BadParameter("the policies have no examples; give records with --data")
    return [each for each in texts if each.records]


def _score(
    old: Version,
    new: Version,
    changes: "Sequence[Change]",
    texts: "Sequence[Texts]",
    model: ModelChoice,
) -> "pl.DataFrame":
    from evals.policy_diff_run import run_versions

    plan = texts[0].plan
    with RecordProgress(stderr()) as progress:
        after = open_measured(
            new.library,
            plan.policy_set,
            model,
            report=progress.report,
            has_images=any(each.has_images for each in texts),
        )
        before = after.with_library(old.library)
        return run_versions(before, after, changes, texts, progress=progress.update)
