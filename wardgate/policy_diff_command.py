"""`wardgate policies diff`: which verdicts another version of a policy changes."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from policies import PolicyLibrary, PolicySet
from wardgate.data_command import DATA_HELP, AdapterOption, chosen_adapter
from wardgate.eval_errors import fails_in_one_line, needs_eval_extra
from wardgate.finished_options import split_names
from wardgate.flip_limit import FlipLimit, MaxFlipsOption
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
from wardgate.policy_diff_found import Diff, diff_json, listed_flips
from wardgate.policy_diff_output import print_diff
from wardgate.policy_versions import pair_versions, read_version
from wardgate.progress import RecordProgress
from wardgate.run_options import OUT_HELP, SampleOption, SeedOption, set_threads

if TYPE_CHECKING:
    import polars as pl

    from evals.blast_radius import Slices
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
    max_flips: MaxFlipsOption = None,
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
    limit = FlipLimit.of(max_flips) if max_flips is not None else None
    columns = _columns(by)
    import polars as pl

    from evals.blast_radius import blast_radius
    from evals.policy_diff_run import EXAMPLES, SCHEMA
    from evals.run import RunPlan

    texts: list[Texts] = []
    rows = pl.DataFrame(schema=SCHEMA)
    with (
        fails_in_one_line(as_json=as_json),
        TemporaryDirectory() if out is None else nullcontext(out) as folder,
    ):
        before, after = (read_version(name, policy_dir or ()) for name in (old, new))
        pairing = pair_versions(before, after, policy or (), policy_set)
        if pairing.changes:
            plan = RunPlan(
                data=Path(EXAMPLES),
                policy_set=PolicySet(
                    id="diff",
                    version=1,
                    policies=tuple(change.new_rule for change in pairing.changes),
                ),
                out=Path(folder),
                adapter=chosen_adapter(adapter),
                sample=sample,
                seed=seed,
                threads=set_threads(None),
                device=device,
            )
            texts = _read(plan, pairing.changes, data or ())
            judge = ModelChoice(
                name=model,
                image_model=image_model,
                calibration=calibration,
                dtype=dtype,
                device=device,
            )
            rows = _score(before.library, after.library, judge, pairing.changes, texts)
    radii = blast_radius(rows, seed=seed)
    limited = [radius for radius in radii if radius.data != EXAMPLES or not data]
    found = Diff(
        pairing=pairing,
        radii=radii,
        slices=_slices(rows, texts, columns, min_records=min_records),
        exceeded=limit.exceeded(limited) if limit is not None else (),
        flips=listed_flips(rows, flips, show=texts if show else ()),
    )
    if as_json:
        print_json(diff_json(old, new, found))
    else:
        print_diff(stdout(), found, show=show, min_records=min_records)
    if found.exceeded:
        raise typer.Exit(FAILED)


def _columns(by: str | None) -> list[str]:
    """Of `--by`."""
    from evals.columns import check_columns

    columns = split_names(by or "")
    try:
        check_columns(columns, with_data=True)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--by") from exc
    return columns


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
    old: PolicyLibrary,
    new: PolicyLibrary,
    model: ModelChoice,
    changes: "Sequence[Change]",
    texts: "Sequence[Texts]",
) -> "pl.DataFrame":
    """Opens the model once, for both versions, and runs them."""
    from evals.policy_diff_run import run_versions

    with RecordProgress(stderr()) as progress:
        after = open_measured(
            new,
            texts[0].plan.policy_set,
            model,
            report=progress.report,
            has_images=any(each.has_images for each in texts),
        )
        before = after.with_library(old)
        return run_versions(before, after, changes, texts, progress=progress.update)


def _slices(
    rows: "pl.DataFrame", texts: "Sequence[Texts]", columns: Sequence[str], *, min_records: int
) -> "dict[str, Slices]":
    """By column; none where nothing was scored."""
    import polars as pl

    from evals.blast_radius import by_slice
    from evals.columns import add_columns

    if not (texts and columns):
        return {}
    rows = pl.concat(
        [add_columns(rows.filter(data=each.name), columns, each.records) for each in texts]
    )
    return {name: by_slice(rows, name, min_records=min_records) for name in columns}
