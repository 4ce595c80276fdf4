"""By what the rows of a run can be told apart: their own columns, their length, and the data's.

A run keeps language, source and surface. For any other field of the records their file is read
again, and it must be the very file that was scored.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import JsonValue

from evals.data.reading import data_sha256, read_data
from evals.errors import RunError
from evals.finished import FinishedRun
from evals.records import Record

LENGTH = "length"
_LENGTH_UPTO = (16, 64, 256, 1024)
LENGTHS = ("1-16", "17-64", "65-256", "257-1024", "1025+")
"""Buckets of content tokens as the run's classifier counts them."""

IN_THE_RUN = ("lang", "source", "surface")
IN_THE_DATA = ("role", "licence", "split", "label_origin")
_ORIG = "orig."


def known_columns() -> str:
    """All names that can be asked for, in words."""
    return (
        f"{', '.join((LENGTH, *IN_THE_RUN))}, and with the data {', '.join(IN_THE_DATA)} and"
        f" {_ORIG}KEY"
    )


def check_columns(names: Sequence[str], *, with_data: bool) -> None:
    """Raises `ValueError` for a name that no record has, or that needs the data."""
    for name in names:
        of_data = name in IN_THE_DATA or name.startswith(_ORIG)
        if not of_data and name not in (LENGTH, *IN_THE_RUN):
            raise ValueError(f"{name!r} is no column; known: {known_columns()}")
        if of_data and not with_data:
            raise ValueError(
                f"a run does not keep {name!r}; give the records that it scored with --data"
            )


def add_columns(
    rows: pl.DataFrame, names: Sequence[str], records: Sequence[Record] = ()
) -> pl.DataFrame:
    """The rows with every named column as text, null where a record does not say.

    Args:
        rows: of `evals.results.SCHEMA`.
        names: that `check_columns` has let through.
        records: of the data; needed for what a run does not keep.
    """
    for name in names:
        if name == LENGTH:
            buckets = np.searchsorted(_LENGTH_UPTO, rows["tokens"].fill_null(0).to_numpy())
            lengths = pl.Series(np.array(LENGTHS)[buckets], dtype=pl.String)
            said = pl.col("tokens").is_not_null()  # not all services say it
            rows = rows.with_columns(pl.when(said).then(lengths).alias(name))
        elif name not in IN_THE_RUN:
            values = pl.DataFrame(
                [(record.id, _value(record, name)) for record in records],
                schema={"record_id": pl.String, name: pl.String},
                orient="row",
            )
            rows = rows.join(values, on="record_id", how="left")
    return rows


def records_of(data: Path, runs: Sequence[FinishedRun]) -> list[Record]:
    """The records of a file or folder that one of the runs scored, read by its adapter.

    Raises:
        RunError: none of them did.
        RecordError: the file cannot be read.
    """
    found = data_sha256(data)
    for run in runs:
        if run.manifest.data.sha256 == found:
            return list(read_data(data, run.manifest.data.adapter))
    wanted = ", ".join(
        f"{run.folder} scored {run.manifest.data.name} (sha256 {run.manifest.data.sha256[:12]})"
        for run in runs
    )
    raise RunError(f"{data} has sha256 {found[:12]}, but {wanted}; give the data of a run")


def _value(record: Record, name: str) -> str | None:
    if not name.startswith(_ORIG):
        return getattr(record, name)  # type: ignore[no-any-return]
    value: JsonValue = record.orig
    value = value.get(name.removeprefix(_ORIG)) if isinstance(value, dict) else None
    return value if value is None or isinstance(value, str) else json.dumps(value)
