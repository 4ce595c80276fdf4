"""The models by name."""

from pathlib import Path

import pytest

from moderation.checkpoints import Classifier
from moderation.embedded.base import EmbeddedBase
from moderation.errors import ModelRefused, ModelUnavailable
from moderation.registry import describe, load_classifier


def test_every_name_stands_once_and_says_what_it_judges(tmp_path: Path) -> None:
    entries = describe(EmbeddedBase(tmp_path))
    names = [entry.name for entry in entries]
    assert names[0] == "embedded"
    assert len(set(names)) == len(names)
    assert all(entry.modalities and entry.source for entry in entries)


def test_a_configured_base_is_shown_as_the_source_of_the_embedded_models(tmp_path: Path) -> None:
    here, away = (
        {entry.name: entry for entry in describe(EmbeddedBase(tmp_path, source))}["embedded"]
        for source in (str(tmp_path), "google/gemma-3-270m")
    )
    assert (here.source, here.on_disk) == (str(tmp_path), True)
    assert (away.source, away.on_disk) == ("google/gemma-3-270m", False)


def test_a_float16_model_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="cannot compute in 'float16'; expected float32 or bf"):
        load_classifier("embedded", base=EmbeddedBase(tmp_path / "none"), dtype="float16")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    with pytest.raises(ModelRefused, match=f"cannot compute on the device '{device}'"):
        load_classifier("embedded", base=EmbeddedBase(tmp_path / "none"), device=device)
    assert not (tmp_path / "none").exists()


def test_a_folder_without_a_model_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"config\.json"):
        load_classifier(str(tmp_path), base=EmbeddedBase(tmp_path))


@pytest.mark.model
def test_the_untrained_base_has_a_name_and_revision_of_its_own(
    cache_dir: Path, embedded: Classifier
) -> None:
    told: list[str] = []
    base = load_classifier(
        "embedded-base", base=EmbeddedBase(cache_dir), dtype="float32", report=told.append
    )
    assert base.info.name == "embedded-base"
    assert base.info.revision != embedded.info.revision
    assert base.info.dtype == "float32"
    assert "loading embedded-base" in told
