"""What was considered for the engine: rounding is what it says, and leaves no trace."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.engine.variants import (
    EightBitLinear,
    channel_maxima,
    eight_bits,
    linear_layers,
    moved,
    rounded,
    scores,
    smoothing,
)
from moderation.checkpoints import Classifier, load_checkpoint
from moderation.engine import Ask
from moderation.prompts import JudgePrompt
from tests.moderation.checkpoints_on_disk import write_gemma3

ASKS = [Ask(JudgePrompt((2, 30 + i, 31, 32), ((40, 41), (50, 51, 52)), (35,))) for i in range(4)]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder: Path = tmp_path_factory.mktemp("tiny")
    return load_checkpoint(write_gemma3(folder / "gemma3"), dtype=torch.float32)


def test_rounding_keeps_the_greatest_of_a_row_and_takes_255_steps() -> None:
    rows = torch.tensor([[127.0, -63.4, 0.2], [0.5, 1.0, 0.0]])
    expected = torch.tensor([[127.0, -63.0, 0.0], [64 / 127, 1.0, 0.0]])
    torch.testing.assert_close(eight_bits(rows), expected)


def test_a_rounded_classifier_is_itself_again(classifier: Classifier) -> None:
    expected = scores(classifier, ASKS)
    channels = channel_maxima(classifier, ASKS)
    assert channels.keys() == linear_layers(classifier).keys()
    for variant in (
        partial(rounded, classifier),
        partial(rounded, classifier, round_input=None),
        partial(rounded, classifier, channels=channels, but="down_proj"),
    ):
        with variant():
            assert 0 < moved(scores(classifier, ASKS), expected)["max_dp"] < 0.05
        assert scores(classifier, ASKS).tolist() == expected.tolist()


def test_smoothing_alone_changes_no_score(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scores(classifier, ASKS)
    channels = channel_maxima(classifier, ASKS)
    monkeypatch.setattr("benchmarks.engine.variants.eight_bits", lambda values: values)
    with rounded(classifier, channels=channels, round_input=None):
        assert scores(classifier, ASKS).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_an_eight_bit_layer_multiplies_what_is_rounded() -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 32, bias=False), torch.randn(20, 64)
    channels = inputs.abs().amax(0)
    smooth = smoothing(linear.weight.data, channels)
    expected = eight_bits(inputs / smooth) @ eight_bits(linear.weight.data * smooth).T
    torch.testing.assert_close(EightBitLinear(linear, channels)(inputs), expected)
    assert not torch.equal(expected, linear(inputs))
