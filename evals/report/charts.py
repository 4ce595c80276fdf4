"""Diagrams of a policy as SVG that takes its colours from the page around it.

Built as a tree of elements, so that no text can become markup. Lines differ in their dashes too,
not in colour alone, and each picture says in words what it shows.
"""

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from markupsafe import Markup

from evals.metrics import Counts
from evals.report.content import Curves, PolicyPart
from evals.report.words import cell, percent
from evals.slices import Numbers

WIDTH, HEIGHT = 240, 226
_LEFT, _RIGHT, _TOP, _BOTTOM = 30, 232, 20, 178
"""Of the square of axes."""

Line = Sequence[tuple[float, float]]
"""Points in [0, 1] x [0, 1]."""


class _Plot:
    """Axes from 0 to 1, and what is drawn on them."""

    def __init__(self, key: str, title: str, says: str, *, x: str, y: str) -> None:
        self._svg = ET.Element(
            "svg",
            {
                "viewBox": f"0 0 {WIDTH} {HEIGHT}",
                "role": "img",
                "aria-labelledby": f"{key}-t {key}-d",
            },
        )
        ET.SubElement(self._svg, "title", {"id": f"{key}-t"}).text = title
        ET.SubElement(self._svg, "desc", {"id": f"{key}-d"}).text = says
        for quarter in range(5):
            at = quarter / 4
            self.line([(at, 0), (at, 1)], "grid")
            self.line([(0, at), (1, at)], "grid")
            if quarter % 2 == 0:
                self._text(f"{at:g}", self._x(at), _BOTTOM + 12, "tick", "middle")
                self._text(f"{at:g}", _LEFT - 5, self._y(at) + 3, "tick", "end")
        self._text(x, (_LEFT + _RIGHT) / 2, _BOTTOM + 25, "axis", "middle")
        self._text(y, 2, 11, "axis", "start")

    def line(self, points: Line, kind: str) -> None:
        """Points joined by straight lines."""
        joined = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        ET.SubElement(self._svg, "polyline", {"points": joined, "class": kind})

    def dot(
        self,
        x: float,
        y: float,
        *,
        x_ci95: tuple[float, float] | None = None,
        y_ci95: tuple[float, float] | None = None,
    ) -> None:
        """A point with its intervals."""
        if x_ci95 is not None:
            self.line([(x_ci95[0], y), (x_ci95[1], y)], "whisker")
        if y_ci95 is not None:
            self.line([(x, y_ci95[0]), (x, y_ci95[1])], "whisker")
        ET.SubElement(
            self._svg,
            "circle",
            {"cx": f"{self._x(x):.1f}", "cy": f"{self._y(y):.1f}", "r": "3.2", "class": "dot"},
        )

    def bar(self, left: float, right: float, height: float) -> None:
        """A column on the axis."""
        attributes = {
            "x": f"{self._x(left):.1f}",
            "y": f"{self._y(height):.1f}",
            "width": f"{self._x(right) - self._x(left) - 1:.1f}",
            "height": f"{self._y(0) - self._y(height):.1f}",
            "class": "bar",
        }
        ET.SubElement(self._svg, "rect", attributes)

    def legend(self, entries: Iterable[tuple[str, str, float]]) -> None:
        """Samples of lines, ``(kind, words, x in pixels)``, below the axes."""
        y = HEIGHT - 8
        for kind, words, x in entries:
            ET.SubElement(self._svg, "polyline", {"points": f"{x},{y} {x + 18},{y}", "class": kind})
            self._text(words, x + 22, y + 3, "tick", "start")

    def markup(self) -> Markup:
        """The finished picture."""
        # safe as it stands: ElementTree has escaped every text and attribute
        return Markup(ET.tostring(self._svg, encoding="unicode"))

    def _text(self, words: str, x: float, y: float, kind: str, anchor: str) -> None:
        attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": kind, "text-anchor": anchor}
        ET.SubElement(self._svg, "text", attributes).text = words

    def _x(self, value: float) -> float:
        return _LEFT + value * (_RIGHT - _LEFT)

    def _y(self, value: float) -> float:
        return _BOTTOM - value * (_BOTTOM - _TOP)


def precision_recall(part: PolicyPart, key: str) -> Markup | None:
    """None where the curve does not exist."""
    if part.curves is None or part.numbers["au_prc"] is None:
        return None
    numbers, share = part.numbers, _positives(part.counts) / _all(part.counts)
    plot = _Plot(
        key,
        f"Precision and recall of {part.id}",
        f"AU-PRC {_said(numbers, 'au_prc')}. {_operating(part, 'recall', 'precision')}"
        f" The dashed line is chance: {percent(share)} of the records violate.",
        x="recall",
        y="precision",
    )
    plot.line([(0, share), (1, share)], "chance")
    steps: list[tuple[float, float]] = []
    for point in part.curves.falling:
        recall, precision = point.counts.recall, point.counts.precision
        if recall is not None and precision is not None:
            # average precision is the area under steps, each as high as its right end
            steps += [(steps[-1][0] if steps else 0.0, precision), (recall, precision)]
    plot.line(steps, "curve")
    if part.counts.recall is not None and part.counts.precision is not None:
        plot.dot(
            part.counts.recall,
            part.counts.precision,
            x_ci95=_pair(numbers, "recall_at_threshold"),
            y_ci95=_pair(numbers, "precision_at_threshold"),
        )
    return plot.markup()


