"""The vision tower runs once for all policies, and once ever for the same pixels."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from moderation.checkpoints import Classifier
from moderation.engine import Ask, LocalEngine
from moderation.image_features import MAX_TOGETHER, ImageFeatures
from moderation.prompts import JudgePrompt

POLICIES = ["No poison in images.", "No weapons in images.", "No gore in images."]


class Tower:
    """Counts what goes through a model's vision tower."""

    def __init__(self, model: Any) -> None:
        self.batches: list[int] = []
        self.model = model
        self._hook = model.vision_tower.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: Any, kwargs: Any) -> None:
        pixels = kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]
        self.batches.append(len(pixels))

    def remove(self) -> None:
        self._hook.remove()


@pytest.fixture
def tower(tiny: dict[str, Classifier]) -> Iterator[Tower]:
    model: Any = tiny["shieldgemma2"].model
    counted = Tower(model.model)
    yield counted
    counted.remove()


@pytest.fixture
def prompt(tiny: dict[str, Classifier]) -> JudgePrompt:
    return tiny["shieldgemma2"].builder.image_prompt(POLICIES)


def new_engine(tiny: dict[str, Classifier], **options: Any) -> LocalEngine:
    """An engine that has seen nothing yet, over the same model."""
    known = tiny["shieldgemma2"]
    yes, no = (known.builder.content_tokens(word).ids[0] for word in ("Yes", "No"))
    return LocalEngine(known.model, yes_id=yes, no_id=no, max_prompt_tokens=512, **options)


def pixels(seed: int, tiny: dict[str, Classifier]) -> Tensor:
    model: Any = tiny["shieldgemma2"].model
    side = model.config.vision_config.image_size
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_an_image_goes_through_the_tower_once_for_all_policies_and_calls(
    tiny: dict[str, Classifier], tower: Tower, prompt: JudgePrompt
) -> None:
    engine = new_engine(tiny)
    first = engine.p_yes([Ask(prompt, pixels(1, tiny))])
    assert tower.batches == [1]
    assert len(first[0]) == 3
    again = engine.p_yes([Ask(prompt, pixels(1, tiny))])
    assert tower.batches == [1]
    assert again == first


def test_new_images_go_through_together_and_known_ones_do_not(
    tiny: dict[str, Classifier], tower: Tower, prompt: JudgePrompt
) -> None:
    engine = new_engine(tiny, max_batch_tokens=100_000)
    engine.p_yes([Ask(prompt, pixels(1, tiny))])
    tower.batches.clear()
    engine.p_yes([Ask(prompt, pixels(seed, tiny)) for seed in (2, 1, 3, 2)])
    assert tower.batches == [2]


def test_scores_of_images_together_are_those_of_one_at_a_time(
    tiny: dict[str, Classifier], prompt: JudgePrompt
) -> None:
    together = new_engine(tiny, max_batch_tokens=100_000).p_yes(
        [Ask(prompt, pixels(seed, tiny)) for seed in range(11)]
    )
    alone = [
        new_engine(tiny, kept_image_bytes=0).p_yes([Ask(prompt, pixels(seed, tiny))])[0]
        for seed in range(11)
    ]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    first = [scores[0] for scores in alone]
    assert max(first) - min(first) > 1e-4, "a wrong order would be noticed"


def test_a_batch_of_the_tower_is_bounded(tiny: dict[str, Classifier], tower: Tower) -> None:
    features = ImageFeatures(tower.model, kept_bytes=10**9)
    with torch.inference_mode():
        found = features.of([pixels(seed, tiny) for seed in range(MAX_TOGETHER + 3)])
    assert tower.batches == [MAX_TOGETHER, 3]
    assert len(found) == MAX_TOGETHER + 3


def test_zero_bytes_keep_nothing(
    tiny: dict[str, Classifier], tower: Tower, prompt: JudgePrompt
) -> None:
    engine = new_engine(tiny, kept_image_bytes=0)
    for _ in range(3):
        engine.p_yes([Ask(prompt, pixels(1, tiny))])
    assert tower.batches == [1, 1, 1]


def test_the_memory_is_bounded_and_the_longest_unused_go_first(
    tiny: dict[str, Classifier], tower: Tower
) -> None:
    with torch.inference_mode():
        [one] = ImageFeatures(tower.model, kept_bytes=0).of([pixels(0, tiny)])
        features = ImageFeatures(tower.model, kept_bytes=2 * one.nbytes)
        for seed in (1, 2, 1, 3):  # 2 is the one that was not used for longest
            features.of([pixels(seed, tiny)])
        tower.batches.clear()
        features.of([pixels(1, tiny), pixels(3, tiny)])
        assert tower.batches == []
        features.of([pixels(2, tiny)])
        assert tower.batches == [1]


def test_what_is_kept_of_a_batch_does_not_keep_the_rest_of_it(
    tiny: dict[str, Classifier], tower: Tower
) -> None:
    with torch.inference_mode():
        found = ImageFeatures(tower.model, kept_bytes=10**9).of([pixels(i, tiny) for i in range(3)])
    assert [each.untyped_storage().nbytes() for each in found] == [each.nbytes for each in found]


def test_other_pixels_of_the_same_bytes_are_another_image(
    tiny: dict[str, Classifier], tower: Tower
) -> None:
    """Constant pixels in another order have the same bytes."""
    features = ImageFeatures(tower.model, kept_bytes=10**9)
    one = pixels(1, tiny)
    with torch.inference_mode():
        features.of([one])
        features.of([one.transpose(2, 3)])
    assert tower.batches == [1, 1]
