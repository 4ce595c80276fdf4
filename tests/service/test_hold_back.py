import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.hold_back import HoldBack


def held(text: str, *, every: int = 20) -> HoldBack:
    hold = HoldBack(check_every_chars=every)
    hold.add(text)
    return hold


def test_a_sentence_end_is_due_after_half_the_characters() -> None:
    assert not held("Short. No").is_due
    assert held("A longer one. And").is_due
    assert not held("A longer one, and").is_due


def test_many_characters_are_due_anywhere() -> None:
    assert held("x" * 20).is_due


def test_white_space_is_never_due() -> None:
    assert not held(" \n" * 40).is_due
    assert not held(" \n" * 40).holds_text


def test_the_stride_is_the_same_for_a_long_response() -> None:
    hold = held("x" * 300)
    hold.release(300)
    hold.add("y" * 19)
    assert not hold.is_due
    hold.add("y")
    assert hold.is_due


@given(pieces=st.lists(st.text("ab. \n", max_size=9), max_size=30))
def test_what_is_released_is_the_beginning_of_the_text_and_nothing_twice(pieces: list[str]) -> None:
    hold = HoldBack(check_every_chars=7)
    shown = ""
    for piece in pieces:
        hold.add(piece)
        if hold.is_due:
            shown += hold.release(len(hold.text))
    assert "".join(pieces).startswith(shown)
    assert len(shown) == hold.released


def test_more_than_was_checked_never_leaves() -> None:
    with pytest.raises(AssertionError, match="only what was checked leaves"):
        held("abc").release(4)
