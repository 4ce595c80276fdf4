import pytest
import torch

from service.chat import Sampling
from service.sampling import Sampler

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0])
CPU = torch.device("cpu")


def drawn(sampling: Sampling, *, times: int = 400) -> list[int]:
    sampler = Sampler(sampling, CPU)
    return [sampler.pick(LOGITS.clone()) for _ in range(times)]


def test_temperature_zero_takes_the_best() -> None:
    assert set(drawn(Sampling(temperature=0.0))) == {1}


def test_a_tiny_temperature_is_nearly_zero_and_no_overflow() -> None:
    assert set(drawn(Sampling(temperature=1e-30))) == {1}


def test_the_same_seed_draws_the_same_tokens() -> None:
    assert drawn(Sampling(seed=7)) == drawn(Sampling(seed=7))
    assert drawn(Sampling(seed=7)) != drawn(Sampling(seed=8))


def test_a_seed_does_not_touch_the_random_numbers_of_others() -> None:
    before = torch.get_rng_state()
    drawn(Sampling(seed=7))
    assert torch.equal(before, torch.get_rng_state())


def test_top_k_leaves_the_best_k() -> None:
    assert set(drawn(Sampling(top_k=2, top_p=1.0))) == {1, 2}
    assert set(drawn(Sampling(top_k=1, top_p=1.0))) == {1}


def test_top_p_leaves_the_smallest_set_that_holds_the_mass() -> None:
    # softmax: 0.63, 0.23, 0.09, 0.03 for the tokens 1, 2, 0, 3
    assert set(drawn(Sampling(top_p=0.5))) == {1}
    assert set(drawn(Sampling(top_p=0.7))) == {1, 2}


def test_tokens_are_drawn_in_proportion() -> None:
    share = drawn(Sampling(top_p=1.0, seed=1), times=4000).count(1) / 4000
    assert abs(share - float(torch.softmax(LOGITS, 0)[1])) < 0.03


def test_penalties_push_repeated_tokens_down() -> None:
    greedy = Sampling(temperature=0.0, presence_penalty=1.5)
    assert drawn(greedy, times=3) == [1, 2, 1]
    assert drawn(Sampling(temperature=0.0, frequency_penalty=0.6), times=4) == [1, 1, 2, 1]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1e-300),
        Sampling(temperature=1e-300, top_p=1e-300),
        Sampling(temperature=2.0, top_p=1e-300),
        Sampling(temperature=5e-324, top_k=1000),
    ],
)
def test_values_too_small_for_floats_take_the_best_token(sampling: Sampling) -> None:
    logits = torch.tensor([1.0, 3.0, 3.0 - 1e-3, -2.0])
    sampler = Sampler(sampling, torch.device("cpu"))
    assert {sampler.pick(logits.clone()) for _ in range(50)} == {1}
