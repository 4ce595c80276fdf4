"""Windows hold every token, overlap, and end where sentences end."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.tokenizer import SafeTokenizer
from moderation.windows import split_windows

sizes = st.integers(4, 60).flatmap(
    lambda size: st.tuples(st.just(size), st.integers(0, (size - 1) // 2))
)
texts = st.lists(
    st.one_of(st.text(max_size=30), st.sampled_from(["One. ", "Two! ", "three ", "\n", "四。"])),
    max_size=40,
).map("".join)


@settings(deadline=None)
@given(text=texts, shape=sizes)
def test_every_token_and_every_character_is_in_a_window(
    small_tokenizer: SafeTokenizer, text: str, shape: tuple[int, int]
) -> None:
    size, overlap = shape
    tokens = small_tokenizer.content(text)
    windows = split_windows(text, tokens, size=size, overlap=overlap)
    assert windows[0].first == 0
    assert windows[0].start == 0
    assert windows[-1].last == len(tokens)
    assert windows[-1].end == len(text)
    for window in windows:
        assert window.last - window.first <= size
    for before, after in itertools.pairwise(windows):
        assert after.first == before.last - overlap
        assert after.last > before.last
        assert after.start <= before.end


@settings(deadline=None)
@given(text=texts, shape=sizes)
def test_offsets_say_which_characters_a_window_holds(
    small_tokenizer: SafeTokenizer, text: str, shape: tuple[int, int]
) -> None:
    size, overlap = shape
    tokens = small_tokenizer.content(text)
    for window in split_windows(text, tokens, size=size, overlap=overlap):
        held = small_tokenizer.decode(list(tokens.ids[window.first : window.last]))
        shown = text[window.start : window.end].replace("▁", " ")
        # a character of several bytes can be cut by the border: its bytes decode to U+FFFD
        assert held.strip("�") in shown or "�" in held


def test_a_text_that_fits_is_one_window(small_tokenizer: SafeTokenizer) -> None:
    text = "One. Two."
    tokens = small_tokenizer.content(text)
    (window,) = split_windows(text, tokens, size=len(tokens), overlap=0)
    assert (window.first, window.last, window.start, window.end) == (0, len(tokens), 0, len(text))


@pytest.mark.parametrize("sentence", ["It is so. ", 'He said "no!" ', "A line\n", "句子。"])
def test_windows_end_with_sentences(small_tokenizer: SafeTokenizer, sentence: str) -> None:
    text = sentence * 40
    tokens = small_tokenizer.content(text)
    size = 5 * len(small_tokenizer.content(sentence)) + 3
    windows = split_windows(text, tokens, size=size, overlap=0)
    assert len(windows) > 3
    for window in windows[:-1]:
        assert text[: window.end].rstrip().endswith(sentence.strip())


def test_without_a_sentence_end_near_the_border_the_window_is_full(
    small_tokenizer: SafeTokenizer,
) -> None:
    text = "One. " + "word " * 60
    tokens = small_tokenizer.content(text)
    windows = split_windows(text, tokens, size=40, overlap=4)
    assert windows[0].last == 40


def test_an_overlap_that_leaves_no_progress_is_refused(small_tokenizer: SafeTokenizer) -> None:
    tokens = small_tokenizer.content("word")
    with pytest.raises(ValueError, match="must be more than twice the overlap 5"):
        split_windows("word", tokens, size=10, overlap=5)
