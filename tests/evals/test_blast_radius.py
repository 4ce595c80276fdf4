"""How many verdicts a change turns, in which direction and where, against a table by hand."""

from pathlib import Path

import polars as pl
import pytest

from evals.blast_radius import Radius, blast_radius, by_slice
from evals.compare import flipped
from evals.metrics import wilson
from tests.evals.versions import change, records, scored, version


def radius(rows: pl.DataFrame) -> Radius:
    [found] = blast_radius(rows, seed=0)
    return found


def test_flips_in_both_directions_are_counted_with_wilsons_intervals(tmp_path: Path) -> None:
    texts = records("says 0.1", "says 0.3", "says 0.4", "says 0.6", "says 0.9")
    up = change(version("It adds 0.0"), version("It adds 0.25"))
    rows = scored([up], tmp_path / "1", traffic=texts)
    found = radius(rows)
    assert (found.data, found.policy, found.turned.n) == ("traffic", "spam", 5)
    assert (found.turned.newly_flagged.count, found.turned.newly_flagged.share) == (2, 0.4)
    assert found.turned.newly_flagged.ci95 == wilson(2, 5)
    assert found.turned.no_longer_flagged.count == 0
    assert found.labelled is None
    down = radius(
        scored(
            [change(version("It adds 0.0"), version("It adds -0.2"))], tmp_path / "2", traffic=texts
        )
    )
    assert (down.turned.newly_flagged.count, down.turned.no_longer_flagged.count) == (0, 1)


def test_the_largest_change_comes_first(tmp_path: Path) -> None:
    both = [
        change(version("adds 0.0", policy_id=name), version(f"adds {more}", policy_id=name))
        for name, more in (("mild", "0.1"), ("harsh", "0.4"))
    ]
    found = flipped(scored(both, tmp_path / "3", traffic=records("says 0.45", "says 0.2")))
    assert list(zip(found["policy"], found["record_id"], strict=True)) == [
        ("harsh", "r0"), ("harsh", "r1"), ("mild", "r0")
    ]  # fmt: skip


def test_labels_say_whether_it_became_better(tmp_path: Path) -> None:
    wrong_before = records("says 0.4", "says 0.45", labels={"spam": True})
    harmless = [
        record.model_copy(update={"id": f"h{record.id}", "labels": {"spam": False}})
        for record in records("says 0.3", "says 0.35", "says 0.1", "says 0.7")
    ]
    unknown = [records("says 0.45")[0].model_copy(update={"id": "u"})]
    up = change(version("adds 0.0"), version("adds 0.16"))
    found = radius(scored([up], tmp_path / "4", dev=[*wrong_before, *harmless, *unknown]))
    assert found.turned.n == 7
    assert found.turned.newly_flagged.count == 4
    assert found.labelled is not None
    assert (found.labelled.n, found.labelled.positives) == (6, 2)
    fpr = found.labelled.metrics["fpr_at_threshold"]
    assert (fpr.a, fpr.b) == (0.25, 0.5)
    f1 = found.labelled.metrics["f1_at_threshold"]
    assert [f1.a, f1.b] == pytest.approx([0.0, 4 / 6])
    assert found.labelled.metrics["au_prc"].difference == 0
    assert found.labelled.verdicts.right_only_in_b == 2


def test_slices_begin_with_the_largest_share_of_changed_verdicts(tmp_path: Path) -> None:
    texts = records("says 0.1", "says 0.45", "says 0.4", "says 0.9", "says 0.1")
    langs = ["en", "en", "de", "de", None]
    up = change(version("adds 0.0"), version("adds 0.15"))
    said = [r.model_copy(update={"lang": x}) for r, x in zip(texts, langs, strict=True)]
    said.append(texts[2].model_copy(update={"id": "r9", "lang": "de"}))
    rows = scored([up], tmp_path, traffic=said)
    found = by_slice(rows, "lang", min_records=1)
    shown = [(each.value, each.turned.n, each.turned.num_flips) for each in found.slices]
    assert shown == [("de", 3, 2), ("en", 2, 1), (None, 1, 0)]
    assert found.slices[0].turned.newly_flagged.ci95 == wilson(2, 3)
    assert [each.value for each in by_slice(rows, "lang", min_records=2).slices] == ["de", "en"]
    assert by_slice(rows, "lang", min_records=2).hidden == 1


def test_the_policy_that_changes_most_comes_first_and_what_was_half_seen_is_counted(
    tmp_path: Path,
) -> None:
    both = [
        change(version("adds 0.0", policy_id=name), version(f"adds {more}", policy_id=name))
        for name, more in (("mild", "0.1"), ("harsh", "0.4"))
    ]
    rows = scored(both, tmp_path, traffic=records("says 0.45", "says 0.2"))
    assert [each.policy for each in blast_radius(rows, seed=0)] == ["harsh", "mild"]
    half = rows.with_columns(
        coverage_b=pl.when(pl.col("record_id") == "r1")
        .then(pl.lit("partial"))
        .otherwise("coverage_b")
    )
    assert [each.partial for each in blast_radius(half, seed=0)] == [1, 1]