def roc(part: PolicyPart, key: str) -> Markup | None:
    """None where the curve does not exist."""
    if part.curves is None or part.numbers["auroc"] is None:
        return None
    numbers = part.numbers
    plot = _Plot(
        key,
        f"ROC of {part.id}",
        f"AUROC {_said(numbers, 'auroc')}. {_operating(part, 'fpr', 'recall')}"
        " The dashed line is chance.",
        x="false-positive rate",
        y="recall",
    )
    plot.line([(0, 0), (1, 1)], "chance")
    points = [(point.counts.fpr, point.counts.recall) for point in part.curves.falling]
    plot.line(
        [(0.0, 0.0), *((x, y) for x, y in points if x is not None and y is not None)], "curve"
    )
    if part.counts.recall is not None and part.counts.fpr is not None:
        plot.dot(
            part.counts.fpr,
            part.counts.recall,
            x_ci95=_pair(numbers, "fpr_at_threshold"),
            y_ci95=_pair(numbers, "recall_at_threshold"),
        )
    return plot.markup()


def reliability_diagram(part: PolicyPart, curves: Curves, key: str) -> Markup:
    """Scores against shares of violations; the columns are how many records there are."""
    kind = "Calibrated scores" if part.is_calibrated else "Scores, not calibrated,"
    plot = _Plot(
        key,
        f"Reliability of {part.id}",
        f"{kind} against the share that violates, with 95% intervals; on the dashed line both are"
        f" equal. Expected calibration error {curves.ece:.3f}, Brier score {curves.brier:.3f}.",
        x="mean score",
        y="share that violates",
    )
    most = max(each.n for each in curves.bins)
    for each in curves.bins:
        plot.bar(each.low, each.high, 0.25 * each.n / most)
    plot.line([(0, 0), (1, 1)], "chance")
    plot.line([(each.mean, each.share) for each in curves.bins], "faint")
    for each in curves.bins:
        plot.dot(each.mean, each.share, y_ci95=(each.share_ci95.low, each.share_ci95.high))
    return plot.markup()


def threshold_sweep(part: PolicyPart, curves: Curves, key: str) -> Markup:
    """What every threshold would do; upright lines are those in use."""
    used = " and ".join(f"{each:g}" for each in part.thresholds)
    plot = _Plot(
        key,
        f"Thresholds of {part.id}",
        f"Recall, precision and false-positive rate by threshold. In use: {used}."
        f" {_operating(part, 'recall', 'precision', 'fpr')}",
        x="threshold",
        y="rate",
    )
    for each in part.thresholds:
        plot.line([(each, 0), (each, 1)], "used")
    entries = []
    for kind, name, words, at in (
        ("curve", "recall", "recall", 30),
        ("second", "precision", "precision", 90),
        ("third", "fpr", "false positives", 162),
    ):
        rates = [(point.threshold, getattr(point.counts, name)) for point in curves.sweep]
        there = [(threshold, rate) for threshold, rate in rates if rate is not None]
        if there:
            plot.line(there, kind)
            entries.append((kind, words, at))
    plot.legend(entries)
    return plot.markup()


def interval_bar(numbers: Numbers, name: str) -> Markup | None:
    """A value and its interval on a line from 0 to 1, to stand in a cell beside the number."""
    value, pair = numbers.get(name), _pair(numbers, name)
    if not isinstance(value, float) or pair is None:
        return None
    svg = ET.Element("svg", {"viewBox": "0 0 100 8", "class": "mini", "aria-hidden": "true"})
    for left, right, kind in ((0.0, 1.0, "grid"), (*pair, "span")):
        points = f"{1 + 98 * left:.1f},4 {1 + 98 * right:.1f},4"
        ET.SubElement(svg, "polyline", {"points": points, "class": kind})
    ET.SubElement(svg, "circle", {"cx": f"{1 + 98 * value:.1f}", "cy": "4", "r": "2.6"})
    return Markup(ET.tostring(svg, encoding="unicode"))


def _operating(part: PolicyPart, *names: str) -> str:
    said = [f"{name} {_said(part.numbers, f'{name}_at_threshold')}" for name in names]
    return f"At the threshold in use: {', '.join(said)}."


def _said(numbers: Numbers, name: str) -> str:
    found = cell(numbers, name)
    if found.value == "–":
        return f"not known ({found.missing})"
    return f"{found.value} {found.interval or ''}".strip()


def _pair(numbers: Numbers, name: str) -> tuple[float, float] | None:
    pair = numbers[f"{name}_ci95"]
    if not isinstance(pair, list):
        return None
    low, high = (float(str(bound)) for bound in pair)
    return low, high


def _positives(counts: Counts) -> int:
    return counts.tp + counts.fn


def _all(counts: Counts) -> int:
    return counts.tp + counts.fn + counts.fp + counts.tn
