"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

from moderation.checkpoints import Classifier
from moderation.embedded.base import EmbeddedBase
from moderation.embedded.models import load_embedded
from wardgate.environment import default_cache_dir

# Tiny operations are most of what the tests compute, and with threads each of them waits for all
# cores: on a busy machine that was ten times slower. Likewise in the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Where converted models live: the user's own cache, so that a second run is quick."""
    return default_cache_dir()


@pytest.fixture(scope="session")
def embedded(cache_dir: Path) -> Classifier:
    """The embedded classifier in float32, where exactness can be tested."""
    return load_embedded(EmbeddedBase(cache_dir), dtype=torch.float32)
