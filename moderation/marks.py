"""Marks upon letters, through them and around them: which of them no language has.

A letter keeps the accents that languages have, two at most. Where a text has accents as no language
has them (b̊, l̆, k̂ beside é), all of its Latin letters lose theirs.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from moderation.edit import Edit

_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\ufe20-\ufe2f"
_MARKED = re.compile(f"([A-Za-z\u00c0-\u024f\u0370-\u052f\u1e00-\u1fff])([{_MARKS}]+)")
_ACCENTS = frozenset(
    map(chr, [*range(0x300, 0x305), *range(0x306, 0x315), 0x31B, *range(0x323, 0x334), 0x358])
)
"""Of languages written in Latin, Greek or Cyrillic letters."""

_PLAIN = {
    letter: unicodedata.normalize("NFD", letter)[0]
    for letter in map(chr, [*range(0xC0, 0x250), *range(0x1E00, 0x1F00)])
    if unicodedata.normalize("NFD", letter)[0].isascii()
}
"""The letter below the marks, of Latin letters that are one character with them."""
_LATIN_MARKED = re.compile(f"[{''.join(_PLAIN)}][{_MARKS}]*|[A-Za-z][{_MARKS}]+")
_WORD = re.compile(f"(?:[A-Za-z{''.join(_PLAIN)}][{_MARKS}]*){{3,}}")
"""Not of formulas, where ẋ and p̂ are usual."""
_CONSONANT = re.compile("[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]")
_TELLING = frozenset(
    "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u0309\u030a\u030b\u030c\u030f"
)
"""Those below letters stand in transcriptions, below any letter."""
_WRITTEN = frozenset(["g̃", "l̃", "r̃", "q̇", "i̇", "j̇"])
"""Of Guarani, Lithuanian, Chechen and Turkish, though not one character."""
_UNWRITTEN = frozenset("ȧȯḣḱṕẗṽẇẘẏẙ")
"""Of no language's ordinary words, though one character."""


def bare_letters(text: str) -> Iterator[Edit]:
    """Letters with the accents that languages have: two on a letter at most."""
    if text.isascii():
        return
    for found in _MARKED.finditer(text):
        letter, marks = found[1], found[2]
        # counted first: to sort the marks of one letter takes the square of their number
        if len(unicodedata.normalize("NFD", letter)) + len(marks) > 3:
            yield *found.span(), letter
        elif _ACCENTS.issuperset(marks):
            yield *found.span(), unicodedata.normalize("NFC", found[0])
        else:
            yield *found.span(), letter


def unaccented(text: str) -> Iterator[Edit]:
    """Latin letters without marks, in a text whose marks are of no language."""
    if text.isascii() or not _is_overmarked(text):
        return
    for found in _LATIN_MARKED.finditer(text):
        yield *found.span(), _plain(found[0])


def _is_overmarked(text: str) -> bool:
    marked = Counter(
        letter.lower() for word in _WORD.findall(text) for letter in _LATIN_MARKED.findall(word)
    )
    unwritten = [number for letter, number in marked.items() if _is_unwritten(letter)]
    # a transcription can have one such letter, and a list of languages has more of the others
    num_kinds = 2 if marked.total() < 10 else 3
    if len(unwritten) >= num_kinds and sum(unwritten) * 5 >= marked.total():
        return True
    consonants = Counter({each: marked[each] for each in marked if _CONSONANT.match(_plain(each))})
    kinds = {mark for each in consonants for mark in unicodedata.normalize("NFD", each)[1:]}
    if consonants.total() < 6 or len(kinds) < 3:
        return False
    # nearly every letter that can have a mark has one: ţĥîš ŵöŕķš
    bare = _LATIN_MARKED.sub(lambda found: _plain(found[0]), text)
    return consonants.total() * 3 >= len(_CONSONANT.findall(bare)) * 2


def _is_unwritten(letter: str) -> bool:
    """Whether no language writes ordinary words with it."""
    if len(letter) == 1:
        return letter in _UNWRITTEN
    is_one_mark = len(letter) == 2 and letter[0].isascii()
    return (
        is_one_mark and letter[0] not in "mn" and letter[1] in _TELLING and letter not in _WRITTEN
    )


def _plain(letter: str) -> str:
    return _PLAIN.get(letter[0], letter[0])
