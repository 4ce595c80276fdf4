"""The numbers in the README are those of the committed evaluation runs."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "benchmarks" / "results"
DATA = {
    "requests": "requests",
    "hatemojicheck": "HatemojiCheck",
    "bipia_injection": "BIPIA",
    "dev": "dev",
}


def policies_of(model: str, data: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RUNS / model / data / "summary.json").read_text())
    return found["policies"]  # type: ignore[no-any-return]


def number(row: dict[str, Any], key: str, *, interval: bool = False) -> str:
    if row[key] is None:
        return "-"
    if not interval or row[f"{key}_ci95"] is None:  # of fewer than 30 positives there is none
        return f"{row[key]:.3f}"
    low, high = row[f"{key}_ci95"]
    return f"{row[key]:.3f} [{low:.2f}, {high:.2f}]"


@pytest.mark.parametrize("data", DATA)
def test_every_row_of_the_table_is_in_the_summaries(data: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ours, before, base = (
        policies_of(model, data) for model in ("embedded-v9", "embedded-v8", "embedded-base")
    )
    for policy, row in ours.items():
        if row["positives"] == row["n"]:
            continue  # nothing to tell apart
        cells = [
            f"{DATA[data]}, {policy}",
            f"{row['n']} / {row['positives']}",
            number(row, "au_prc", interval=True),
            number(row, "auroc", interval=True),
            number(row, "recall_at_threshold"),
            number(row, "fpr_at_threshold", interval=True),
            number(before[policy], "au_prc"),
            number(base[policy], "au_prc"),
        ]
        assert f"| {' | '.join(cells)} |" in readme


def test_all_models_scored_the_same_records_by_the_same_policies() -> None:
    for data in DATA:
        ours, *others = (
            json.loads((RUNS / model / data / "run.json").read_text())
            for model in ("embedded-v9", "embedded-v8", "embedded-base")
        )
        assert all(other["data"]["sha256"] == ours["data"]["sha256"] for other in others)
        for key in ("policy_set", "sample", "seed"):
            assert all(other[key] == ours[key] for other in others)
