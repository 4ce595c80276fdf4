"""Images of records: found wherever they lie, told apart by their bytes, judged end to end."""

import json
import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from evals.columns import records_of
from evals.data.errors import RecordError
from evals.errors import RunRefused
from evals.finished import read_run
from evals.probe_run import probe_workload
from evals.probes import PROBES
from evals.records import read_records
from evals.run import read_workload
from moderation.checkpoints import Classifier
from moderation.content import ImagePart, TextPart
from moderation.media.recognisers import load_recognisers
from moderation.moderator import Moderator
from policies import Surface, load_library
from tests.evals.data.files import BY_FOLDER, adapter, image_folder, png, read, write_table
from tests.evals.scripted import plan_for, run_plan, scripted_moderator

IN_TABLES = {
    "surface": "image",
    "columns": {"image": "image"},
    "labels": [{"column": "bad", "values": {"1": {"violence": True}, "0": {"violence": False}}}],
}


def test_a_folder_of_images_is_read_by_its_sub_folders(tmp_path: Path) -> None:
    records = read(image_folder(tmp_path / "pics"), adapter(tmp_path, **BY_FOLDER))
    assert [(record.id, record.labels["violence"]) for record in records] == [
        ("bad/red.png", True),
        ("fine/blue.png", False),
        ("fine/it.PNG", False),
    ]
    assert {record.surface for record in records} == {Surface.IMAGE}
    assert records[0].orig == {"folder": "bad"}
    assert records[0].content.parts == (ImagePart(png("red")),)
    assert len({record.content_hash for record in records}) == 3


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv", "jsonl"])
def test_a_table_holds_images_or_names_files_beside_it(tmp_path: Path, ending: str) -> None:
    colours = ("red", "blue")
    for colour in colours:
        (tmp_path / f"{colour}.png").write_bytes(png(colour))
    rows: list[dict[str, object]] = [
        {
            "bad": number,
            "image": {"bytes": png(colour), "path": "x.png"}
            if ending in ("parquet", "arrow")
            else f"{colour}.png",
        }
        for number, colour in enumerate(colours)
    ]
    table = write_table(tmp_path / f"rows.{ending}", rows)
    records = read(table, adapter(tmp_path, **IN_TABLES))
    parts = [record.content.parts for record in records]
    assert parts == [(ImagePart(png(colour)),) for colour in colours]
    assert [record.labels["violence"] for record in records] == [False, True]


def test_an_image_that_changed_or_went_is_an_error_and_never_another(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "pics")
    record, other, _ = read(folder, adapter(tmp_path, **BY_FOLDER))
    (folder / "bad" / "red.png").write_bytes(png("green"))
    with pytest.raises(RecordError, match=r"red\.png: its image has changed since the data was"):
        _ = record.content
    (folder / "fine" / "blue.png").unlink()
    with pytest.raises(RecordError, match=r"blue\.png: cannot be read: No such file"):
        _ = other.content


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_an_image_that_changed_in_its_table_is_an_error(tmp_path: Path, ending: str) -> None:
    rows: list[dict[str, object]] = [{"bad": 1, "image": png("red")}]
    table = write_table(tmp_path / f"rows.{ending}", rows)
    [record] = read(table, adapter(tmp_path, **IN_TABLES))
    assert record.content.parts == (ImagePart(png("red")),)
    assert record.in_words == f"[image {table}: row 1]"
    write_table(table, [{"bad": 1, "image": png("blue")}])
    os.utime(table, ns=(1, 1))  # clocks are coarse
    with pytest.raises(RecordError, match=r": row 1: its image has changed since the data was"):
        _ = record.content


def test_an_image_that_is_missing_is_told_with_its_row(tmp_path: Path) -> None:
    for value, problem in (
        ("no.png", r"a\.csv:2: the image of column 'image': .*no\.png: cannot be read"),
        ("", r"a\.csv:2: the column 'image' holds neither a path nor an image"),
    ):
        table = write_table(tmp_path / "a.csv", [{"image": value, "bad": 1}])
        with pytest.raises(RecordError, match=problem):
            read(table, adapter(tmp_path, **IN_TABLES))


