"""The normal form of a text: what a person reads in it, however its letters are disguised.

Ordinary text is its own normal form, in any language; so punctuation, fractions and units stay as
they are. Knows nothing of classifiers. Time is linear in the text.
"""

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from moderation.edit import Edit
from moderation.encodings import decoded
from moderation.leetspeak import plain_tokens
from moderation.look_alikes import undisguised_words
from moderation.marks import bare_letters, unaccented

_MAX_ROUNDS = 8
"""One trick can hide another; each round takes off one at least. Two rounds are usual."""


@dataclass(frozen=True, slots=True)
class NormalForm:
    """A text in another spelling, and where each of its characters comes from."""

    text: str
    _starts: "array[int]" = field(repr=False)
    _ends: "array[int]" = field(repr=False)

    def original(self, start: int, end: int) -> tuple[int, int]:
        """[start, end) of the normal form, not empty, as a range of the text it was made of."""
        return self._starts[start], self._ends[max(end - 1, start)]


def normal_form(text: str) -> NormalForm | None:
    """The normal form of a text; None where it is the text itself, or nothing is left of it."""
    draft = _Draft(text)
    for _ in range(_MAX_ROUNDS):
        before = draft.text
        for step in _STEPS:
            draft.apply(step(draft.text))
        if draft.text == before:
            break
    return draft.finished() if draft.text != text and draft.text.strip() else None


