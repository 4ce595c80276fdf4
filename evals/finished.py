"""Finished runs as they lie on disk: whose scores they are, and the labelled scores themselves.

Knows the files of a run. Knows nothing of models that are loaded or data that is scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from evals.data.adapter import Adapter
from evals.errors import RunError
from evals.journal import MANIFEST
from evals.results import SCORES, SUMMARY
from moderation.calibration import Calibration, FittedModel
from policies import Surface


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True)


class RunData(_Lenient):
    """What was scored."""

    name: str
    sha256: str
    adapter: Adapter | None = None
    """By which it was read."""


class RunPolicies(_Lenient):
    """By which words."""

    id: str
    policies: dict[str, str]
    """Hashes by policy id."""


class RunModel(_Lenient):
    """By which model."""

    name: str
    revision: str
    template: str
    calibration: str | None


class Manifest(_Lenient):
    """The part of a run's manifest that is needed here."""

    data: RunData
    policy_set: RunPolicies
    model: RunModel
    sample: int | None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """One run."""

    folder: Path
    manifest: Manifest
    scores: pl.DataFrame
    """Rows of `evals.results.SCHEMA` that have both a label and a score."""
    unscored: pl.DataFrame
    """Rows that have a label and no score."""


def read_run(folder: Path) -> FinishedRun:
    """One finished run. Raises `RunError` when the folder holds none."""
    if not (folder / SUMMARY).exists() or not (folder / SCORES).exists():
        raise RunError(
            f"{folder} holds no finished run ({SUMMARY} or {SCORES} is missing); expected the"
            " --out of wardgate eval run, which goes on where it stopped"
        )
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        frame = pl.read_parquet(folder / SCORES)
        if "is_calibrated" not in frame.columns:  # of before there was calibration
            frame = frame.with_columns(is_calibrated=pl.lit(False))
        if "content_hash" not in frame.columns:  # of before runs could be compared
            frame = frame.with_columns(content_hash=pl.lit(None, pl.String))
        labelled = frame.drop_nulls("label")
        scores = labelled.drop_nulls(["raw", "calibrated"])
        unscored = labelled.filter(pl.col("raw").is_null() | pl.col("calibrated").is_null())
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RunError(f"{folder / MANIFEST}: {where}: {first['msg']}") from exc
    except (OSError, pl.exceptions.PolarsError) as exc:
        raise RunError(f"{folder} cannot be read: {exc}") from exc
    return FinishedRun(folder=folder, manifest=manifest, scores=scores, unscored=unscored)


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """Finished runs whose scores can be taken together.

    Raises:
        RunError: a folder holds no finished run, or they are of different models or of different
            words of a policy, or two of them scored the same data.
    """
    runs = [read_run(folder) for folder in folders]
    first = runs[0]
    seen: dict[str, Path] = {}
    for run in runs:
        check_same_scores(first, run)
        if (other := seen.get(run.manifest.data.sha256)) is not None:
            raise RunError(
                f"{run.folder} and {other} scored the same data, so that its records would count"
                " twice; leave one of them out"
            )
        seen[run.manifest.data.sha256] = run.folder
    return runs


def recalibrate(run: FinishedRun, calibration: Calibration) -> FinishedRun:
    """The run as it would have been with this calibration.

    Raises:
        ModelRefused: it was fitted for another model.
    """
    model = run.manifest.model
    calibration.check_fits(
        FittedModel(name=model.name, revision=model.revision, template=model.template)
    )
    hashes = run.manifest.policy_set.policies
    calibrated, is_calibrated = [], []
    for policy, surface, raw in run.scores.select("policy", "surface", "raw").iter_rows():
        curve = calibration.curve_of(policy, hashes[policy], Surface(surface))
        calibrated.append(raw if curve is None else curve(raw))
        is_calibrated.append(curve is not None)
    named = model.model_copy(update={"calibration": calibration.id})
    return replace(
        run,
        manifest=run.manifest.model_copy(update={"model": named}),
        scores=run.scores.with_columns(
            pl.Series("calibrated", calibrated, pl.Float64),
            pl.Series("is_calibrated", is_calibrated, pl.Boolean),
        ),
    )


def check_same_scores(one: FinishedRun, other: FinishedRun) -> None:
    """Raises `RunError` unless both are of one model, one calibration and the same words."""
    ours, theirs = one.manifest.model, other.manifest.model
    for what in ("revision", "template", "calibration"):
        if getattr(ours, what) != getattr(theirs, what):
            raise RunError(
                f"{one.folder} was scored with {what} {getattr(ours, what)!r},"
                f" {other.folder} with {getattr(theirs, what)!r}; expected runs of one model"
            )
    words = one.manifest.policy_set.policies
    for policy_id, found in other.manifest.policy_set.policies.items():
        if words.get(policy_id, found) != found:
            raise RunError(
                f"the policy {policy_id!r} has other words in {one.folder} (hash"
                f" {words[policy_id]}) than in {other.folder} ({found}); run one of them again"
            )
