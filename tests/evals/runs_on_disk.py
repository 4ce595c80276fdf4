"""Folders of finished runs with made-up scores: what `wardgate eval run` would have left."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from evals.journal import MANIFEST
from evals.metrics import Bools, Floats
from evals.results import SCHEMA, SCORES, SUMMARY
from policies import load_library

POLICY = "harassment"


def sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float64)


def overconfident(
    size: int, *, seed: int, slope: float = 3.0, shift: float = 1.0, share: float = 0.0
) -> tuple[Bools, Floats]:
    """Labels, and raw scores whose logits are `slope * (true logit) + shift`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(share, 2.0, size)
    labels = rng.random(size) < sigmoid(logits)
    return labels, sigmoid(slope * logits + shift)


def write_run(
    folder: Path,
    labels: Bools | NDArray[Any],
    scores: Floats,
    *,
    policy: str = POLICY,
    surface: str = "prompt",
    more: pl.DataFrame | None = None,
    **model: str | None,
) -> Path:
    """A folder of one policy's scores; `more` are further rows, made by `rows`."""
    folder.mkdir(parents=True)
    frame = rows(labels, scores, policy=policy, surface=surface)
    if more is not None:
        frame = pl.concat([frame, more])
    frame.write_parquet(folder / SCORES)
    (folder / SUMMARY).write_text("{}")
    manifest = {
        "data": {"name": f"{folder.name}.jsonl", "sha256": folder.name.ljust(64, "0")},
        "policy_set": {
            "id": "all",
            "hash": "x",
            "policies": {each.id: each.hash for each in load_library().policies.values()},
        },
        "model": {
            "name": "scripted",
            "revision": "1",
            "template": "compact",
            "calibration": None,
            **model,
        },
        "sample": None,
        "seed": 0,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def rows(
    labels: Bools | NDArray[Any], scores: Floats, *, policy: str = POLICY, surface: str = "prompt"
) -> pl.DataFrame:
    """Rows of a scores file."""
    size = len(labels)
    return pl.DataFrame(
        {
            "record_id": [f"{surface}-{index}" for index in range(size)],
            "policy": [policy] * size,
            "surface": [surface] * size,
            "raw": scores,
            "calibrated": scores,
            "is_calibrated": [False] * size,
            "threshold": [0.5] * size,
            "violates": scores >= 0.5,
            "label": labels,
            "coverage": ["scored"] * size,
            "tokens": [10] * size,
            "windows": [1] * size,
            "lang": ["en"] * size,
            "source": [None] * size,
            "content_hash": [f"{index:016x}" for index in range(size)],
            "error": [None] * size,
        },
        schema=SCHEMA,
    )
