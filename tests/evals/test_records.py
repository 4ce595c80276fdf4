"""Reading records: strict, with file and line, and never with a record's text."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.records import Record, RecordError, file_sha256, read_records, sample_records
from moderation.content import Content
from policies import Surface

SECRET = "the moderated words"


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "text": SECRET, "role": "user", "labels": {"any_harm": True}} | changes


def write(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_all_fields_of_the_format_are_read(tmp_path: Path) -> None:
    full = row(
        role="model",
        prompt="What?",
        lang="en",
        source="s",
        licence="MIT",
        split="dev",
        label_origin="human",
        orig={"anything": [1, None]},
    )
    (record,) = read_records(write(tmp_path / "a.jsonl", full))
    assert record.model_dump() == full | {"image": None}
    assert record.content == Content.response(SECRET, context="What?")
    assert record.surface is Surface.RESPONSE


def test_a_record_of_a_user_is_a_prompt(tmp_path: Path) -> None:
    (record,) = read_records(write(tmp_path / "a.jsonl", row()))
    assert record.content == Content.prompt(SECRET)
    assert record.surface is Surface.PROMPT


def test_a_missing_label_stays_missing(tmp_path: Path) -> None:
    (record,) = read_records(write(tmp_path / "a.jsonl", row(labels={})))
    assert record.labels == {}


def test_gzip_and_plain_files_hold_the_same_records(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", row(), "", row(id="b"))
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_records(packed) == read_records(plain)
    assert [record.id for record in read_records(plain)] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (row(txet="x"), "txet: unknown field; known: id, text"),
        (row(labels={"any_harm": 1}), r"labels\.any_harm: Input should be a valid boolean"),
        (row(labels={"any_harm": "true"}), r"labels\.any_harm: Input should be a valid boolean"),
        (row(labels={"any_harm": None}), r"labels\.any_harm: Input should be a valid boolean"),
        (row(role="system"), "role: Input should be 'user' or 'model'"),
        (row(id=7), "id: Input should be a valid string"),
        (row(id=""), "id: String should have at least 1 character"),
        (row(id="a\nb"), "'id' has characters that cannot be printed"),
        (row(id="\ud800"), "id: Input should be a valid string"),
        (row(source="\ud800"), "source: Input should be a valid string"),
        (row(prompt="x"), "a user's record has none"),
        (row(text=None), "text: Input should be a valid string"),
        ({"id": "a", "text": SECRET, "role": "user"}, "labels: Field required"),
        ([1], "Input should be a valid dictionary"),
        ("{", "is not a JSON object"),
        ('{"id": "a", "id": "b"}', "the key 'id' stands twice"),
        ('{"labels": {"any_harm": true, "any_harm": false}}', "'any_harm' stands twice"),
        ("[" * 100_000, "is nested too deeply|is not a JSON object"),
    ],
)
def test_a_bad_line_is_refused_with_file_line_and_reason_but_without_its_text(
    tmp_path: Path, line: object, problem: str
) -> None:
    path = write(tmp_path / "a.jsonl", row(id="first"), line)
    with pytest.raises(RecordError, match=rf"a\.jsonl:2: .*({problem})") as caught:
        read_records(path)
    assert SECRET not in str(caught.value)


def test_an_id_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row(), row(id="b"), row())
    with pytest.raises(RecordError, match=r"a\.jsonl:3: the id 'a' already stands in line 1"):
        read_records(path)


def test_a_line_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(RecordError, match=r"a\.jsonl:1: is not a JSON object: not UTF-8 at byte 8"):
        read_records(tmp_path / "a.jsonl")


def test_a_file_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no record"):
        read_records(write(tmp_path / "a.jsonl", ""))


@pytest.mark.parametrize("keep", [10, 40])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row()).encode())[:keep])
    with pytest.raises(RecordError, match=r"a\.jsonl\.gz: cannot be read"):
        read_records(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(RecordError, match="cannot be read"):
        file_sha256(tmp_path / "none.jsonl")


IDS = st.lists(st.text("abc123", min_size=1), unique=True, min_size=1, max_size=30)


def records_of(ids: list[str]) -> list[Record]:
    return [Record(id=name, text="x", role="user", labels={}) for name in ids]


@given(ids=IDS, size=st.integers(1, 30), seed=st.integers(0, 5), data=st.data())
def test_a_sample_does_not_depend_on_the_order_of_the_file(
    ids: list[str], size: int, seed: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(ids))
    first = sample_records(records_of(ids), size, seed=seed)
    second = sample_records(records_of(shuffled), size, seed=seed)
    assert {record.id for record in first} == {record.id for record in second}
    assert len(first) == min(size, len(ids))
    assert [r.id for r in first] == [i for i in ids if i in {r.id for r in first}]


@given(ids=IDS.filter(lambda ids: len(ids) > 3), seed=st.integers(0, 5))
def test_a_larger_sample_holds_the_smaller_one(ids: list[str], seed: int) -> None:
    small = sample_records(records_of(ids), 2, seed=seed)
    large = sample_records(records_of(ids), 3, seed=seed)
    assert {record.id for record in small} < {record.id for record in large}


def test_another_seed_draws_another_sample() -> None:
    records = records_of([str(number) for number in range(200)])
    drawn = {tuple(r.id for r in sample_records(records, 20, seed=seed)) for seed in range(5)}
    assert len(drawn) == 5
