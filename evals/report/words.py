"""Numbers and findings as people read them, in any format.

A number that does not exist keeps its reason.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from evals.bars import Held
from evals.report.content import Mistake, PolicyPart, Report, RunPart
from evals.slices import Numbers, Slices

NAMES = {
    "recall_at_threshold": "Recall",
    "fpr_at_threshold": "False-positive rate",
    "precision_at_threshold": "Precision",
    "f1_at_threshold": "F1",
    "auroc": "AUROC",
    "au_prc": "AU-PRC",
}
"""Numbers of a policy that a report shows, in this order."""
_RATES = ("precision_at_threshold", "recall_at_threshold", "fpr_at_threshold")

BAR_STATUS = {"failed": "missed", "error": "not checked", "passed": "held"}
"""What became of a bar, the worst first."""

HEAT = {
    "recall_at_threshold": (0.9, 0.8, 0.65, 0.5),
    "fpr_at_threshold": (0.01, 0.03, 0.1, 0.25),
    "auroc": (0.95, 0.9, 0.8, 0.7),
}
"""Numbers that slices are coloured by, and where one colour ends and the next, worse one begins."""

LONGEST_TEXT = 4000
"""Characters of a text in a report."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One number as it is shown."""

    value: str
    interval: str | None
    missing: str | None
    """Why the number, or else its interval, does not exist."""
    heat: int | None
    """From 0, fine, to 4, look here; None where nothing is to be said."""


def cell(numbers: Numbers, name: str) -> Cell:
    """A number of a summary; a dash where it does not exist."""
    value, pair, reasons = numbers.get(name), numbers.get(f"{name}_ci95"), numbers["reasons"]
    assert isinstance(reasons, dict)
    if not isinstance(value, float):
        return Cell("–", None, str(reasons[name]), None)
    interval = None
    if isinstance(pair, list):
        low, high = (float(str(bound)) for bound in pair)
        interval = f"[{shown(name, low)}, {shown(name, high)}]".replace("%", "")
    why = None if interval else str(reasons[f"{name}_ci95"])
    return Cell(shown(name, value), interval, why, _heat(name, value))


def shown(name: str, value: float) -> str:
    """A value of this number: rates as percentages, areas with three decimals."""
    return percent(value) if name in _RATES else f"{value:.3f}"


def percent(rate: float) -> str:
    """A rate."""
    return f"{100 * rate:.1f}%"


def missing(numbers: Numbers, names: Iterable[str] = NAMES) -> dict[str, list[str]]:
    """The numbers and intervals that do not exist, by reason; those that are not of its kind are
    not spoken of."""
    found: dict[str, list[str]] = {}
    for name in names:
        if name in numbers and (why := cell(numbers, name).missing) is not None:
            what = NAMES[name] if numbers[name] is None else f"interval of {NAMES[name]}"
            found.setdefault(why, []).append(what)
    return found


def title(report: Report) -> str:
    """Of the whole report."""
    if len(report.runs) > 1:
        return f"Evaluation: {len(report.runs)} runs"
    return f"Evaluation: {report.runs[0].data} by {report.runs[0].model}"


def thresholds(part: PolicyPart) -> str:
    """Those in use."""
    return ", ".join(f"{each:g}" for each in part.thresholds)


def with_interval(numbers: Numbers, name: str) -> str:
    """A number in a sentence."""
    found = cell(numbers, name)
    return f"{found.value} {found.interval}" if found.interval else found.value


def _heat(name: str, value: float) -> int | None:
    if name not in HEAT:
        return None
    if name == "fpr_at_threshold":
        return sum(value > end for end in HEAT[name])
    return sum(value < end for end in HEAT[name])


def lines_missing(run: RunPart, report: Report) -> list[tuple[str, Numbers]]:
    """Rows of the table of numbers that lack some, with their names."""
    before = f"{run.name} " if len(report.runs) > 1 else ""
    named = [(part.id, part.numbers) for part in run.policies]
    if len(named) > 1:
        named += [("all, micro", run.whole.micro), ("all, macro", run.whole.macro)]
    return [(before + name, numbers) for name, numbers in named if missing(numbers)]


def slices_missing(run: RunPart) -> list[tuple[str, Numbers]]:
    """Cells of the heat maps that lack a number, with their names."""
    return [
        (f"{column} {each.value or 'not said'}, {policy}", numbers)
        for column, found in told_apart(run).items()
        for each in found.slices
        for policy, numbers in each.policies.items()
        if missing(numbers, HEAT)
    ]


