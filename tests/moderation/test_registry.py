"""The models by name."""

from pathlib import Path

import pytest

from moderation.checkpoints import Classifier
from moderation.errors import ModelRefused, ModelUnavailable
from moderation.registry import describe, load_classifier


def test_every_name_stands_once_and_says_what_it_judges(tmp_path: Path) -> None:
    entries = describe(tmp_path)
    names = [entry.name for entry in entries]
    assert names[0] == "embedded"
    assert len(set(names)) == len(names)
    assert all(entry.modalities and entry.source for entry in entries)


def test_a_float16_model_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="cannot compute in 'float16'; expected float32 or bf"):
        load_classifier("embedded", cache_dir=tmp_path / "none", dtype="float16")
    assert not (tmp_path / "none").exists()


def test_a_folder_without_a_model_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"config\.json"):
        load_classifier(str(tmp_path), cache_dir=tmp_path)


@pytest.mark.model
def test_the_untrained_base_has_a_name_and_revision_of_its_own(
    cache_dir: Path, embedded: Classifier
) -> None:
    told: list[str] = []
    base = load_classifier(
        "embedded-base", cache_dir=cache_dir, dtype="float32", report=told.append
    )
    assert base.info.name == "embedded-base"
    assert base.info.revision != embedded.info.revision
    assert base.info.dtype == "float32"
    assert "loading embedded-base" in told
