"""Probes of images: other pixels, the same each time, and a run of their own."""

import io
import json
import random
from pathlib import Path

import pytest
from PIL import Image

from evals.data.images import image_file
from evals.probe_run import probe_workload, run_probes
from evals.probe_table import probe_markdown
from evals.probes import IMAGE_PROBES, PROBES, probed
from evals.records import Record
from evals.run import read_workload
from policies import load_library
from tests.evals.scripted import plan_for, scripted_moderator, write_records


@pytest.fixture
def record(tmp_path: Path) -> Record:
    Image.linear_gradient("L").convert("RGB").resize((480, 360)).save(tmp_path / "one.png")
    image = image_file(tmp_path / "one.png")
    return Record(id="i", text="", image=image, role="user", labels={"violence": True})


@pytest.mark.parametrize("name", IMAGE_PROBES)
def test_a_probe_makes_another_picture_and_the_same_each_time(name: str, record: Record) -> None:
    assert record.image is not None
    one = probed(record, IMAGE_PROBES[name], seed=0)
    assert one.image is not None
    data = one.image.read()
    assert data == one.image.read()
    assert one.content_hash != record.content_hash
    assert one.labels == record.labels
    with Image.open(io.BytesIO(data)) as after, Image.open(record.image.path) as before:
        wanted = {
            "image_resize": (267, 200), "image_crop": (432, 324), "image_text": (480, 420)
        }.get(name, before.size)  # fmt: skip
        assert (after.size == wanted) == (name != "image_rotate")
        assert after.tobytes() != before.tobytes()


def test_a_picture_is_made_no_smaller_than_people_can_read(tmp_path: Path) -> None:
    change = IMAGE_PROBES["image_resize"].image_change
    assert change is not None
    for size, wanted in (((900, 720), (300, 240)), ((200, 150), (200, 150)), ((1, 1), (1, 1))):
        assert change(random.Random(0), Image.new("RGB", size)).size == wanted


def test_the_words_that_are_added_hide_nothing_of_the_picture(record: Record) -> None:
    after = probed(record, IMAGE_PROBES["image_text"], seed=0).image
    assert record.image is not None
    assert after is not None
    with Image.open(io.BytesIO(after.read())) as shown, Image.open(record.image.path) as before:
        assert shown.crop((0, 0, *before.size)).tobytes() == before.tobytes()
        assert len(shown.crop((0, 360, 480, 420)).getcolors(10_000) or ()) > 2


def test_what_is_no_picture_is_refused_and_never_scored_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = image_file(tmp_path / "bad.png")
    record = Record(id="b", text="", image=bad, role="user", labels={"violence": True})
    image = probed(record, IMAGE_PROBES["image_jpeg"], seed=0).image
    assert image is not None
    assert image.read() == b""


def test_pictures_have_runs_of_their_own_and_texts_are_left_out(
    tmp_path: Path, record: Record
) -> None:
    data = tmp_path / "records.jsonl"
    write_records(data, [Record(id="t", text="text", role="user", labels={"violence": False})])
    both = {**record.model_dump(exclude={"image"}), "text": "both", "image": "one.png"}
    with data.open("a") as lines:
        lines.write(json.dumps({name: value for name, value in both.items() if value is not None}))
    workload = read_workload(load_library(), plan_for(data, tmp_path / "out"))
    changed = probe_workload(workload, IMAGE_PROBES["image_crop"])
    assert [task.record.id for task in changed.tasks] == ["i"]
    assert changed.images_sha256 != workload.images_sha256
    assert len(probe_workload(workload, PROBES["spaced"]).tasks) == 2
    moderator = scripted_moderator(tmp_path / "calls")
    report, _ = run_probes(moderator, workload, [IMAGE_PROBES["image_crop"]])
    effect = report.effects["violence"]["image_crop"]
    assert (effect.n, effect.partial, effect.partial_clean) == (1, 0, 1)
    assert report.unchanged["image_crop"] == 1
    assert "are, so that the numbers say nothing of it: violence 1." in probe_markdown(report)
