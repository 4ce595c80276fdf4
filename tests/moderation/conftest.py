"""Tiny checkpoints, written and loaded once a session."""

from pathlib import Path

import pytest
import torch

from moderation.checkpoints import Classifier, load_checkpoint
from moderation.tokenizer import SafeTokenizer
from tests.moderation.checkpoints_on_disk import (
    write_gemma2,
    write_gemma3,
    write_gemma3_with_images,
    write_shieldgemma2,
)
from tests.moderation.small_tokenizer import small_tokenizer_json

WRITERS = {
    "gemma2": write_gemma2,
    "gemma3": write_gemma3,
    "gemma3_with_images": write_gemma3_with_images,
    "shieldgemma2": write_shieldgemma2,
}


@pytest.fixture(scope="session")
def checkpoint_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint directory of each architecture; not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: write(root / name) for name, write in WRITERS.items()}


@pytest.fixture(scope="session")
def tiny(checkpoint_dirs: dict[str, Path]) -> dict[str, Classifier]:
    """A float32 classifier of each architecture."""
    return {
        name: load_checkpoint(folder, dtype=torch.float32)
        for name, folder in checkpoint_dirs.items()
    }


@pytest.fixture(scope="session")
def small_tokenizer() -> SafeTokenizer:
    return SafeTokenizer(small_tokenizer_json())
