"""What a server's log-probabilities prove, and when they prove no score."""

import math

import pytest

from moderation.errors import Unscorable
from moderation.remote.logprobs import MAX_UNCERTAINTY, AnswerTokens, Completion, Logprobs, score_of

ANSWERS = AnswerTokens(yes=7, no=8)


def score(logprobs: Logprobs, *, top: int = 3, min_mass: float = 0.1) -> float:
    return score_of(logprobs, ANSWERS, top=top, min_mass=min_mass)


def test_the_score_is_yes_against_no() -> None:
    assert score({7: math.log(0.6), 8: math.log(0.2)}) == pytest.approx(0.75)
    assert score({8: math.log(0.6), 7: math.log(0.2)}) == pytest.approx(0.25)


def test_answers_are_found_by_their_bytes_where_there_is_no_id() -> None:
    assert score({b"Yes": math.log(0.6), b"No": math.log(0.2)}) == pytest.approx(0.75)
    with pytest.raises(Unscorable, match="neither Yes nor No is among the 4 tokens"):
        score({b" Yes": -0.5, b"yes": -2.0, b" No": -2.0, b"NO": -2.0})


def test_a_low_mass_is_no_score() -> None:
    low: Logprobs = {7: math.log(0.05), 8: math.log(0.03), 9: math.log(0.5)}
    with pytest.raises(Unscorable, match=r"probability of 0\.08 together, expected at least 0\.1"):
        score(low)
    assert score(low, min_mass=0.07) == pytest.approx(5 / 8)


def test_a_missing_answer_is_bounded_by_the_last_token_that_was_returned() -> None:
    """At least 0.97 / (0.97 + 0.001): the truth lies between that and one."""
    found = score({7: math.log(0.97), 1: math.log(0.002), 2: math.log(0.001)})
    assert found == pytest.approx(0.97 / 0.971)
    found = score({8: math.log(0.97), 1: math.log(0.002), 2: math.log(0.001)})
    assert found == pytest.approx(0.001 / 0.971)


@pytest.mark.parametrize("answer", [7, 8])
def test_a_missing_answer_that_leaves_the_score_open_is_no_score(answer: int) -> None:
    edge = math.log(0.9 * MAX_UNCERTAINTY / (1 - MAX_UNCERTAINTY))
    with pytest.raises(Unscorable, match="leaves P\\(Yes\\) open by"):
        score({answer: math.log(0.9), 1: edge + 0.01, 2: edge + 0.01})
    assert score({answer: math.log(0.9), 1: edge - 0.01, 2: edge - 0.01}) > 0


def test_a_list_shorter_than_asked_for_bounds_nothing() -> None:
    with pytest.raises(Unscorable, match="returned 2 tokens of the 3 asked for, and No is not"):
        score({7: math.log(0.97), 1: math.log(0.0001)})


def test_the_sampled_token_behind_the_list_does_not_lower_the_bound() -> None:
    listed: Logprobs = {7: math.log(0.5), 1: math.log(0.2), 2: math.log(0.2)}
    with pytest.raises(Unscorable, match="leaves P"):
        score({**listed, 3: math.log(1e-6)})


@pytest.mark.parametrize("masked", [-9999.0, -3.4e38, -math.inf])
def test_an_answer_that_was_masked_out_is_a_missing_one(masked: float) -> None:
    with pytest.raises(Unscorable, match="returned 2 tokens of the 3"):
        score({7: math.log(0.9), 8: masked})
    with pytest.raises(Unscorable, match="neither"):
        score({7: masked, 8: masked})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 0.7])
def test_a_number_that_is_no_logprob_is_no_score(wrong: float) -> None:
    with pytest.raises(Unscorable, match="no log-probability"):
        score({7: math.log(0.9), 8: wrong})
    with pytest.raises(Unscorable, match="no log-probability"):
        score({7: math.log(0.5), 8: math.log(0.4), 9: wrong})


def test_more_than_all_probability_is_no_score() -> None:
    with pytest.raises(Unscorable, match=r"probability of 1\.9 together"):
        score({7: math.log(0.95), 8: math.log(0.95)})


def test_nothing_returned_is_no_score() -> None:
    with pytest.raises(Unscorable, match="returned no logprobs"):
        score({})


def test_both_wire_formats_are_read() -> None:
    listed = Completion.model_validate(
        {
            "choices": [
                {
                    "logprobs": {
                        "tokens": ["token_id:7"],
                        "token_logprobs": [-0.5],
                        "top_logprobs": [{"token_id:8": -1.0, " token_id:9": -2.0, "x": None}],
                    }
                }
            ],
            "usage": {"prompt_tokens": 12},
        }
    )
    assert listed.first_logprobs() == {7: -0.5, 8: -1.0, b" token_id:9": -2.0}
    assert listed.prompt_tokens == 12
    tokens = [
        {"id": 7, "token": "Yes", "bytes": [89, 101, 115], "logprob": -0.5},
        {"token": "No", "bytes": [78, 111], "logprob": -1.0},
        {"token": "no bytes", "logprob": -2.0},
    ]
    nested = Completion.model_validate(
        {"choices": [{"logprobs": {"content": [{**tokens[0], "top_logprobs": tokens}]}}]}
    )
    assert nested.first_logprobs() == {7: -0.5, b"No": -1.0, b"no bytes": -2.0}
    assert nested.prompt_tokens is None


@pytest.mark.parametrize(
    "choices",
    [
        [],
        [{}],
        [{"logprobs": None}],
        [{"logprobs": {"content": []}}],
        [{"logprobs": {"tokens": [], "token_logprobs": [], "top_logprobs": []}}],
        [{"logprobs": {"tokens": ["Yes"], "token_logprobs": [None], "top_logprobs": [None]}}],
    ],
)
def test_an_answer_without_logprobs_has_none(choices: list[object]) -> None:
    assert Completion.model_validate({"choices": choices}).first_logprobs() == {}
