"""Probes and policy changes on pictures with words in them, by the embedded model, which sees them
through what is found in them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from evals.policy_diff_run import read_texts, run_versions
from evals.probe_run import run_probes
from evals.probes import IMAGE_PROBES
from evals.run import read_workload
from moderation.checkpoints import Classifier
from moderation.media.ocr import RapidOcrReader
from moderation.media.recognisers import load_recognisers
from moderation.moderator import Moderator
from policies import PolicyLibrary, load_library
from tests.evals.scripted import plan_for
from tests.evals.versions import change, diff_plan, version
from wardgate.policy_diff_found import listed_flips

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def moderator(embedded: Classifier) -> Moderator:
    return Moderator(
        load_library(), embedded, reader=RapidOcrReader(), recognisers=load_recognisers()
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One picture: most of the time goes into reading it."""
    picture = Image.new("RGB", (320, 80), "navy")
    words = "TONIGHT I WILL KILL YOU"
    ImageDraw.Draw(picture).text((10, 30), words, "white", ImageFont.load_default(20))
    picture.save(tmp_path / "threat.png")
    labels = {"violence": True, "harassment": True}
    row = {"id": "threat", "image": "threat.png", "role": "user", "labels": labels}
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row))
    return path


def test_a_probe_is_scored_by_the_words_that_are_still_read(
    moderator: Moderator, data: Path, tmp_path: Path
) -> None:
    plan = plan_for(data, tmp_path / "out", policies="shieldgemma2")
    workload = read_workload(moderator.library, plan)
    report, _ = run_probes(moderator, workload, [IMAGE_PROBES["image_jpeg"]])
    assert report.effects.keys() == {"violence"}, "harassment has no words for images"
    effect = report.effects["violence"]["image_jpeg"]
    assert (effect.n, effect.unscorable, effect.partial, effect.partial_clean) == (1, 0, 0, 1)
    assert (effect.recall_clean, effect.recall_probed) == (1.0, 1.0)
    assert effect.mean_drop_positives == pytest.approx(0.0, abs=0.2)


def test_a_changed_policy_turns_the_verdict_on_a_picture(
    moderator: Moderator, data: Path, tmp_path: Path
) -> None:
    old = moderator.library.policy("violence")
    library = PolicyLibrary({old.id: version("No coffee.", policy_id=old.id)}, {})
    changes = [change(old, library.policy(old.id))]
    plan = diff_plan(changes, tmp_path / "out")
    texts = read_texts(replace(plan, data=data))
    rows = run_versions(moderator, moderator.with_library(library), changes, [texts])
    [row] = rows.to_dicts()
    assert (row["surface"], row["coverage"]) == ("image", "partial")
    assert (row["violates"], row["violates_b"]) == (True, False)
    [flip] = listed_flips(rows, 1, show=[texts])
    assert flip["text"] == f"[image {data.parent / 'threat.png'}]"
