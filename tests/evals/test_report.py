"""A report says what was measured, lets nothing of a record become markup, and shares no text
unless asked to."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from markdown_it import MarkdownIt
from sklearn.metrics import precision_score, recall_score

from evals.bars import read_bars
from evals.errors import RunError
from evals.finished import FinishedRun, read_run
from evals.journal import MANIFEST
from evals.metrics import Bools, Floats
from evals.records import Record, file_sha256, read_records
from evals.report import findings, words
from evals.report.content import Report, RunPart, Wanted
from evals.report.describe import describe_run
from evals.report.machine import report_json
from evals.report.markdown import report_markdown
from evals.report.page import report_html
from evals.report.published import PublishedNumber, read_published
from evals.results import SCORES, SUMMARY, policy_summary
from evals.slices import Numbers
from policies import PolicyFileError
from tests.evals.runs_on_disk import POLICY, overconfident, rows, write_run
from tests.evals.scripted import plan_for, run_plan, scripted_moderator, some_records, write_records

OTHER = "hate_speech"
SIZE = 40
"""Of both classes fewer than a bootstrap, which takes seconds, needs."""
VOID = {"meta", "wbr", "link", "img", "br", "hr", "input", "base"}

HOSTILE = (
    "</pre></details><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "</style><style>*{display:none}</style><!--",
    "`x` | **y** | [z](https://evil.example) <https://evil.example> \\",
    "# head\n\n| a | b |\n|---|---|\n\n<iframe src=//evil.example></iframe>\n\n```",
    "&lt;b&gt; &#60;i&#62; ]]> &",
)


class Page(HTMLParser):
    """The elements of a page, in order, and its texts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def wanted(*, with_texts: bool = False, by: str | None = None) -> Wanted:
    return Wanted(
        by=[by] if by else [], policies=[], min_records=10, num_mistakes=20, with_texts=with_texts,
        bars=None,
    )  # fmt: skip


def report_of(
    run: FinishedRun, records: list[Record] | None = None, *, with_texts: bool = False
) -> Report:
    part = describe_run(run, wanted(with_texts=with_texts, by="lang"), records or [])
    return Report(runs=(part,), min_records=10, with_texts=with_texts, published=())


