"""The embedded models on a base that was configured instead of the packaged one."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moderation.calibration import Calibration, calibration_json
from moderation.checkpoints import Classifier
from moderation.embedded.base import EmbeddedBase, ensure_base
from moderation.embedded.models import CALIBRATION, load_embedded
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


def with_noise(base: Path, folder: Path, share: float) -> Path:
    """A copy of a base with random noise in its layers, in shares of each row's spread."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    for name, tensor in weights.items():
        if ".layers." in name and tensor.ndim == 2:
            spread = tensor.float().std(dim=1, keepdim=True)
            noisy = tensor.float() + torch.randn(tensor.shape) * spread * share
            weights[name] = noisy.to(tensor.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.model
def test_a_base_that_differs_by_more_than_4_bit_rounding_is_accepted(
    tmp_path: Path, cache_dir: Path
) -> None:
    near = with_noise(ensure_base(cache_dir), tmp_path / "near", 0.09)
    assert load_embedded(EmbeddedBase(tmp_path, str(near)), dtype=torch.float32)


@pytest.mark.model
def test_a_base_that_is_another_model_is_refused(tmp_path: Path, cache_dir: Path) -> None:
    other = with_noise(ensure_base(cache_dir), tmp_path / "other", 3.0)
    with pytest.raises(ModelRefused, match=r"golden case \d of golden.json scores"):
        load_embedded(EmbeddedBase(tmp_path, str(other)), dtype=torch.float32)


def write_calibration(path: Path, revision: str) -> Calibration:
    calibration = Calibration.model_validate(
        {
            "model": {"name": "embedded", "revision": revision, "template": "compositional"},
            "data": [],
            "folds": 5,
            "seed": 0,
            "policies": {},
        }
    )
    path.write_text(calibration_json(calibration))
    return calibration


@pytest.mark.model
def test_the_calibration_beside_the_adapter_is_loaded_and_must_be_of_its_weights(
    tmp_path: Path, cache_dir: Path, embedded: Classifier
) -> None:
    assert (embedded.info.calibration is not None) == CALIBRATION.exists()
    path = tmp_path / "calibration.json"
    written = write_calibration(path, embedded.info.revision)
    base = EmbeddedBase(cache_dir)
    loaded = load_embedded(base, dtype=torch.float32, calibration=path)
    assert loaded.info.calibration == written.id
    write_calibration(path, "older")
    with pytest.raises(ModelRefused, match=r"of revision 'older'.* delete .*calibration\.json"):
        load_embedded(base, dtype=torch.float32, calibration=path)


def test_a_base_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="does not fit the model"):
        load_embedded(EmbeddedBase(tmp_path, str(write_gemma3(tmp_path / "tiny"))))
