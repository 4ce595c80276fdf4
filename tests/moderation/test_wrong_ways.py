"""The wrong ways to compute packed rows, each put into the engine: the comparison with whole
prompts that holds the right one must notice every one of them.

Each is a mistake that transformers lets one make without a word (a mask for the wrong kind of
layer, positions that go on counting, an image that only looks back, a softcap left out), in the
terms of this engine.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma2ForCausalLM, Gemma3ForCausalLM

from moderation import attention, engine, gemma
from moderation.checkpoints import Classifier
from moderation.engine import LocalEngine
from moderation.prompts import JudgePrompt
from moderation.segments import Segment
from tests.moderation.asking import ask
from tests.moderation.checkpoints_on_disk import SLIDING_WINDOW
from tests.moderation.test_engine import TOLERANCE, full_prompts, plain_forward, random_pixels
from tests.moderation.test_engine_layouts import answers_of, masked_forward

CONTENT_FIRST = JudgePrompt(
    tuple(range(30, 30 + 2 * SLIDING_WINDOW)), (tuple(range(200, 230)), tuple(range(300, 340)))
)
COMPOSITIONAL = JudgePrompt(CONTENT_FIRST.prefix, CONTENT_FIRST.leaves, (35,))

Patch = Callable[[pytest.MonkeyPatch], None]


def all_layers_see_all(patch: pytest.MonkeyPatch) -> None:
    """One mask for both kinds of layers."""
    patch.setattr(gemma, "SLIDING", "no kind of layer")


def the_window_is_one_longer(patch: pytest.MonkeyPatch) -> None:
    plan = attention.plan_attention

    def longer(row: Any, window: int | None, **more: Any) -> attention.Plan:
        return plan(row, None if window is None else window + 1, **more)

    patch.setattr(gemma, "plan_attention", longer)


def policies_lose_the_content(patch: pytest.MonkeyPatch) -> None:
    """What transformers makes of positions that start again, without a mask."""
    patch.setattr(engine, "answer_segments", _leaves(lambda _: 0, sees=False))


def positions_go_on_counting(patch: pytest.MonkeyPatch) -> None:
    """A policy stands behind the one before it in the row, which it does not see."""
    patch.setattr(engine, "answer_segments", _leaves(lambda before: before, sees=True))


def _leaves(shift: Callable[[int], int], *, sees: bool) -> Any:
    def segments(prompt: JudgePrompt, content: Segment, _: Sequence[Segment]) -> list[Segment]:
        found, before = [], 0
        for leaf in prompt.leaves:
            behind = content.followed_by(leaf)
            found.append(Segment(leaf, behind.start + shift(before), behind.sees if sees else ()))
            before += len(leaf)
        return found

    return segments


def masks_are_added_as_zero_and_one(patch: pytest.MonkeyPatch) -> None:
    """A mask of True and False, given to what expects one that is added."""
    mask = attention._mask

    def added(*shape: Any) -> Tensor:
        return mask(*shape).eq(0).float()

    patch.setattr(attention, "_mask", added)


def kept_keys_stay_where_they_were(patch: pytest.MonkeyPatch) -> None:
    """A policy is not moved to where the query expects it."""
    piece = attention._Piece

    def unmoved(read: Any, shift: int, masked: Any) -> Any:
        return piece(read, 0, masked)

    patch.setattr(attention, "_Piece", unmoved)


def kinds_of_layers_share_a_rotation(patch: pytest.MonkeyPatch) -> None:
    rotation = gemma.GemmaLayers._rotation

    def of_full_layers(self: Any, positions: Tensor, _: str) -> Any:
        return rotation(self, positions, "full_attention")

    patch.setattr(gemma.GemmaLayers, "_rotation", of_full_layers)


def no_softcap_in_attention(patch: pytest.MonkeyPatch) -> None:
    attend = attention.attend

    def uncapped(*args: Any, softcap: float | None, **more: Any) -> Tensor:
        return attend(*args, softcap=None, **more)

    patch.setattr(gemma, "attend", uncapped)


def no_softcap_of_the_answers(patch: pytest.MonkeyPatch) -> None:
    scores = engine.violation_scores
    patch.setattr(engine, "violation_scores", lambda hidden, rows, _: scores(hidden, rows, None))


def images_look_back_only(patch: pytest.MonkeyPatch) -> None:
    piece = attention._piece

    def causal(*args: Any, both_ways: bool = False) -> Any:
        return piece(*args)

    patch.setattr(attention, "_piece", causal)


def image_features_are_scaled_like_tokens(patch: pytest.MonkeyPatch) -> None:
    embedded = gemma.GemmaLayers._embedded

    def scaled(self: Any, segments: Sequence[Segment]) -> Tensor:
        hidden = embedded(self, segments)
        scale = self._config.hidden_size**0.5
        row = 0
        for segment in segments:
            size = len(segment.tokens)
            if segment.image is not None:
                hidden[row : row + size] *= scale
            row += size
        return hidden

    patch.setattr(gemma.GemmaLayers, "_embedded", scaled)


BOTH = ("gemma2", "gemma3")
WRONG: list[tuple[Patch, JudgePrompt, Sequence[str]]] = [
    (all_layers_see_all, CONTENT_FIRST, BOTH),
    (all_layers_see_all, COMPOSITIONAL, BOTH),
    (the_window_is_one_longer, CONTENT_FIRST, BOTH),
    (the_window_is_one_longer, COMPOSITIONAL, BOTH),
    (policies_lose_the_content, CONTENT_FIRST, BOTH),
    (positions_go_on_counting, CONTENT_FIRST, BOTH),
    (masks_are_added_as_zero_and_one, CONTENT_FIRST, BOTH),
    (masks_are_added_as_zero_and_one, COMPOSITIONAL, BOTH),
    (kept_keys_stay_where_they_were, COMPOSITIONAL, BOTH),
    (kinds_of_layers_share_a_rotation, CONTENT_FIRST, ["gemma3"]),
    (no_softcap_in_attention, CONTENT_FIRST, ["gemma2"]),
    (no_softcap_of_the_answers, CONTENT_FIRST, ["gemma2"]),
]
IN_TEXT = [(wrong, prompt, name) for wrong, prompt, names in WRONG for name in names]


def off(found: Sequence[float], expected: Sequence[float]) -> float:
    """How far the farthest score is off."""
    return max(abs(one - other) for one, other in zip(found, expected, strict=True))


def fresh(classifier: Classifier) -> LocalEngine:
    """An engine that keeps nothing yet."""
    yes, no = answers_of(classifier)
    return LocalEngine(classifier.model, yes_id=yes, no_id=no, max_prompt_tokens=1024)


@pytest.mark.parametrize(
    ("wrong", "prompt", "name"),
    IN_TEXT,
    ids=[
        f"{wrong.__name__}-{'compositional' if prompt.query else 'content_first'}-{name}"
        for wrong, prompt, name in IN_TEXT
    ],
)
def test_a_wrong_way_with_text_is_noticed(
    tiny: dict[str, Classifier],
    checkpoint_dirs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    wrong: Patch,
    prompt: JudgePrompt,
    name: str,
) -> None:
    classes: dict[str, Any] = {"gemma2": Gemma2ForCausalLM, "gemma3": Gemma3ForCausalLM}
    model = classes[name].from_pretrained(
        checkpoint_dirs[name], dtype=torch.float32, attn_implementation="eager"
    )
    if prompt.query:
        with torch.inference_mode():
            expected = masked_forward(model, prompt, answers_of(tiny[name]))
    else:
        plain = plain_forward(model, tiny[name])
        expected = [plain(ids, None) for ids in full_prompts(prompt)]
    assert off(ask(fresh(tiny[name]), prompt), expected) < TOLERANCE
    wrong(monkeypatch)
    assert off(ask(fresh(tiny[name]), prompt), expected) > TOLERANCE


@pytest.mark.parametrize("wrong", [images_look_back_only, image_features_are_scaled_like_tokens])
def test_a_wrong_way_with_an_image_is_noticed(
    tiny: dict[str, Classifier], monkeypatch: pytest.MonkeyPatch, wrong: Patch
) -> None:
    """The right way is held to whole prompts by the tests of the engine."""
    classifier = tiny["gemma3_with_images"]
    prefix = classifier.builder.image_prompt(["No violence."]).prefix
    prompt, pixels = JudgePrompt(prefix, CONTENT_FIRST.leaves), random_pixels(1)
    expected = ask(fresh(classifier), prompt, pixels=pixels)
    wrong(monkeypatch)
    assert off(ask(fresh(classifier), prompt, pixels=pixels), expected) > TOLERANCE
