"""What two versions of a policy say of the same texts, against a table made by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pytest

from evals.compare import flipped
from evals.metrics import wilson
from evals.policy_diff import (
    EXAMPLES,
    Change,
    Edit,
    Radius,
    blast_radius,
    edits,
    example_records,
    score_versions,
)
from evals.records import Record
from moderation.errors import EngineStopped
from policies import Action, Policy, PolicyLibrary, PolicyRule
from policies.schema import Example
from tests.evals.saying import saying_moderator


def version(definition: Any, *examples: Example, policy_id: str = "spam") -> Policy:
    return Policy.model_validate(
        {
            "id": policy_id,
            "version": 1,
            "title": "Spam",
            "definition": definition,
            "severity": "low",
            "examples": examples,
        }
    )


def change(old: Policy, new: Policy, thresholds: tuple[float, float] = (0.5, 0.5)) -> Change:
    rules = [PolicyRule(id=old.id, threshold=each, action=Action.BLOCK) for each in thresholds]
    return Change(old=old, new=new, old_rule=rules[0], new_rule=rules[1])


def records(*texts: str, labels: Mapping[str, bool] | None = None) -> list[Record]:
    return [
        Record(id=f"r{number}", text=text, role="user", labels=dict(labels or {}))
        for number, text in enumerate(texts)
    ]


def scored(changes: Sequence[Change], **data: Sequence[Record]) -> pl.DataFrame:
    old = saying_moderator(PolicyLibrary({each.old.id: each.old for each in changes}, {}))
    new = saying_moderator(PolicyLibrary({each.new.id: each.new for each in changes}, {}))
    return score_versions(old, new, changes, data)


def radius(rows: pl.DataFrame) -> Radius:
    [found] = blast_radius(rows, seed=0)
    return found


def test_flips_in_both_directions_are_counted_with_wilsons_intervals() -> None:
    texts = records("says 0.1", "says 0.3", "says 0.4", "says 0.6", "says 0.9")
    up = change(version("It adds 0.0"), version("It adds 0.25"))
    rows = scored([up], traffic=texts)
    found = radius(rows)
    assert (found.data, found.policy, found.n) == ("traffic", "spam", 5)
    assert (found.newly_flagged.count, found.newly_flagged.share) == (2, 0.4)
    assert found.newly_flagged.ci95 == wilson(2, 5)
    assert found.no_longer_flagged.count == 0
    assert found.labelled is None
    down = radius(scored([change(version("It adds 0.0"), version("It adds -0.2"))], traffic=texts))
    assert (down.newly_flagged.count, down.no_longer_flagged.count) == (0, 1)


def test_the_largest_change_comes_first() -> None:
    both = [
        change(version("adds 0.0", policy_id=name), version(f"adds {more}", policy_id=name))
        for name, more in (("mild", "0.1"), ("harsh", "0.4"))
    ]
    found = flipped(scored(both, traffic=records("says 0.45", "says 0.2")))
    assert list(zip(found["policy"], found["record_id"], strict=True)) == [
        ("harsh", "r0"), ("harsh", "r1"), ("mild", "r0")
    ]  # fmt: skip


def test_another_threshold_alone_flips_verdicts_and_scores_nothing_twice() -> None:
    same = version("adds 0.0")
    lower = change(same, same, thresholds=(0.5, 0.4))
    old = saying_moderator(PolicyLibrary({"spam": same}, {}))
    # a library without the policy could not be asked
    new = saying_moderator(PolicyLibrary({}, {}))
    rows = score_versions(old, new, [lower], {"traffic": records("says 0.45", "says 0.3")})
    assert radius(rows).newly_flagged.count == 1
    assert rows["calibrated_b"].to_list() == rows["calibrated"].to_list() == [0.45, 0.3]


def test_labels_say_whether_it_became_better() -> None:
    wrong_before = records("says 0.4", "says 0.45", labels={"spam": True})
    harmless = [
        record.model_copy(update={"id": f"h{record.id}", "labels": {"spam": False}})
        for record in records("says 0.3", "says 0.35", "says 0.1", "says 0.7")
    ]
    unknown = [records("says 0.45")[0].model_copy(update={"id": "u"})]
    up = change(version("adds 0.0"), version("adds 0.16"))
    found = radius(scored([up], dev=[*wrong_before, *harmless, *unknown]))
    assert found.n == 7
    assert found.newly_flagged.count == 4
    assert found.labelled is not None
    assert (found.labelled.n, found.labelled.positives) == (6, 2)
    fpr = found.labelled.metrics["fpr_at_threshold"]
    assert (fpr.a, fpr.b) == (0.25, 0.5)
    f1 = found.labelled.metrics["f1_at_threshold"]
    assert [f1.a, f1.b] == pytest.approx([0.0, 4 / 6])
    assert found.labelled.metrics["au_prc"].difference == 0
    assert found.labelled.verdicts.right_only_in_b == 2


def test_words_for_another_surface_flag_what_was_not_judged() -> None:
    wider = change(
        version({"response": "adds 0.0"}), version({"response": "adds 0.0", "prompt": "adds 0.0"})
    )
    found = scored([wider], traffic=records("says 0.9", "says 0.1"))
    assert found["calibrated"].to_list() == [None, None]
    assert radius(found).newly_flagged.count == 1
    narrower = change(wider.new, wider.old)
    assert radius(scored([narrower], traffic=records("says 0.9"))).no_longer_flagged.count == 1


def test_what_cannot_be_scored_is_no_verdict() -> None:
    up = change(version("adds 0.0"), version("adds 0.5"))
    rows = scored([up], traffic=records("says nothing", "says 0.2"))
    found = radius(rows)
    assert (found.n, found.not_scored, found.only_old_scored) == (1, 1, 0)
    assert rows["violates"].to_list() == [None, False]
    # the new words themselves are what cannot be scored
    broken = change(version("adds 0.0"), version("It says nothing"))
    found = radius(scored([broken], traffic=records("says 0.7", "says 0.2")))
    assert (found.n, found.not_scored, found.only_old_scored) == (0, 0, 2)
    assert found.newly_flagged.ci95 is None
    with pytest.raises(EngineStopped, match="the worker died"):
        scored([up], traffic=records("says stop"))


def test_examples_of_both_versions_are_judged_by_their_own_policy() -> None:
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
    rows = scored([spam, other], **{EXAMPLES: found})
    assert rows["policy"].unique().to_list() == ["spam"]
    assert radius(rows).newly_flagged.count == 1


def test_a_response_is_judged_by_the_words_for_responses() -> None:
    answer = Record(id="a", text="says 0.4", prompt="says 0.0", role="model", labels={})
    up = change(
        version({"prompt": "adds 0.5", "response": "adds 0.0"}),
        version({"prompt": "adds 0.5", "response": "adds 0.2"}),
    )
    rows = scored([up], traffic=[answer])
    assert (rows["calibrated"][0], rows["calibrated_b"][0]) == (0.4, 0.6)


def test_changed_words_are_marked() -> None:
    assert edits("The prompt shall not be rude or loud.", "The prompt shall not be rude.") == [
        Edit("same", "The prompt shall not be"),
        Edit("removed", "rude or loud."),
        Edit("added", "rude."),
    ]
    assert edits("", "New words") == [Edit("added", "New words")]
    assert edits("a\n  b", "a b") == [Edit("same", "a b")]
    assert change(version("One."), version("Two.")).words().keys() == {"definition"}
    assert change(version("One."), version({"prompt": "One.", "image": "Two."})).words().keys() == {
        "response", "image"
    }  # fmt: skip
