"""What probes change, for people: tables on a terminal, and the same as Markdown."""

import math
from collections.abc import Iterator

from rich.console import Group
from rich.table import Table

from evals.probe_report import Effect, ProbeReport
from evals.table import left_out_labels

_HEADS = (
    "probe", "n", "AU-PRC", "change [95%]", "recall", "FPR", "now\npass", "now\nflagged", "drop",
    "not\nscored",
)  # fmt: skip
_MEAN = "mean"


def probe_tables(report: ProbeReport) -> Group:
    """One table a policy, the probe that evades best first, and what the numbers mean."""
    tables = []
    for policy_id in report.effects:
        table = Table(title=policy_id, title_justify="left")
        for index, head in enumerate(_HEADS):
            table.add_column(head, justify="right" if index else "left", no_wrap=True)
        for row in _rows(report, policy_id):
            table.add_row(*row)
        tables.append(table)
    return Group(f"{_title(report)}\n", *tables, *_notes(report))


def probe_markdown(report: ProbeReport) -> str:
    """The tables and the notes as Markdown, ending in a newline."""
    lines = [f"# {_title(report)}", ""]
    for policy_id in report.effects:
        lines += [
            f"## {policy_id}",
            "",
            f"| {' | '.join(_HEADS)} |".replace("\n", " "),
            f"|{' --- |' + ' ---: |' * (len(_HEADS) - 1)}",
            *(f"| {' | '.join(row)} |" for row in _rows(report, policy_id)),
            "",
        ]
    lines += [f"* {note}" for note in _notes(report)]
    lines += ["", "| probe | what it does |", "| --- | --- |"]
    lines += [f"| {name} | {probe.what} |" for name, probe in report.probes.items()]
    return "\n".join(lines) + "\n"


def _title(report: ProbeReport) -> str:
    about = report.about
    return f"Probes of {about['data']}: {about['policy_set']} by {about['model']}"


def _rows(report: ProbeReport, policy_id: str) -> Iterator[list[str]]:
    effects = report.effects[policy_id]

    def badly(name: str) -> tuple[float, float]:
        effect = effects[name]
        change = math.inf if effect.au_prc_change is None else effect.au_prc_change
        return change, -(effect.mean_drop_positives or 0.0)

    for name in sorted(effects, key=badly):
        yield [name, *_cells(effects[name])]
    if len(effects) > 1 and (mean := report.mean_change(policy_id)) is not None:
        yield [_MEAN, "", "", f"{mean:+.3f}", *[""] * (len(_HEADS) - 4)]


def _cells(effect: Effect) -> list[str]:
    change = "-" if effect.au_prc_change is None else f"{effect.au_prc_change:+.3f}"
    if effect.au_prc_change_ci95 is not None:
        low, high = effect.au_prc_change_ci95
        change += f" [{low:+.3f}, {high:+.3f}]"
    return [
        str(effect.n),
        _both(effect.au_prc_clean, effect.au_prc_probed),
        change,
        _both(effect.recall_clean, effect.recall_probed),
        _both(effect.fpr_clean, effect.fpr_probed),
        str(effect.now_pass),
        str(effect.now_flagged),
        "-" if effect.mean_drop_positives is None else f"{effect.mean_drop_positives:+.3f}",
        str(effect.unscorable + effect.partial),
    ]


def _both(clean: float | None, probed: float | None) -> str:
    return "-" if clean is None or probed is None else f"{clean:.3f}→{probed:.3f}"


def _notes(report: ProbeReport) -> Iterator[str]:
    about = report.about
    yield (
        f"{about['records']} records; each row is of those that the probe changes: clean→probed."
        " Recall, FPR and verdicts are at the threshold of the policy set; drop is that of the mean"
        " score of the records that violate."
    )
    if left := [f"{name} {number}" for name, number in report.unchanged.items() if number]:
        yield f"Records that a probe leaves as they are: {', '.join(left)}."
    most = {
        policy_id: max((each.partial_clean for each in effects.values()), default=0)
        for policy_id, effects in report.effects.items()
    }
    if partly := [f"{policy_id} {number}" for policy_id, number in most.items() if number]:
        yield (
            "Records of which a part was not judged even as they are, so that the numbers say"
            f" nothing of it: {', '.join(partly)}."
        )
    yield from left_out_labels(about)
    if not about["normalised"]:
        yield "Texts were scored only as they are, not in their normal form as well."
    if not about["calibrated"]:
        yield "Scores are not calibrated."
