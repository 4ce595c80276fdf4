"""The summary of a run as a table for people."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue
from rich.table import Table

from evals.results import Results

_COLUMNS = {
    "AU-PRC": "au_prc",
    "AUROC": "auroc",
    "best F1": "f1_best",
    "at": "threshold_best",
    "F1": "f1_at_threshold",
    "recall": "recall_at_threshold",
    "FPR": "fpr_at_threshold",
}
"""Heads of the columns, and what they show of a policy's summary."""


def summary_table(results: Results) -> Table:
    """One row a policy; a dash where a number does not exist."""
    summary = results.summary
    policies = summary["policies"]
    assert isinstance(policies, dict)
    table = Table(
        title=f"{summary['data']}: {summary['policy_set']} by {summary['model']}",
        caption=_caption(results),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    for head in ("n", "positives", *_COLUMNS):
        table.add_column(head, justify="right", no_wrap=True)
    for policy_id, numbers in policies.items():
        assert isinstance(numbers, dict)
        cells = [_cell(numbers.get(key), numbers.get(f"{key}_ci95")) for key in _COLUMNS.values()]
        table.add_row(policy_id, str(numbers["n"]), str(numbers["positives"]), *cells)
    return table


def left_out_labels(summary: Mapping[str, JsonValue]) -> Iterator[str]:
    """A line for each reason why labels are in no number."""
    left_out = summary["labels_left_out"]
    assert isinstance(left_out, dict)
    for key, what in (
        ("not_in_policy_set", "labels left out (not in the policy set)"),
        ("no_definition_for_surface", "labels left out (the policy has no words for the surface)"),
    ):
        counts = left_out[key]
        if isinstance(counts, dict) and counts:
            yield f"{what}: {', '.join(f'{name} {n}' for name, n in counts.items())}"


def _cell(value: object, interval: object) -> str:
    if not isinstance(value, float):
        return "-"
    # three significant digits: a best threshold of 0.0004 must not read as 0
    text = f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.1e}"
    if isinstance(interval, list) and isinstance(interval[0], float):
        return f"{text} ±{(interval[1] - interval[0]) / 2:.3f}"
    return text


def _caption(results: Results) -> str:
    summary = results.summary
    lines = ["F1, recall and FPR at the threshold of the policy set; ± half of a 95% interval."]
    lines += left_out_labels(summary)
    if summary["unscorable_records"]:
        lines.append(
            f"{summary['unscorable_records']} records could not be scored and count nowhere;"
            " column 'error' of the scores says why"
        )
    if results.num_scored and "service" in summary:
        each = results.wall_s / results.num_scored
        lines.append(
            f"{results.num_scored} records scored, {each:.3f} s until an answer on average"
        )
    elif results.num_scored:
        each = results.cpu_s / results.num_scored
        lines.append(
            f"{results.num_scored} records scored, {results.cpu_s:.0f} s of processor time"
            f" ({each:.3f} s a record), {results.wall_s:.0f} s in all"
        )
    if not summary.get("normalised", True):
        lines.append("Texts were scored only as they are, not in their normal form as well.")
    if not summary["calibrated"]:
        lines.append("Scores are not calibrated.")
    return "\n".join(lines)