def told_apart(run: RunPart) -> dict[str, Slices]:
    """The columns whose slices differ from all records; the others have nothing to show."""
    return {
        column: found
        for column, found in run.sliced.items()
        if len(found.slices) > 1 or (found.slices and found.hidden_slices)
    }


def not_shown(run: RunPart) -> Iterator[str]:
    """What the heat maps leave out."""
    for column, found in run.sliced.items():
        if found.hidden_slices:
            yield (
                f"By {column} {plural(found.hidden_slices, 'slice')} of fewer records"
                f" ({found.hidden_records:,} in all) {are(found.hidden_slices)} hidden."
            )
        elif len(found.slices) == 1:
            yield f"By {column} all records are alike: {found.slices[0].value or 'not said'}."


def heat_key(name: str) -> list[str]:
    """What the colours mean, from fine to worst."""
    ends = HEAT[name]
    better, worse = ("≤", ">") if name == "fpr_at_threshold" else ("≥", "<")
    return [*(f"{better} {shown(name, end)}" for end in ends), f"{worse} {shown(name, ends[-1])}"]


def plain(value: JsonValue) -> str:
    """A value of a manifest."""
    return value if isinstance(value, str) else json.dumps(value)


def bars(run: RunPart) -> list[Held]:
    """Those that are not held first."""
    return sorted(run.bars, key=lambda held: list(BAR_STATUS).index(held.status))


def bar_found(held: Held) -> str:
    """The number that a bar was held against."""
    if held.value is None:
        return held.problem or "–"
    if held.ci95 is None:
        return f"{held.value:.3f}"
    return f"{held.value:.3f} [{held.ci95[0]:.3f}, {held.ci95[1]:.3f}]"


def bar_where(held: Held) -> str:
    """The records that a bar is of."""
    return ", ".join(f"{column} {value}" for column, value in held.bar.slice.items()) or "all"


def num_mistakes(part: PolicyPart) -> str:
    """Of each kind, listed or not."""
    return f"{part.counts.fn:,} missed, {plural(part.counts.fp, 'false alarm')}"


def mistake(each: Mistake) -> str:
    """A mistake without what was judged, and without its id."""
    what = "missed" if each.kind == "missed" else "false alarm"
    more = [each.surface, each.lang, each.source, each.licence]
    return f"{what}, score {each.score:.3f}: {', '.join(word for word in more if word)}"


SHARING = (
    "some of them harmful. Share it only as far as the licence of the data, and the people who"
    " wrote them, allow."
)
"""Of a file with texts."""

ELSEWHERE = (
    "Others measured these, with their own prompts, thresholds, labels and often other records:"
    " they say where the field is, not who is better."
)
"""Of published numbers."""

READING = {
    "AU-PRC": (
        "Area under the precision-recall curve (average precision). Depends on how many records"
        " violate: chance alone gives their share."
    ),
    "AUROC": "How often a record that violates scores above one that does not; chance gives 0.5.",
    "Recall": "The share of what violates that is flagged at the threshold in use.",
    "False-positive rate": "The share of what does not violate that is flagged all the same.",
    "Precision": "The share of what is flagged that does violate.",
    "F1": "The harmonic mean of precision and recall at the threshold in use.",
    "95% intervals": (
        "A stratified bootstrap for areas, Wilson's for rates, and both rates' together for F1 and"
        " precision. They say what chance in the choice of records could do, and nothing of wrong"
        " labels or of other data."
    ),
    "Calibration error": (
        "How far scores are from shares of violations, on average over 15 parts. Without an"
        " interval: chance alone makes it positive, the more so the fewer records there are."
    ),
    "Micro and macro": (
        "All policies' rows as one heap, and the mean over the policies that have the number."
    ),
    "Slices": "Of twenty slices that are all alike, one looks different by chance.",
}
"""What the numbers mean."""


def plural(number: int, one: str, many: str | None = None) -> str:
    """`3 records`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def are(number: int) -> str:
    """The verb for so many."""
    return "is" if number == 1 else "are"


def visible(text: str) -> str:
    """The beginning of a text, with whatever a person cannot see written out.

    Controls, direction marks, zero-width and lone half characters do nothing to the page, nor to
    what stands beside them, and are seen for what they are.
    """
    cut = text[:LONGEST_TEXT]
    written = "".join(
        each if each in "\n\t" or _is_seen(each) else each.encode("unicode_escape").decode()
        for each in cut
    )
    left = len(text) - len(cut)
    return f"{written} ... ({left:,} more characters)" if left else written


def _is_seen(each: str) -> bool:
    return each.isprintable() or unicodedata.category(each) == "Zs"
