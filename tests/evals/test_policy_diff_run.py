"""Runs of two versions: who is asked what, what is resumed, and what becomes a verdict."""

from pathlib import Path

import polars as pl
import pytest

from evals.blast_radius import Radius, blast_radius
from evals.errors import RunRefused
from evals.journal import JOURNAL
from evals.policy_diff import example_records
from evals.records import Record
from evals.results import SUMMARY, read_scores
from moderation.errors import EngineStopped
from policies.schema import Example
from tests.evals.versions import change, records, scored, version


def radius(rows: pl.DataFrame) -> Radius:
    [found] = blast_radius(rows, seed=0)
    return found


def test_another_threshold_alone_flips_verdicts_and_scores_nothing_twice(tmp_path: Path) -> None:
    same = version("adds 0.0")
    lower = change(same, same, thresholds=(0.5, 0.4))
    rows = scored([lower], tmp_path, traffic=records("says 0.45", "says 0.3"))
    assert rows["violates"].to_list() == [False, False]
    assert rows["violates_b"].to_list() == [True, False]
    assert rows["calibrated_b"].to_list() == rows["calibrated"].to_list() == [0.45, 0.3]
    assert read_scores(tmp_path / "traffic" / "new").is_empty()


def test_words_for_another_surface_flag_what_was_not_judged(tmp_path: Path) -> None:
    wider = change(
        version({"response": "adds 0.0"}), version({"response": "adds 0.0", "prompt": "adds 0.0"})
    )
    found = scored([wider], tmp_path / "1", traffic=records("says 0.9", "says 0.1"))
    assert found["calibrated"].to_list() == [None, None]
    assert radius(found).turned.newly_flagged.count == 1
    narrower = change(wider.new, wider.old)
    assert (
        radius(
            scored([narrower], tmp_path / "2", traffic=records("says 0.9"))
        ).turned.no_longer_flagged.count
        == 1
    )


def test_examples_of_both_versions_are_judged_by_their_own_policy(tmp_path: Path) -> None:
    def example(text: str, *, violates: bool) -> Example:
        return Example.model_validate({"text": text, "surface": "prompt", "violates": violates})

    both, moved = example("says 0.9", violates=True), example("says 0.45", violates=False)
    spam = change(
        version("adds 0.0", both, moved),
        version(
            "adds 0.1",
            both,
            example("says 0.45", violates=True),
            example("says 0.2", violates=False),
        ),
    )
    other = change(version("adds 0.0", policy_id="other"), version("adds 0.1", policy_id="other"))
    found = example_records([spam, other])
    assert [(r.text, r.labels) for r in found] == [
        ("says 0.9", {"spam": True}),
        ("says 0.45", {"spam": True}),
        ("says 0.2", {"spam": False}),
    ]
    assert len({record.id for record in found}) == 3
    rows = scored([spam, other], tmp_path)
    assert rows["policy"].unique().to_list() == ["spam"]
    assert radius(rows).turned.newly_flagged.count == 1


def test_a_response_is_judged_by_the_words_for_responses(tmp_path: Path) -> None:
    answer = Record(id="a", text="says 0.4", prompt="says 0.0", role="model", labels={})
    up = change(
        version({"prompt": "adds 0.5", "response": "adds 0.0"}),
        version({"prompt": "adds 0.5", "response": "adds 0.2"}),
    )
    rows = scored([up], tmp_path / "3", traffic=[answer])
    assert (rows["calibrated"][0], rows["calibrated_b"][0]) == (0.4, 0.6)


def test_what_cannot_be_scored_is_no_verdict(tmp_path: Path) -> None:
    up = change(version("adds 0.0"), version("adds 0.5"))
    rows = scored([up], tmp_path / "4", traffic=records("says nothing", "says 0.2"))
    found = radius(rows)
    assert (found.turned.n, found.not_scored, found.only_old_scored) == (1, 1, 0)
    assert rows["violates"].to_list() == [None, False]
    # the new words themselves are what cannot be scored
    broken = change(version("adds 0.0"), version("It says nothing"))
    found = radius(scored([broken], tmp_path / "5", traffic=records("says 0.7", "says 0.2")))
    assert (found.turned.n, found.not_scored, found.only_old_scored) == (0, 0, 2)
    assert found.turned.newly_flagged.ci95 is None
    with pytest.raises(EngineStopped, match="the worker died"):
        scored([up], tmp_path / "6", traffic=records("says stop"))


def test_a_diff_that_was_cut_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    up = change(version("adds 0.0"), version("adds 0.2"))
    texts = [f"says 0.{n}" for n in (1, 4, 2, 6, 3)]
    whole = scored([up], tmp_path / "whole", traffic=records(*texts))
    cut = tmp_path / "cut"
    with pytest.raises(EngineStopped, match="the worker died"):
        scored([up], cut, traffic=records(*texts[:4], "says stop"))
    journal = cut / "traffic" / "old" / JOURNAL
    kept = journal.read_bytes()
    assert kept.count(b"\n") == 4
    rows = scored([up], cut, traffic=records(*texts))
    assert rows.equals(whole)
    assert journal.read_bytes().startswith(kept)
    assert scored([up], cut, traffic=records(*texts)).equals(whole)
    with pytest.raises(RunRefused, match="holds another run"):
        scored([change(up.old, version("adds 0.3"))], cut, traffic=records(*texts))


def test_the_runs_of_records_without_labels_claim_no_numbers(tmp_path: Path) -> None:
    up = change(version("adds 0.0"), version("adds 0.2"))
    scored([up], tmp_path, traffic=records("says 0.1"))
    assert '"policies": {}' in (tmp_path / "traffic" / "new" / SUMMARY).read_text()
