import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text_stream import TextStream
from tests.service.scripted import TOKENIZER


def pushed(text: str, stops: tuple[str, ...] = (), *, strip_start: bool = False) -> list[str]:
    """The pieces of a text that comes byte by byte."""
    stream = TextStream(TOKENIZER.decode, stops, strip_start=strip_start)
    pieces = []
    for token in TOKENIZER.content(text).ids:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()]


@given(text=st.text(st.characters(codec="utf-8")))
def test_all_text_comes_out_and_only_in_whole_characters(text: str) -> None:
    pieces = pushed(text)
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(
    text=st.text("abX\n", max_size=30),
    stop=st.text("abX\n", min_size=1, max_size=4),
)
def test_nothing_of_a_stop_string_or_past_it_comes_out(text: str, stop: str) -> None:
    assert "".join(pushed(text, (stop,))) == text.partition(stop)[0]


def test_the_first_of_several_stops_counts() -> None:
    assert "".join(pushed("one\n\nUser: two", ("\nUser:", "\n\nUser:"))) == "one"


def test_text_is_not_kept_back_without_need() -> None:
    assert pushed("ab", ("xy",))[:2] == ["a", "b"]


def test_white_space_at_the_start_is_left_out_when_asked() -> None:
    assert "".join(pushed(" \n Hi all ", strip_start=True)) == "Hi all "


@pytest.mark.parametrize("broken", [b"\xff\xfe\xff\xfe\xff\xfe", b"ok \xf0\x9f"])
def test_bytes_that_are_no_text_come_out_as_replacement_characters(broken: bytes) -> None:
    stream = TextStream(TOKENIZER.decode, ())
    ids = [TOKENIZER.token_id(f"<0x{byte:02X}>") for byte in broken]
    text = "".join([*(stream.push(token) for token in ids), stream.finish()])
    assert "\ufffd" in text
    assert text.startswith("ok ") or not broken.startswith(b"ok")
