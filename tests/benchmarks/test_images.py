"""The benchmark of images: both sides see the same prompts, pixels and weights."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ShieldGemma2Config, ShieldGemma2ForImageClassification

from benchmarks.engine.images import (
    POLICIES,
    full_size,
    measure,
    pictures,
    processor_of,
    shipped,
)
from benchmarks.engine.random_checkpoint import write_random_checkpoint
from moderation.checkpoints import load_checkpoint
from tests.moderation.checkpoints_on_disk import write_shieldgemma2


def test_both_sides_give_the_same_scores_with_one_set_of_weights(tmp_path: Path) -> None:
    folder = write_shieldgemma2(tmp_path)
    classifier = load_checkpoint(folder, dtype=torch.float32)
    held = {tensor.data_ptr() for tensor in classifier.model.parameters()}
    assert {tensor.data_ptr() for tensor in shipped(classifier).parameters()} == held
    images = [image.resize((90, 70)) for image in pictures(3)]
    images.append(Image.new("RGB", (70, 90), "red"))
    rows = {row["side"]: row for row in measure(classifier, processor_of(folder), images, rounds=1)}
    ours, theirs = rows["wardgate"], rows["transformers, as shipped"]
    assert ours["max_dp"] < 1e-4
    assert theirs["max_dp"] == 0
    assert ours["ratio"] == 1
    for row in rows.values():
        assert row["cpu_s"] > 0
        assert row["wall_s"] > 0
        assert row["peak_mib"] > 0


def test_the_full_size_is_the_published_one() -> None:
    with torch.device("meta"):
        model = ShieldGemma2ForImageClassification(full_size())
    assert sum(each.numel() for each in model.parameters()) == pytest.approx(4.300e9, rel=1e-3)


def test_a_random_checkpoint_passes_all_checks_of_loading(tmp_path: Path) -> None:
    small = write_shieldgemma2(tmp_path / "small")
    config = ShieldGemma2Config.from_pretrained(small)
    config.architectures = ["ShieldGemma2ForImageClassification"]
    folder = tmp_path / "random"
    folder.mkdir()
    write_random_checkpoint(folder, config, tokenizer_of=small)
    classifier = load_checkpoint(folder, dtype=torch.bfloat16)
    images = [image.resize((64, 48)) for image in pictures(2)]
    rows = measure(classifier, processor_of(folder), images, rounds=1)
    assert len(rows) == 2
    assert len(POLICIES) == 3