def test_own_records_name_images_and_may_have_a_text_beside(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(png("red"))
    rows = [
        {"id": "a", "image": "i.png", "role": "user", "labels": {"violence": True}},
        {"id": "b", "image": "i.png", "text": "see?", "role": "user", "labels": {}},
    ]
    alone, both = read_records(write_table(tmp_path / "a.jsonl", rows))
    assert (alone.surface, both.surface) == (Surface.IMAGE, Surface.PROMPT)
    assert both.content.parts == (TextPart("see?"), ImagePart(png("red")))
    assert alone.content_hash != both.content_hash
    with pytest.raises(RecordError, match=r"b\.jsonl:1: image: .*none\.png: cannot be read"):
        read_records(write_table(tmp_path / "b.jsonl", [rows[0] | {"image": "none.png"}]))


def test_a_run_is_not_resumed_with_another_adapter_or_other_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png("red"))
    rows = [{"image": name, "bad": n} for n, name in enumerate(("a.png", "b.png"))]
    data = write_table(tmp_path / "a.csv", rows)
    chosen = adapter(tmp_path, **IN_TABLES)
    plan = replace(plan_for(data, tmp_path / "out"), adapter=chosen)
    moderator = scripted_moderator(tmp_path / "calls")
    # the scripted classifier cannot see, which is an error of every record and no score
    assert run_plan(moderator, plan).num_scored == 0
    assert run_plan(moderator, plan).num_scored == 0
    renamed = adapter(tmp_path, **IN_TABLES, revision="2")
    with pytest.raises(RunRefused, match=r'data\.adapter\.revision null where .* has "2"'):
        run_plan(moderator, replace(plan, adapter=renamed))
    (tmp_path / "a.png").write_bytes(png("blue"))
    with pytest.raises(RunRefused, match=r"data\.images_sha256"):
        run_plan(moderator, plan)


def test_a_probe_leaves_images_alone(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "pics")
    plan = replace(plan_for(data, tmp_path / "out"), adapter=adapter(tmp_path, **BY_FOLDER))
    workload = read_workload(load_library(), plan)
    assert not probe_workload(workload, PROBES["padded_before"]).tasks


@pytest.mark.model
def test_the_embedded_model_judges_a_folder_of_images_by_what_is_found_in_them(
    tmp_path: Path, embedded: Classifier
) -> None:
    data = image_folder(tmp_path / "pics")
    (data / "bad" / "broken.png").write_bytes(b"no image")
    moderator = Moderator(load_library(), embedded, recognisers=load_recognisers())
    plan = replace(plan_for(data, tmp_path / "out"), adapter=adapter(tmp_path, **BY_FOLDER))
    results = run_plan(moderator, plan)
    assert (results.num_scored, results.summary["unscorable_records"]) == (3, 1)
    run = read_run(tmp_path / "out")
    assert {*run.scores["surface"]} == {"image"}
    assert {*run.scores["coverage"]} == {"partial"}  # such evidence shows nothing of violence
    assert run.unscored["error"].str.starts_with("unreadable_image: ").all()
    [record] = [each for each in records_of(data, [run]) if each.id == "bad/red.png"]
    [raw] = run.scores.filter(record_id="bad/red.png", policy="violence")["raw"]
    alone = moderator.judge(record.content, plan.policy_set)
    [score] = [score for score in alone.scores if score.policy_id == "violence"]
    assert raw == pytest.approx(score.raw, abs=1e-4)
    judged = json.loads((tmp_path / "out" / "run.json").read_text())["images"]
    assert (judged["recognisers"], judged["text_is_read"], judged["model"]) == (True, False, None)
    assert pl.read_parquet(tmp_path / "out" / "scores.parquet").height == 6