class _Draft:
    """A text that is being edited."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts: array[int] | None = None
        self._ends: array[int] | None = None

    def apply(self, edits: Iterable[Edit]) -> None:
        """Takes edits in order that do not overlap."""
        made = [edit for edit in edits if self.text[edit[0] : edit[1]] != edit[2]]
        if not made:
            return
        if self._starts is None or self._ends is None:
            self._starts = array("q", range(len(self.text)))
            self._ends = array("q", range(1, len(self.text) + 1))
        pieces: list[str] = []
        starts, ends = array("q"), array("q")
        done = 0
        for start, end, plain in made:
            pieces += (self.text[done:start], plain)
            starts += self._starts[done:start]
            ends += self._ends[done:start]
            if len(plain) == end - start:  # letter for letter
                starts += self._starts[start:end]
                ends += self._ends[start:end]
            elif plain:
                starts += array("q", [self._starts[start]]) * len(plain)
                ends += array("q", [self._ends[end - 1]]) * len(plain)
            done = end
        starts += self._starts[done:]
        ends += self._ends[done:]
        self.text = "".join([*pieces, self.text[done:]])
        self._starts, self._ends = starts, ends

    def finished(self) -> NormalForm:
        assert self._starts is not None, "something was edited"
        assert self._ends is not None, "something was edited"
        return NormalForm(self.text, self._starts, self._ends)


# --- letters in other clothes: bold, full width, circled ---

_BOLD = ("\U0001d400", "\U0001d7ff")
_DRESSED = re.compile(
    # mathematical, full width, in circles and parentheses, letterlike, raised and lowered, squared;
    # an emoji of them can have a selector behind it
    "(?:[\U0001d400-\U0001d7ff\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\u249c-\u24e9\u2102-\u2149"
    "\u02b0-\u02b8\u02e1-\u02e3\u1d2c-\u1d6a\u2071\u207f\u2090-\u209c\U0001f110-\U0001f12b"
    "\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189\U0001f191-\U0001f19a]\ufe0f?)+"
)
_EMOJI_SELECTOR = "\ufe0f"
_WHITE_ON_BLACK = ((0x1F150, 0x1F169), (0x1F170, 0x1F189))
"""Circled and squared A to Z that NFKC leaves as they are."""
_SHAPES = re.compile("[\ufb50-\ufbb1\ufe70-\ufefc]+|[\u1100-\u1112\u1161-\u1175\u11a8-\u11c2]{2,}")
"""Arabic letters by the shape they take in a word, and Korean syllables in pieces."""


def _undressed(text: str) -> Iterator[Edit]:
    """NFKC, of letters alone: NFKC of all would change most Chinese and Japanese texts."""
    if text.isascii():
        return
    for found in _DRESSED.finditer(text):
        start, end = found.span()
        plain = "".join(map(_undressed_letter, found[0]))
        beside = text[max(start - 1, 0) : start] + text[end : end + 1]
        if beside.islower():
            plain = plain.lower()
        is_bold = any(_BOLD[0] <= letter <= _BOLD[1] for letter in found[0])
        in_word = any(letter.isascii() and letter.isalpha() for letter in beside)
        # a number or an abbreviation of a Japanese text is what it is
        is_word = len(plain) > 3 and plain.isascii() and not plain.isdigit()
        if is_bold or in_word or is_word:
            yield start, end, plain


def _undressed_letter(letter: str) -> str:
    if letter == _EMOJI_SELECTOR:
        return ""
    code = ord(letter)
    for first, last in _WHITE_ON_BLACK:
        if first <= code <= last:
            return chr(ord("A") + code - first)
    plain = unicodedata.normalize("NFKC", letter).strip("()")
    is_one = len(plain) == 1 or letter > "\U0001f190"  # not the sign of a trade mark
    return plain if is_one and plain.isascii() and plain.isalnum() else letter


def _reshaped(text: str) -> Iterator[Edit]:
    if text.isascii():
        return
    for found in _SHAPES.finditer(text):
        yield *found.span(), unicodedata.normalize("NFKC", found[0])


# --- what cannot be seen ---

_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e007f\U000e0100-\U000e01ef]+"
)
_BLANK = re.compile("[\u3164\uffa0]+")
"""Korean letters without a shape."""
_JOINERS = "\u200c\u200d\u200e\u200f\u061c"
_BLACK_FLAG = "\U0001f3f4"


def _seen(text: str) -> Iterator[Edit]:
    """Without characters that are not seen, except where a script or an emoji needs them."""
    if text.isascii():
        return
    for found in _UNSEEN.finditer(text):
        start, end = found.span()
        before, after = text[max(start - 1, 0) : start], text[end : end + 1]
        hidden = "".join(chr(ord(each) - 0xE0000) for each in found[0] if _is_tag(each))
        if sum(letter.isalpha() for letter in hidden) > 3 and before != _BLACK_FLAG:
            yield start, end, f" {hidden} "  # a generator reads what is written in tags
        elif found[0] == _EMOJI_SELECTOR and not before.isalnum():
            continue
        elif not (_needs_unseen(before) or _needs_unseen(after)):
            yield start, end, ""
        elif _is_joined(before) and _is_joined(after):
            # joiners and directions have a meaning here, the others have none
            yield start, end, "".join(each for each in found[0] if each in _JOINERS)


def _is_tag(letter: str) -> bool:
    return "\U000e0020" <= letter <= "\U000e007e"


def _needs_unseen(letter: str) -> bool:
    """Whether an invisible character beside it can have a meaning: not beside a letter of a script
    with capitals, of Chinese, Japanese or Korean, and not beside ASCII."""
    if not letter or letter.isascii() or letter.isspace():
        return False
    if letter.isalpha():
        return letter.lower() == letter.upper() and not "\u3041" <= letter <= "\ud7a3"
    return unicodedata.category(letter)[0] in "SM"


def _is_joined(letter: str) -> bool:
    """Whether it is of Arabic or an Indian script; those set spaces between words."""
    return "\u0600" <= letter <= "\u0dff"


def _spaced(text: str) -> Iterator[Edit]:
    if not text.isascii():
        for found in _BLANK.finditer(text):
            yield *found.span(), " "


# --- letters set apart: k i l l, k.i.l.l ---

_LETTER = r"(?:[^\W_]|[@$€])"
_APART = re.compile(
    rf"(?<![^\W_])(?<!['’@$€]){_LETTER}(\s|\s?[-.·•_~*|/,+‐–—]\s?){_LETTER}(?:\1{_LETTER})+"
    r"(?![^\W_]|['’@$€])"
)

_WORDS_OF_ONE = frozenset("aeiouywzàèéóаиявсоукбжійє")
"""Words of one letter, in Romance and Slavic languages."""


def _together(text: str) -> Iterator[Edit]:
    """Words whose letters are set apart by the same separator."""
    for found in _APART.finditer(text):
        start, end = found.span()
        apart = found[1]
        letters = found[0][:: len(apart) + 1]
        step = len(apart) + 1
        if letters[0] == "I" and apart.isspace() and not letters[1:].isupper():
            letters, start = letters[1:], start + step  # the word I
        while letters and letters[0].isdigit():
            letters, start = letters[1:], start + step
        while letters and letters[-1].isdigit():
            letters, end = letters[:-1], end - step
        if _spell_a_word(letters, apart, text[end : end + 1]):
            yield start, end, letters


def _spell_a_word(letters: str, apart: str, after: str) -> bool:
    if len(letters) < (3 if len(apart) == 1 else 4):
        return False
    num_cased = sum(letter.lower() != letter.upper() for letter in letters)
    if num_cased * 3 < len(letters) * 2 or len(set(letters)) == 1:
        return False
    if apart == "." and len(letters) == 3 and (after == "." or not letters[1:].islower()):
        return False  # an abbreviation
    if apart.isspace() and _WORDS_OF_ONE.issuperset(letters.lower()):
        return False
    codes = [ord(letter) for letter in letters.lower()]
    # a b c d
    return any(second - first != 1 for first, second in pairwise(codes))


# --- letters repeated: killll, stuuupid ---

_WORD = re.compile("[A-Za-z\u00c0-\u058f\u1e00-\u1fff]+")  # of scripts with capitals
_REPEATED = re.compile(r"([^\W\d_])\1\1+")
_ROMAN = frozenset("IVXLCDM")
_DOUBLED = frozenset("bcdefglmnoprstzBCDEFGLMNOPRSTZ")
"""Letters that stand twice within English words."""
_DOUBLED_LAST = frozenset("flsFLS")
"""Those that stand twice at the end of one."""


def _not_repeated(text: str) -> Iterator[Edit]:
    """Of three and more of the same letter, one or two."""
    if not _REPEATED.search(text):
        return
    for word in _WORD.finditer(text):
        if not _REPEATED.search(word[0]) or _may_repeat(word[0]):
            continue
        runs = list(_REPEATED.finditer(word[0]))
        for found in runs:
            letter, (first, last) = found[1], found.span()
            if not first:
                keep = 1
            elif last == len(word[0]):
                keep = 2 if letter in _DOUBLED_LAST else 1
            else:
                # where all letters are repeated, a vowel that stood twice is the rarer case
                keep = 2 if letter in _DOUBLED and (len(runs) == 1 or letter not in "eoEO") else 1
            yield word.start() + first, word.start() + last, letter * keep


def _may_repeat(word: str) -> bool:
    """Whether it is an interjection, a number, or put together from two words, as in German."""
    if len(set(word.lower())) < 3 or _ROMAN.issuperset(word):
        return True
    return len(word) > 8 and all(
        len(found[0]) == 3 and found.start() > 1 and len(word) - found.end() > 2
        for found in _REPEATED.finditer(word)
    )


# --- capitals anywhere: hOw dO I kILl ---

_CAPITAL_INSIDE = re.compile(
    "[a-z\u00df-\u00f6\u03b1-\u03c9\u0430-\u044f][A-Z\u00c0-\u00d6\u0391-\u03a9\u0410-\u042f]"
)
"""Latin, Greek and Cyrillic: without three of these no text is looked at further."""
_JAGGED = re.compile("ulu|luu|lu$")
"""Capitals (u) as few names and identifiers have them: `PhD`, `LaTeX` and `userID` do."""


def _even_case(text: str) -> Iterator[Edit]:
    """In small letters, where half of the words are jagged, and three at least: more than names."""
    if len(_CAPITAL_INSIDE.findall(text)) < 3:
        return
    words = list(_WORD.finditer(text))
    long = [word[0] for word in words if len(word[0]) > 2]
    jagged = sum(
        bool(_JAGGED.search("".join("u" if letter.isupper() else "l" for letter in word)))
        for word in long
    )
    if jagged >= 3 and jagged * 2 >= len(long):
        for word in words:
            yield *word.span(), word[0].lower()


_STEPS: tuple[Callable[[str], Iterable[Edit]], ...] = (
    _undressed,
    _reshaped,
    _seen,
    _spaced,
    decoded,
    bare_letters,
    unaccented,
    undisguised_words,
    _together,
    plain_tokens,
    _not_repeated,
    _even_case,
)
