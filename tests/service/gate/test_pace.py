"""When a growing answer is worth a check."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gate.pace import NEAR, Mode, Pace


def pace(mode: Mode = "hold", **changes: Any) -> Pace:
    values = {"check_every_chars": 100, "hold_back_chars": 0, "window_chars": 40, "idle_s": 1.0}
    return Pace(mode=mode, **{**values, **changes})


@pytest.mark.parametrize(
    ("mode", "unchecked", "nearness", "is_due"),
    [
        pytest.param("hold", "a" * 99, 0.0, False, id="short of the stride"),
        pytest.param("hold", "a" * 100, 0.0, True, id="the stride"),
        pytest.param("hold", "a" * 49 + ". ", 0.0, True, id="a sentence of half of it"),
        pytest.param("hold", "a" * 47 + ". ", 0.0, False, id="a short sentence"),
        pytest.param("hold", "a" * 50, 0.0, False, id="half of it within a sentence"),
        pytest.param("hold", "a" * 50, NEAR, True, id="half of it near a threshold"),
        pytest.param("hold", " " * 100, 1.0, False, id="white space"),
        pytest.param("window", "a" * 20, 0.0, True, id="half of the window"),
        pytest.param("window", "a" * 19, 0.0, False, id="less than half of the window"),
        pytest.param("final", "a. " * 1000, 1.0, False, id="final"),
    ],
)
def test_a_check_is_due(mode: Mode, unchecked: str, nearness: float, is_due: bool) -> None:
    assert pace(mode).is_due(unchecked, nearness=nearness) is is_due


@given(
    text=st.text("ab. \n", max_size=150),
    more=st.text("ab. \n", max_size=20),
    nearness=st.floats(0, 2),
    window=st.integers(1, 300),
    mode=st.sampled_from(["hold", "window"]),
)
def test_more_text_never_makes_a_check_less_due(
    text: str, more: str, nearness: float, window: int, mode: Mode
) -> None:
    one = pace(mode, window_chars=window)
    if one.is_due(text, nearness=nearness):
        assert one.is_due(text + more, nearness=nearness)


@given(window=st.integers(1, 300), text=st.text("ab", min_size=1, max_size=300))
def test_in_a_window_a_check_is_due_before_the_window_is_full(window: int, text: str) -> None:
    if len(text) >= window:
        assert pace("window", window_chars=window).is_due(text, nearness=0.0)
