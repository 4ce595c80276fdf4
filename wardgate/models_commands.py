"""`wardgate models`: which classifiers there are, and whether one can be trusted to score."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.errors import ModelError
from moderation.registry import DTYPES, describe
from wardgate.environment import default_base
from wardgate.loading import open_classifier
from wardgate.output import print_error, print_json, stderr, stdout
from wardgate.progress import RecordProgress

if TYPE_CHECKING:
    from moderation.checkpoints import Classifier

app = typer.Typer(help="List and check classifiers.", no_args_is_help=True)


def check_dtype(value: str | None) -> str | None:
    """Callback of `--dtype`."""
    if value is not None and value not in DTYPES:
        raise typer.BadParameter(f"expected {' or '.join(DTYPES)}")
    return value


DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        callback=check_dtype,
        help="float32 or bfloat16; what this machine computes fastest by default.",
    ),
]
MODEL_HELP = (
    "A model of `wardgate models list`, a directory, a hub id, or the YAML file of a model on a"
    " server."
)
ModelOption = Annotated[str, typer.Option("--model", help=MODEL_HELP)]
DeviceOption = Annotated[str, typer.Option("--device", help="A torch device, such as cuda.")]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        exists=True,
        dir_okay=False,
        readable=True,
        help="A file of `wardgate eval calibrate` for this model; the embedded model's own by"
        " default.",
    ),
]
ImageModelOption = Annotated[
    str | None,
    typer.Option(
        "--image-model",
        help="Judges what images show. By default nobody sees them: the text in them and what"
        " recognisers find is judged.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command("list", epilog="Example: wardgate models list --json")
def list_models(as_json: JsonOption = False) -> None:
    """List the named models and whether their files are on this machine."""
    entries = describe(default_base())
    if as_json:
        print_json({"models": [asdict(entry) for entry in entries]})
        return
    table = Table("Name", "What", "Judges", "From", "On this machine", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(
            entry.name,
            entry.what,
            ", ".join(entry.modalities) + (" (by evidence)" if entry.by_evidence else ""),
            entry.source,
            "yes" if entry.on_disk else "no",
        )
    stdout().print(table)
    stdout().print(
        "Any other name is read as a directory or a hub id; one that ends with .yaml as the file of"
        " a model on a server."
    )
    if any(entry.by_evidence for entry in entries):
        stdout().print(
            "By evidence: a model of texts does not see an image; it judges what small recognisers"
            " find in it."
        )
    else:
        stdout().print("With the extra 'evidence' the embedded models judge images as well.")


@app.command(epilog="Example: wardgate models check ./my-shieldgemma --dtype float32")
def check(
    name: Annotated[str, typer.Argument(help=MODEL_HELP)],
    dtype: DtypeOption = None,
    calibration: CalibrationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load a model and run the checks that every start runs; exit 1 if it is refused."""
    try:
        with RecordProgress(stderr()) as progress:
            classifier = open_classifier(
                name,
                base=default_base(),
                dtype=dtype,
                report=progress.report,
                calibration=calibration,
            )
    except ModelError as exc:
        raise typer.Exit(print_error(exc, as_json=as_json)) from exc
    if as_json:
        print_json(_found(classifier))
        return
    console = stdout()
    for done in classifier.checks:
        console.print(f"[green]ok[/]  {done}")
    info = classifier.info
    console.print(f"{info.name}: revision {info.revision}, template {info.template}", markup=False)


def _found(classifier: "Classifier") -> dict[str, object]:
    info = asdict(classifier.info)
    return {
        "ok": True,
        "model": {**info, "calibrated": classifier.info.calibration is not None},
        "judges": sorted(surface.value for surface in classifier.builder.template.surfaces),
        "window_tokens": classifier.window_tokens,
        "checks": list(classifier.checks),
    }