def a_run(folder: Path, said: list[str]) -> tuple[FinishedRun, list[Record]]:
    """A run of which all that a record can say is one of the texts; with its data."""
    labels, scores = overconfident(SIZE, seed=1)

    def say(index: int) -> str:
        return said[index % len(said)]

    def line(index: int) -> str:
        return " ".join(say(index).split())

    write_run(folder, labels, scores, more=rows(~np.ones(SIZE, dtype=bool), scores, policy=OTHER))
    ids = [f"{index:03} {line(index)}" for index in range(SIZE)]
    frame = pl.read_parquet(folder / SCORES).with_columns(
        record_id=pl.Series(ids * 2),
        # two slices, so that a map is drawn
        lang=pl.Series([line(index % 2) for index in range(SIZE)] * 2),
        source=pl.Series([line(index) for index in range(SIZE)] * 2),
    )
    frame.write_parquet(folder / SCORES)
    records = [
        Record(
            id=ids[index],
            text=say(index),
            prompt=say(index + 1),
            role="model",
            labels={POLICY: bool(labels[index])},
            licence=say(index),
        )
        for index in range(SIZE)
    ]
    data = write_records(folder.parent / f"{folder.name}.jsonl", records)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["data"] = {"name": line(0), "sha256": file_sha256(data)}
    manifest["model"]["name"] = line(1)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    left_out = {"not_in_policy_set": {say(0): 3}}
    (folder / SUMMARY).write_text(json.dumps({"labels_left_out": left_out}))
    return read_run(folder), read_records(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    run, records = a_run(tmp_path_factory.mktemp("hostile") / "run", list(HOSTILE))
    return report_of(run, records, with_texts=True)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Report:
    said = [f"said {chr(97 + index)}" for index in range(len(HOSTILE))]
    run, records = a_run(tmp_path_factory.mktemp("harmless") / "run", said)
    return report_of(run, records, with_texts=True)


def test_nothing_of_a_record_becomes_an_element(hostile: Report, harmless: Report) -> None:
    found, expected = (
        [tag for tag, _ in Page(report_html(report)).elements if tag != "wbr"]
        for report in (hostile, harmless)
    )
    assert found == expected
    assert found.count("pre") > 2 * len(HOSTILE), "texts and their prompts are there"


def test_everything_of_a_record_is_still_read(hostile: Report) -> None:
    text = Page(report_html(hostile)).text
    for said in HOSTILE:
        assert text.count(said) >= 2


def test_nothing_of_a_record_becomes_markdown(hostile: Report, harmless: Report) -> None:
    parser = MarkdownIt("commonmark").enable("table")

    def shape(report: Report) -> list[tuple[str, list[str]]]:
        return [
            (token.type, [inner.type for inner in token.children or [] if inner.type != "text"])
            for token in parser.parse(report_markdown(report))
        ]

    found = shape(hostile)
    assert [kind for kind, _ in found].count("html_block") > 2 * len(HOSTILE)
    assert {"html_inline", "link_open"}.isdisjoint(kind for _, inner in found for kind in inner)
    # text_special is what an entity is read as, and stands for itself
    plain = [(kind, [each for each in inner if each != "text_special"]) for kind, inner in found]
    assert plain == shape(harmless)


def test_the_html_in_markdown_holds_nothing_of_a_record(hostile: Report) -> None:
    for line in report_markdown(hostile).splitlines():
        if "<" in line:
            assert [tag for tag, _ in Page(line).elements] == ["details", "summary", "pre"]


def test_texts_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    run, records = a_run(tmp_path / "run", ["an id"])
    secret = [
        record.model_copy(update={"text": "a secret text", "prompt": "a secret prompt"})
        for record in records
    ]
    by_default, asked = report_of(run, secret), report_of(run, secret, with_texts=True)
    for write in (report_html, report_markdown, report_json):
        assert "secret" not in write(by_default)
        assert "a secret text" in write(asked)
        assert "a secret prompt" in write(asked)
    page = Page(report_html(asked))
    assert all("open" not in attributes for attributes in page.all("details"))
    assert "This file holds texts of the data" in page.text


def test_what_cannot_be_seen_is_written_out() -> None:
    assert words.visible("a\u202eb\x00c\u200bd\ud800") == r"a\u202eb\x00c\u200bd\ud800"
    assert words.visible("zwei\nZeilen, é 中 😀") == "zwei\nZeilen, é 中 😀"
    long = words.visible("x" * (words.LONGEST_TEXT + 1234))
    assert long.endswith("x ... (1,234 more characters)")


def test_the_page_needs_nothing_else_and_runs_nothing(hostile: Report) -> None:
    page = Page(report_html(hostile))
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(tag for tag, _ in page.elements)
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    policy = {meta.get("http-equiv"): meta.get("content") for meta in page.all("meta")}
    assert policy["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert "url(" not in report_html(hostile)
    assert "@import" not in report_html(hostile)


def test_the_page_can_be_read_aloud(hostile: Report) -> None:
    page = Page(report_html(hostile))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.all("a"):
        assert (attributes["href"] or "")[1:] in ids
    pictures = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert len(pictures) == 6, "a policy without positives has no precision-recall and no ROC"
    for svg in pictures:
        assert svg["role"] == "img"
        assert set((svg["aria-labelledby"] or "").split()) <= set(ids)
    assert len(page.all("title")) == len(pictures) + 1
    assert len(page.all("desc")) == len(pictures)
    assert all("scope" in head for head in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]


def test_the_numbers_are_those_of_the_summary(tmp_path: Path) -> None:
    data = write_records(tmp_path / "data.jsonl", some_records(40))
    results = run_plan(scripted_moderator(tmp_path / "calls"), plan_for(data, tmp_path / "run"))
    report = report_of(read_run(tmp_path / "run"))
    found = json.loads(report_json(report))["runs"][0]
    assert {part["id"]: part["numbers"] for part in found["policies"]} == results.summary[
        "policies"
    ]
    assert found["about"]["data.sha256"] == file_sha256(data)
    assert found["about"]["policy_set.policies.harassment"]
    assert found["about"]["model.calibration"] is None
    text = Page(report_html(report)).text
    for value in found["about"].values():
        assert words.plain(value) in text
    # the same run, the same bytes
    assert report_html(report_of(read_run(tmp_path / "run"))) == report_html(report)


def test_intervals_and_curves_are_those_of_the_run(tmp_path: Path) -> None:
    labels, scores = overconfident(600, seed=3)
    part = describe(tmp_path, labels, scores).policies[0]
    # with the seed of the run, so that they are those of its summary to the last digit
    assert part.numbers == policy_summary(rows(labels, scores), 0)
    assert part.curves is not None
    assert 100 < len(part.curves.falling) <= 200, "however many records there are"
    thresholds = [point.threshold for point in part.curves.falling]
    assert thresholds == sorted(thresholds, reverse=True)
    assert (thresholds[0], thresholds[-1]) == (scores.max(), scores.min())
    for point in (*part.curves.falling[::20], *part.curves.sweep[10:90:20]):
        flagged = scores >= point.threshold
        assert point.counts.recall == pytest.approx(recall_score(labels, flagged))
        assert point.counts.precision == pytest.approx(precision_score(labels, flagged))
        assert point.counts.fpr == pytest.approx(np.mean(flagged[~labels]))


def test_dots_stand_at_the_threshold_in_use(tmp_path: Path) -> None:
    labels = np.array([True] * 4 + [False] * 4)
    scores = np.array([0.9, 0.8, 0.7, 0.1, 0.6, 0.2, 0.2, 0.2])
    html = report_html(of(describe(tmp_path, labels, scores)))
    precision_recall, roc = dots(html)[:2]
    # three of four are found, and one of four is flagged in vain
    assert precision_recall == pytest.approx((30 + 0.75 * 202, 178 - 0.75 * 158), abs=0.1)
    assert roc == pytest.approx((30 + 0.25 * 202, 178 - 0.75 * 158), abs=0.1)


def test_mistakes_go_from_the_worst(tmp_path: Path) -> None:
    labels = np.array([True, True, True, False, False, False])
    scores = np.array([0.4, 0.1, 0.9, 0.6, 0.97, 0.2])
    found = describe(tmp_path, labels, scores).policies[0].mistakes
    assert [(each.kind, each.record_id) for each in found] == [
        ("missed", "prompt-1"), ("missed", "prompt-0"),
        ("false_alarm", "prompt-4"), ("false_alarm", "prompt-3"),
    ]  # fmt: skip


def test_what_does_not_exist_has_its_reason(tmp_path: Path) -> None:
    scores = np.linspace(0, 0.9, 40)
    part = describe(tmp_path, np.zeros(40, dtype=bool), scores)
    reason = "needs positives and negatives; found 0 positives and 40 negatives"
    assert cell_of(part.policies[0].numbers, "auroc") == ("–", reason)
    for text in (Page(report_html(of(part))).text, report_markdown(of(part))):
        assert "AUROC, AU-PRC: " + reason in text
        assert "Nothing is known of what it misses" in text
    assert "No curve: " + reason in Page(report_html(of(part))).text
    few = describe(tmp_path / "few", np.arange(40) < 5, scores[::-1])
    shown = words.cell(few.policies[0].numbers, "auroc")
    assert (shown.value, shown.interval) == ("1.000", None)
    assert "an interval needs 30 positives" in str(shown.missing)


def test_a_run_without_a_score_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", np.array([True, False]), np.array([0.1, 0.2]))
    none = pl.lit(None)
    frame = pl.read_parquet(run / SCORES).with_columns(
        raw=none.cast(pl.Float64), calibrated=none.cast(pl.Float64), violates=none.cast(pl.Boolean),
        error=pl.lit("unscorable: no number"),
    )  # fmt: skip
    frame.write_parquet(run / SCORES)
    report = of(describe_run(read_run(run), wanted(), []))
    for text in (Page(report_html(report)).text, report_markdown(report)):
        assert "No record could be scored, so nothing is known." in text
        assert "2 records without a score are counted nowhere: unscorable 2." in text
    assert json.loads(report_json(report))["runs"][0]["policies"][0]["curves"] is None


def test_the_verdict_is_that_of_the_bars(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", *overconfident(200, seed=1)))
    bars = tmp_path / "bars.yaml"

    def verdict(*lines: str) -> str:
        bars.write_text("bars:\n" + "".join(f"  - {{{line}}}\n" for line in lines))
        asked = Wanted(
            by=[], policies=[], min_records=10, num_mistakes=0, with_texts=False,
            bars=read_bars(bars),
        )  # fmt: skip
        part = describe_run(run, asked, [])
        html = report_html(of(part))
        assert f'class="verdict {findings.tone(part)}"' in html
        assert findings.verdict(part) in html
        every = findings.verdict(part).startswith("Every bar is held")
        assert findings.tone(part) == ("held" if every else "missed")
        return findings.verdict(part)

    held, missed = "metric: auroc, min: 0.5", "metric: auroc, min: 0.999"
    assert verdict(held, held) == "Every bar is held: 2."
    assert verdict(held, missed) == "Not every bar is held: 1 missed, 1 held."
    unknown = "metric: auroc, policy: odd, min: 0.5"
    assert verdict(unknown) == "Not every bar is held: 1 not checked."


def test_findings_name_the_extremes(tmp_path: Path) -> None:
    labels = np.arange(400) % 2 == 0
    good, bad = np.where(labels, 0.9, 0.1), np.where(np.arange(400) % 8 < 3, 0.9, 0.1)
    run = write_run(tmp_path / "run", labels, good, more=rows(labels, bad, policy=OTHER))
    part = describe_run(read_run(run), wanted(), [])
    found = list(findings.noteworthy(part))
    assert found[0] == f"Misses most: {OTHER}, recall 50.0% [43.1, 56.9]."
    assert found[1] == f"Most false alarms: {OTHER}, false-positive rate 25.0% [19.5, 31.4]."
    assert found[2].startswith(f"Ranks worst: {OTHER}, AUROC 0.625 [")
    # 200 + 100 of 400 positives, 0 + 50 of 400 negatives, as records that are alike
    assert findings.verdict(part).startswith("At the thresholds in use it finds 75.0% [")
    assert " of what violates a policy and flags 12.5% [" in findings.verdict(part)


@pytest.mark.parametrize(
    ("name", "value", "step"),
    [
        ("recall_at_threshold", 0.9, 0), ("recall_at_threshold", 0.89, 1),
        ("recall_at_threshold", 0.1, 4), ("fpr_at_threshold", 0.01, 0),
        ("fpr_at_threshold", 0.02, 1), ("fpr_at_threshold", 0.9, 4), ("auroc", 0.75, 3),
    ],
)  # fmt: skip
def test_worse_slices_are_warmer(name: str, value: float, step: int) -> None:
    numbers: Numbers = {name: value, f"{name}_ci95": [0.0, 1.0], "reasons": {}}
    assert words.cell(numbers, name).heat == step
    assert len(words.heat_key(name)) == 5


def test_slices_are_a_map(hostile: Report, tmp_path: Path) -> None:
    page = Page(report_html(hostile))
    heat = [each for each in page.all("table") if each.get("class") == "heat"]
    assert len(heat) == 3
    assert len(hostile.runs[0].sliced["lang"].slices) == 2
    run = read_run(write_run(tmp_path / "run", *overconfident(50, seed=1)))
    alike = report_of(run)
    assert "By lang all records are alike: en." in Page(report_html(alike)).text
    assert not Page(report_html(alike)).all("table")[0].get("class")


def test_published_numbers_stand_apart(hostile: Report) -> None:
    theirs = PublishedNumber(
        system="Theirs", data="Set", metric="AU-PRC", value=0.4321, source="Paper", note="tuned"
    )
    report = Report(runs=hostile.runs, min_records=10, with_texts=False, published=(theirs,))
    for before, after in (
        report_html(report).split('<section id="published"'),
        report_markdown(report).split("## Published numbers, not measured here"),
    ):
        assert "0.4321" not in before
        assert "0.4321" in after
    assert json.loads(report_json(report))["published"][0]["value"] == 0.4321


def test_a_published_number_needs_a_source(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    line = "published:\n  - {system: A, data: B, metric: F1, value: 0.5%s}\n"
    path.write_text(line % ", source: C")
    assert read_published(path)[0].source == "C"
    for more, problem in (
        ("", r"published\.yaml:2: .*source"),
        (", source: C, who: me", "unknown key; known: system"),
    ):
        path.write_text(line % more)
        with pytest.raises(PolicyFileError, match=problem):
            read_published(path)


def test_a_run_without_the_policies_is_refused(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", *overconfident(50, seed=1)))
    asked = Wanted(
        by=[], policies=["violence"], min_records=10, num_mistakes=0, with_texts=False, bars=None
    )
    with pytest.raises(RunError, match="holds no labelled score of violence"):
        describe_run(run, asked, [])


def describe(folder: Path, labels: Bools, scores: Floats) -> RunPart:
    return describe_run(read_run(write_run(folder / "run", labels, scores)), wanted(), [])


def of(part: RunPart) -> Report:
    return Report(runs=(part,), min_records=10, with_texts=False, published=())


def cell_of(numbers: Numbers, name: str) -> tuple[str, str | None]:
    found = words.cell(numbers, name)
    return found.value, found.missing


def dots(html: str) -> list[tuple[float, float]]:
    circles = [each for each in Page(html).all("circle") if each.get("class") == "dot"]
    return [(float(str(each["cx"])), float(str(each["cy"]))) for each in circles]
