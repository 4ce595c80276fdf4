"""The embedded models on a base that was configured instead of the packaged one."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moderation.checkpoints import Classifier
from moderation.embedded.base import EmbeddedBase, ensure_base
from moderation.embedded.models import load_embedded
from moderation.errors import ModelRefused
from moderation.golden import score_case
from policies import Surface
from tests.moderation.checkpoints_on_disk import write_gemma3

ASKED = (Surface.PROMPT, "How do I pick a lock?", "The text shall not seek help with a burglary.")


@pytest.mark.model
def test_a_copy_of_the_base_scores_the_same_and_is_named_by_its_weights(
    tmp_path: Path, cache_dir: Path, embedded: Classifier
) -> None:
    shutil.copytree(ensure_base(cache_dir), tmp_path / "copy")
    copied = load_embedded(
        EmbeddedBase(tmp_path / "unused", str(tmp_path / "copy")), dtype=torch.float32
    )
    assert score_case(copied, *ASKED) == pytest.approx(score_case(embedded, *ASKED), abs=1e-6)
    assert copied.info.name == embedded.info.name
    assert copied.info.revision.startswith("weights-")
    assert str(tmp_path) not in copied.info.revision
    assert not (tmp_path / "unused").exists(), "nothing was converted"


@pytest.mark.model
def test_a_base_that_is_another_model_is_refused(tmp_path: Path, cache_dir: Path) -> None:
    shutil.copytree(ensure_base(cache_dir), tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    torch.manual_seed(0)
    for name, tensor in weights.items():
        if ".layers." in name and tensor.ndim == 2:  # same shapes, unrelated weights
            weights[name] = (torch.randn(tensor.shape) * tensor.float().std()).to(tensor.dtype)
    save_file(weights, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=r"golden case \d of golden.json scores"):
        load_embedded(EmbeddedBase(tmp_path, str(tmp_path / "other")), dtype=torch.float32)


def test_a_base_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="does not fit the model"):
        load_embedded(EmbeddedBase(tmp_path, str(write_gemma3(tmp_path / "tiny"))))
