"""What a report finds worth saying of a run, in sentences."""

from collections.abc import Iterator, Sequence
from typing import Literal

from evals.metrics import Counts
from evals.report.content import PolicyPart, Report, RunPart
from evals.report.words import BAR_STATUS, are, plural, with_interval
from evals.slices import Numbers

WIDE = 0.2
"""An interval of a rate that is wider says little."""


def what_was_evaluated(run: RunPart) -> str:
    """In one sentence."""
    sample = " (a sample of it)" if run.sample is not None else ""
    return (
        f"{run.model} judged {run.num_records:,} records of {run.data}{sample} by"
        f" {plural(len(run.policies), 'policy', 'policies')} of the policy set {run.policy_set}."
    )


def verdict(run: RunPart) -> str:
    """In one sentence: what the bars say, or else what the thresholds do."""
    if not run.bars:
        return rates(run)
    numbers = dict.fromkeys(BAR_STATUS, 0)
    for held in run.bars:
        numbers[held.status] += 1
    if numbers["passed"] == len(run.bars):
        return f"Every bar is held: {numbers['passed']}."
    said = [f"{number} {BAR_STATUS[status]}" for status, number in numbers.items() if number]
    return f"Not every bar is held: {', '.join(said)}."


def rates(run: RunPart) -> str:
    """What the thresholds in use do, in one sentence."""
    parts = [
        f"{verb} {with_interval(run.whole.micro, name)} of {whom}"
        for name, verb, whom in (
            ("recall_at_threshold", "finds", "what violates a policy"),
            ("fpr_at_threshold", "flags", "what does not"),
        )
        if run.whole.micro[name] is not None
    ]
    if not parts:
        return "No record could be scored, so nothing is known."
    together = ", all policies together" if len(run.policies) > 1 else ""
    return f"At the thresholds in use it {' and '.join(parts)}{together}."


def tone(run: RunPart) -> Literal["held", "missed", ""]:
    """Whether all bars are held; empty where there are none."""
    if not run.bars:
        return ""
    return "held" if all(held.status == "passed" for held in run.bars) else "missed"


def noteworthy(run: RunPart) -> Iterator[str]:
    """What a reader should know before the tables, the weightiest first."""
    if run.num_unscored:
        codes = ", ".join(f"{code} {number:,}" for code, number in run.unscored.items())
        yield (
            f"{plural(run.num_unscored, 'record')} without a score"
            f" {are(run.num_unscored)} counted nowhere: {codes}."
        )
    if len(run.policies) > 1:
        yield from _extremes(run.policies)
    blind = [part.id for part in run.policies if part.numbers["recall_at_threshold"] is None]
    if blind:
        yield (
            "Nothing is known of what it misses, for lack of scored records that violate: "
            f"{', '.join(blind)}."
        )
    unsure = [part.id for part in run.policies if _is_unsure(part.numbers)]
    if unsure:
        yield (
            f"Too little data to be sure (an interval wider than {100 * WIDE:g} points): "
            f"{', '.join(unsure)}."
        )
    raw = [part.id for part in run.policies if not part.is_calibrated and part.curves]
    if raw:
        whose = "of all policies" if len(raw) == len(run.policies) else f"of {', '.join(raw)}"
        yield f"Scores {whose} are not calibrated: they rank, but are no probabilities."
    for why, counts in run.labels_left_out.items():
        labels = ", ".join(f"{name} {number:,}" for name, number in counts.items())
        yield f"Labels that were left out ({why.replace('_', ' ')}): {labels}."


def same_data(report: Report) -> bool:
    """Whether two runs scored the same file."""
    hashes = [run.about.get("data.sha256") for run in report.runs]
    return len({*hashes}) < len(hashes)


def what_flagging_did(counts: Counts) -> str:
    """The counts behind the rates, in one sentence."""
    violating, harmless = counts.tp + counts.fn, counts.fp + counts.tn
    return (
        f"Of {violating:,} that violate it flags {counts.tp:,} and misses {counts.fn:,}; of"
        f" {harmless:,} that do not it flags {counts.fp:,}."
    )


def _extremes(policies: Sequence[PolicyPart]) -> Iterator[str]:
    for name, words, worst in (
        ("recall_at_threshold", "Misses most: {}, recall {}.", min),
        ("fpr_at_threshold", "Most false alarms: {}, false-positive rate {}.", max),
        ("auroc", "Ranks worst: {}, AUROC {}.", min),
    ):
        having = [(value, part) for part in policies if (value := _number(part, name)) is not None]
        if len(having) > 1:
            _, part = worst(having, key=lambda each: each[0])
            yield words.format(part.id, with_interval(part.numbers, name))


def _number(part: PolicyPart, name: str) -> float | None:
    value = part.numbers[name]
    return value if isinstance(value, float) else None


def _is_unsure(numbers: Numbers) -> bool:
    pairs = [numbers[f"{name}_ci95"] for name in ("recall_at_threshold", "fpr_at_threshold")]
    return any(
        isinstance(pair, list) and float(str(pair[1])) - float(str(pair[0])) > WIDE
        for pair in pairs
    )
