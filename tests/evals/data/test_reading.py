"""Data of any format becomes the same records; what is wrong is said with its place."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from evals.data.adapter import read_adapter
from evals.data.errors import AdapterError, RecordError
from evals.data.reading import Tally, data_sha256, read_data
from evals.records import Record, read_records
from policies import Surface
from tests.evals.data.files import ADAPTER, FORMATS, ROWS, adapter, read, write_table


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_gives_the_same_records(tmp_path: Path, ending: str) -> None:
    path = write_table(tmp_path / f"rows.{ending}", ROWS)
    records = read(path, adapter(tmp_path))
    assert [record.text for record in records] == [row["words"] for row in ROWS]
    assert [record.labels for record in records] == [{"any_harm": True}, {"any_harm": False}, {}]
    assert {record.surface for record in records} == {Surface.PROMPT}
    assert {record.source for record in records} == {"made_up"}
    assert len({record.id for record in records}) == 3


def test_a_name_in_capitals_and_a_text_of_any_length_are_read(tmp_path: Path) -> None:
    long = "word " * 40_000
    [record] = read(
        write_table(tmp_path / "a.csv", [{"words": long, "bad": 1}]).rename(tmp_path / "A.CSV"),
        adapter(tmp_path),
    )
    assert record.text == long


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "arrow"])
def test_a_path_into_an_object_is_a_column_though_names_have_dots(
    tmp_path: Path, ending: str
) -> None:
    path = write_table(tmp_path / f"rows.{ending}", ROWS)
    rules = [{"column": "kind.a.b", "values": {"true": {"violence": True}, "false": {}}}]
    found = read(path, adapter(tmp_path, labels=rules))
    assert [record.labels for record in found] == [{"violence": True}, {}, {}]


def test_a_response_has_its_prompt_and_everything_else_that_is_named(tmp_path: Path) -> None:
    row = {"n": 7, "q": "Why?", "words": "So.", "bad": 1, "l": "fr", "part": "test", "kind": 2.0}
    given = {"text": "words", "prompt": "q", "id": "n", "lang": "l", "split": "part"}
    [record] = read(
        write_table(tmp_path / "a.jsonl", [row]),
        adapter(tmp_path, surface="response", columns=given, licence="MIT", slices=["kind"]),
    )
    assert record == Record(
        id="7",
        text="So.",
        role="model",
        prompt="Why?",
        labels={"any_harm": True},
        lang="fr",
        source="made_up",
        licence="MIT",
        split="test",
        orig={"kind": 2.0},
    )


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([" Yes ", "YES"], [{"any_harm": True}] * 2),
        (["no", "off", "maybe", ""], [{"any_harm": False}, {}, {}, {}]),
    ],
)
def test_values_are_compared_as_texts_and_what_is_not_named_is_unknown(
    tmp_path: Path, values: list[str], labels: list[dict[str, bool]]
) -> None:
    rows = [{"words": "x", "bad": value} for value in values]
    # unquoted, YAML's words for truth: an adapter means the words
    text = json.dumps(ADAPTER).replace('"1"', "yes").replace('"0"', "no")
    (tmp_path / "adapter.yml").write_text(text)
    tally = Tally()
    chosen = read_adapter(tmp_path / "adapter.yml")
    found = read_data(write_table(tmp_path / "a.csv", rows), chosen, tally=tally)
    assert [record.labels for record in found] == labels
    assert dict(tally.unnamed) == {
        ("bad", value): 1 for value in values if value in ("off", "maybe")
    }


def test_a_number_is_the_same_value_whole_or_with_a_point(tmp_path: Path) -> None:
    rows = [{"words": "x", "bad": value} for value in (1.0, 0.0, 0.5)]
    found = read(write_table(tmp_path / "a.parquet", rows), adapter(tmp_path))
    assert [record.labels for record in found] == [{"any_harm": True}, {"any_harm": False}, {}]


def test_of_several_values_each_counts_and_a_violation_wins(tmp_path: Path) -> None:
    values = {"a": {"violence": True}, "b": {"violence": False, "self_harm": True}}
    rules = [{"column": "kinds", "separator": ";", "values": values}]
    rows = [{"words": "x", "kinds": each} for each in ("a; b", "b", "b;a;c")]
    found = read(write_table(tmp_path / "a.csv", rows), adapter(tmp_path, labels=rules))
    assert [record.labels for record in found] == [
        {"violence": True, "self_harm": True},
        {"violence": False, "self_harm": True},
        {"violence": True, "self_harm": True},
    ]
    lists = [{"words": "x", "kinds": ["b", "a"]}]
    [record] = read(write_table(tmp_path / "a.parquet", lists), adapter(tmp_path, labels=rules))
    assert record.labels == {"violence": True, "self_harm": True}


def test_a_rule_holds_only_when_other_columns_say_so_and_rows_are_skipped(tmp_path: Path) -> None:
    rules = [{"column": "kind", "when": {"bad": ["1"]}, "values": {"v": {"violence": True}}}]
    rows = [
        {"words": "x", "bad": 1, "kind": "v"},
        {"words": "y", "bad": 0, "kind": "v"},
        {"words": "", "bad": 1, "kind": "v"},
        {"words": "REDACTED", "bad": 1, "kind": "v"},
    ]
    tally = Tally()
    chosen = adapter(tmp_path, labels=rules, skip={"words": ["", "redacted"], "bad": ["2"]})
    found = list(read_data(write_table(tmp_path / "a.jsonl", rows), chosen, tally=tally))
    assert [record.labels for record in found] == [{"violence": True}, {}]
    assert tally.skipped == 2


def test_a_folder_is_read_file_by_file_and_the_language_stands_in_the_name(tmp_path: Path) -> None:
    data = tmp_path / "set"
    write_table(data / "test_german.csv", ROWS[:1])
    write_table(data / "more" / "test_french.csv", ROWS[1:2])
    (data / "dataset_info.json").write_text("{}")  # of Hugging Face
    said = [{"words": "x", "bad": 1, "said": "it"}, {"words": "y", "bad": 1, "said": ""}]
    by_file: dict[str, Any] = {"lang": "en", "lang_by_file": {"german": "de", "french": "fr"}}
    tally = Tally()
    found = list(read_data(data, adapter(tmp_path, **by_file), tally=tally))
    assert [(record.id, record.lang) for record in found] == [
        ("more/test_french.csv:0000002", "fr"),
        ("test_german.csv:0000002", "de"),
    ]
    assert tally.files == {"more/test_french.csv": 1, "test_german.csv": 1}
    chosen = adapter(tmp_path, columns={"text": "words", "lang": "said"}, **by_file)
    for name in ("German", "other"):
        write_table(tmp_path / name / "test.csv", said)
    assert [record.lang for record in read(tmp_path / "German", chosen)] == ["it", "de"]
    assert [record.lang for record in read(tmp_path / "other", chosen)] == ["it", "en"]


def test_files_choose_in_a_folder_and_several_formats_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "set"
    write_table(data / "a.csv", ROWS[:1])
    write_table(data / "b.jsonl", ROWS)
    write_table(data / "c.json", ROWS[:2])
    with pytest.raises(RecordError, match=r"set: holds tables of several formats \(CSV, JSONL\)"):
        read(data, adapter(tmp_path))
    assert len(read(data, adapter(tmp_path, files="*.jsonl"))) == 3
    assert len(read(data, adapter(tmp_path, files="*.json"))) == 2
    with pytest.raises(RecordError, match=r"no file of \*\.tsv is a table or an image"):
        read(data, adapter(tmp_path, files="*.tsv"))


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("changes", [{"columns": {"text": "wrds"}}, {"skip": {"wrds": [""]}}])
def test_a_wrong_column_is_said_with_those_there_are(
    tmp_path: Path, ending: str, changes: dict[str, Any]
) -> None:
    path = write_table(tmp_path / f"rows.{ending}", ROWS)
    with pytest.raises(AdapterError, match=r"has no column 'wrds'.*the columns are words, bad"):
        read(path, adapter(tmp_path, **changes))


def test_a_wrong_path_into_an_object_is_wrong_though_the_object_is_there(tmp_path: Path) -> None:
    rules = [{"column": "kind.d", "values": {"true": {"violence": True}}}]
    for ending in ("jsonl", "parquet"):
        path = write_table(tmp_path / f"rows.{ending}", ROWS)
        with pytest.raises(AdapterError, match=r"has no column 'kind\.d'"):
            read(path, adapter(tmp_path, labels=rules))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", 'words,bad\n"x\ny",1\nz\n', "a.csv:4: has 1 cells; expected 2"),
        ("a.csv", 'words,bad\n"x" y,1\n', "a.csv:2: is not CSV"),
        ("a.csv", "words,words\n", "a.csv:1: the column 'words' stands twice"),
        ("a.csv", "words,bad\n\udcff,1\n", "a.csv:1: is not UTF-8 .*; save the file as UTF-8"),
        (
            "a.csv",
            "\ufeffwords;bad\r\nx;1\r\n",
            "a.csv:1: the first line is 'words;bad'; .* commas",
        ),
        ("a.tsv", "words;bad\nx;1\n", "a.tsv:1: the first line is 'words;bad'; .* tabs between"),
        ("a.csv", "", "a.csv:1: the first line is empty; expected the names of columns"),
        ("a.csv", "words,bad\n,1\n", r"a.csv:2: the column 'words' has no text; 'skip"),
        ("a.jsonl", '{"words": "x", "bad": 1}\n[]\n', "a.jsonl:2: expected a JSON object, found"),
        (
            "a.jsonl",
            '{"words": "x", "bad": 1}\n{"wo',
            r"a.jsonl:2: is not .* starting at \(character 2",
        ),
        (
            "a.jsonl",
            '{"words": "\udcff"}\n',
            "a.jsonl:1: .* not UTF-8 at byte 11; save the file as",
        ),
        (
            "a.jsonl",
            '{"words": {"secret": 1}, "bad": 1}\n',
            r"found dict; .* such as 'words\.PART'",
        ),
        ("a.jsonl", '{"words": ["secret"], "bad": 1}\n', "should hold a text; found list"),
        ("a.jsonl", '{"words": true, "bad": 1}\n', "should hold a text; found bool"),
        ("a.json", '{"words": "x"}', "a.json: expected a list of objects, found dict"),
        ("a.json", '[{"words": "x", "bad": 1}, 3]', "a.json: row 2: expected a JSON object"),
        ("a.parquet", "PAR1 not really", "a.parquet: cannot be read as Parquet"),
        ("a.arrow", "ARROW1 not really", "a.arrow: cannot be read as Arrow"),
        ("a.arrow", "neither", "a.arrow: cannot be read as Arrow"),
        ("a.csv.gz", "no gzip", "a.csv.gz: cannot be read"),
        ("a.xlsx", "x", "a.xlsx: is of no known format; expected a name ending in .jsonl"),
        ("a.csv", "words,bad\n", "a.csv: holds no record"),
        ("a.jsonl", "", "a.jsonl: holds no record"),
    ],
)
def test_what_is_broken_is_said_with_file_and_place(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RecordError, match=problem) as caught:
        read(tmp_path / name, adapter(tmp_path))
    assert "secret" not in str(caught.value)


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", [{"n": 1, "words": "x", "bad": 1}] * 2)
    chosen = adapter(tmp_path, columns={"text": "words", "id": "n"})
    with pytest.raises(RecordError, match=r"a.csv:3: the id '1' already stands in .*a\.csv:2;"):
        read(path, chosen)
    for name in ("a.csv", "b.csv"):
        write_table(tmp_path / "both" / name, [{"n": 1, "words": "x", "bad": 1}])
    with pytest.raises(RecordError, match=r"b.csv:2: the id '1' already stands in .*a\.csv:2;"):
        read(tmp_path / "both", chosen)


def test_without_an_adapter_only_records_are_read(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ROWS)
    with pytest.raises(RecordError, match=r"a\.csv: an adapter has to say .*, toxic_chat,"):
        read_data(path, None)
    row: dict[str, object] = {"id": "a", "text": "x", "role": "user", "labels": {}}
    own = write_table(tmp_path / "a.jsonl.gz", [row])
    assert list(read_data(own, None)) == read_records(own)


def test_rows_are_read_one_after_another(tmp_path: Path) -> None:
    """The first record is there before a broken line far below it is met."""
    path = write_table(tmp_path / "a.jsonl", ROWS)
    with path.open("a") as handle:
        handle.write("{")
    found = read_data(path, adapter(tmp_path))
    assert next(found).text == ROWS[0]["words"]
    with pytest.raises(RecordError, match=re.escape("a.jsonl:4")):
        list(found)


def test_parquet_is_read_in_batches_without_columns_that_nobody_needs(tmp_path: Path) -> None:
    rows = [{"words": f"text {n}", "bad": n % 2, "ballast": "x"} for n in range(300)]
    path = write_table(tmp_path / "a.parquet", rows)
    found = read(path, adapter(tmp_path))
    assert [record.text for record in found] == [row["words"] for row in rows]
    assert [record.id for record in found] == sorted(record.id for record in found)


def test_the_hash_of_a_folder_is_of_names_and_bytes(tmp_path: Path) -> None:
    one = write_table(tmp_path / "one" / "a.csv", ROWS).parent
    two = write_table(tmp_path / "two" / "a.csv", ROWS).parent
    (two / ".DS_Store").write_text("hidden")
    assert data_sha256(one) == data_sha256(two)
    assert data_sha256(one) != data_sha256(one / "a.csv")
    (two / "a.csv").rename(two / "b.csv")
    assert data_sha256(one) != data_sha256(two)
    pl.DataFrame(ROWS[:1]).write_parquet(one / "more.parquet")
    before = data_sha256(one)
    pl.DataFrame(ROWS[:2]).write_parquet(one / "more.parquet")
    assert data_sha256(one) != before
