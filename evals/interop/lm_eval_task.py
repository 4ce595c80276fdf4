"""What the tasks written by `evals.interop.lm_eval_export` call; copied beside them as `utils.py`.

Runs within lm-evaluation-harness, where this project need not be installed.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.metrics import average_precision_score, roc_auc_score

Labelled = tuple[int, float]
"""A label (1 violates the policy) and P(Yes)."""


def load(file: str, **_: object) -> dict[str, Any]:
    """The records of one policy, from the file of that name in this folder."""
    from datasets import Dataset

    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def process_results(
    doc: dict[str, Any], results: Sequence[tuple[float, bool]]
) -> dict[str, float | Labelled]:
    """From the log likelihoods of No and Yes to what is counted of one record.

    Raises:
        ValueError: the model gave no number, which is no score.
    """
    (no, _), (yes, _) = results
    if not math.isfinite(yes - no):
        raise ValueError(f"record {doc['id']!r} has no P(Yes): log likelihoods {yes} and {no}")
    p_yes = (1 + math.tanh((yes - no) / 2)) / 2  # a softmax of two, which cannot overflow
    labelled = (int(doc["target"]), p_yes)
    return {
        "acc": float((p_yes >= 0.5) == bool(doc["target"])),
        "au_prc": labelled,
        "auroc": labelled,
    }


def au_prc(items: Sequence[Labelled]) -> float:
    """The area under the precision-recall curve; NaN where a class is missing."""
    labels, scores = zip(*items, strict=True)
    return float(average_precision_score(labels, scores)) if len(set(labels)) == 2 else math.nan


def auroc(items: Sequence[Labelled]) -> float:
    """The area under the ROC curve; NaN where a class is missing."""
    labels, scores = zip(*items, strict=True)
    return float(roc_auc_score(labels, scores)) if len(set(labels)) == 2 else math.nan
