"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

from moderation.checkpoints import Classifier
from moderation.embedded.models import load_embedded


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Where converted models live: the user's own cache, so that a second run is quick."""
    return Path(os.environ.get("WARDGATE_CACHE_DIR", Path.home() / ".cache" / "wardgate"))


@pytest.fixture(scope="session")
def embedded(cache_dir: Path) -> Classifier:
    """The embedded classifier in float32, where exactness can be tested."""
    return load_embedded(cache_dir, dtype=torch.float32)
