"""What is counted of data: labels, copies, leaks."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from evals.data.images import StoredImage
from evals.data.overview import LabelCount, folded_hash, overview
from evals.records import Record


def record(text: str, **changes: object) -> Record:
    row: dict[str, object] = {"id": "i", "text": text, "role": "user", "labels": {}}
    return Record.model_validate(row | changes)


def test_labels_are_counted_and_what_is_not_said_is_unknown() -> None:
    found = overview(
        [
            record("a", labels={"violence": True, "any_harm": True}, lang="de", licence="MIT"),
            record("b", labels={"violence": False}, role="model", split="test"),
            record("c", source="s"),
        ]
    )
    assert found.policies == {
        "any_harm": LabelCount(yes=1, no=0, unknown=2),
        "violence": LabelCount(yes=1, no=1, unknown=1),
    }
    assert (found.records, found.unlabelled, found.overlap) == (3, 1, None)
    assert found.surfaces == {"prompt": 2, "response": 1}
    assert found.langs == {"de": 1, None: 2}
    assert (found.licences["MIT"], found.splits["test"], found.sources["s"]) == (1, 1, 1)


def test_copies_and_their_contradictions_are_counted() -> None:
    found = overview(
        [
            record("Hello  THERE", labels={"violence": True}),
            record("hello there\n", labels={"violence": True}),
            record("ｈello there", labels={"violence": False}),
            record("hello there", labels={"violence": True}),
            record("hello there", role="model", labels={"violence": False}),
        ]
    )
    assert (found.duplicates, found.contradictions) == (3, 1)


def test_an_overlap_is_of_the_whole_content() -> None:
    refusal = "I cannot help with that."
    found = overview(
        [record("A"), record("b"), record(refusal, role="model", prompt="one")],
        against=[record("a "), record(refusal, role="model", prompt="two")],
    )
    assert found.overlap == 1


def test_images_are_copies_by_their_bytes() -> None:
    def image(sha256: str, name: str) -> Record:
        return record("", image=StoredImage(path=Path(name), sha256=sha256))

    assert folded_hash(image("1", "a")) == folded_hash(image("1", "b"))
    assert folded_hash(image("1", "a")) != folded_hash(image("2", "a"))


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")))
@settings(max_examples=30, deadline=None)
def test_counts_are_those_of_plain_sets(ours: list[str], theirs: list[str]) -> None:
    found = overview([record(text) for text in ours], against=[record(text) for text in theirs])
    assert found.duplicates == len(ours) - len({*ours})
    assert found.overlap == sum(text in theirs for text in ours)
