"""Letters that look like Latin ones, and where in a text they stand for a Latin letter.

A table of this project's own, of letters that people disguise words with. Real Russian, Greek or
Armenian stays as it is: a letter is replaced inside a word that mixes scripts, or in a word of
nothing but look-alikes in a text that has no other letter of those scripts.
"""

import re
from collections.abc import Iterator


def _table(letters: str, latin: str) -> dict[str, str]:
    return dict(zip(letters, latin, strict=True))


_TWINS = _table("аеорсухіјѕһԁԛԝАВЕКМНОРСТХУІЈЅԌԜ", "aeopcyxijshdqwABEKMHOPCTXYIJSGW")
"""Cyrillic letters that cannot be told from Latin ones; Russian is disguised with those."""
_SIMILAR = _table("ктмвнпгияшьԚёЁѐїЇ", "ktmbhnrurwbQeEeiI")
"""Cyrillic letters that are taken for Latin ones in the middle of a Latin word."""
_GREEK = _table("οανρτυικχεηΑΒΕΖΗΙΚΜΝΟΡΤΥΧϲϳ", "oavptuikxenABEZHIKMNOPTYXcj")
_ARMENIAN = _table("օսոհցզՕՍ", "ounhgqOU")
_CHEROKEE = _table("ᎠᎡᎢᎪᎫᎬᎳᎷᎻᏀᏃᏚᏟᏢᏦᏴᏞᏙ", "DRTAJEWMHGZSCPKBLV")
_LISU = _table("ꓮꓐꓚꓓꓰꓝꓖꓧꓲꓙꓗꓡꓟꓠꓳꓑꓣꓢꓔꓴꓦꓪꓫꓬꓜ", "ABCDEFGHIJKLMNOPRSTUVWXYZ")
_SMALL = _table("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɑɡɩ", "abcdefghijklmnoprstuvwyzagi")
LATIN = {**_SIMILAR, **_TWINS, **_GREEK, **_ARMENIAN, **_CHEROKEE, **_LISU, **_SMALL}
"""The Latin letter that each stands for."""
_TO_CYRILLIC = {latin: twin for twin, latin in _TWINS.items()}
_TO_LATIN = str.maketrans(LATIN)
_FROM_LATIN = str.maketrans(_TO_CYRILLIC)

_LOOK_ALIKE = re.compile(f"[{''.join(LATIN)}]")
_WORD = re.compile(r"[^\W_]+")
_LATIN_LETTER = re.compile("[A-Za-z]")
# letters that are of one script for certain; replacing twins changes neither count
_SURELY_LATIN = re.compile(f"(?![{''.join(_TO_CYRILLIC)}])[A-Za-z]")
_SURELY_OTHER = re.compile(
    f"(?![{''.join([*_TWINS, *_GREEK, *_ARMENIAN, *_CHEROKEE])}])"
    "[\u0370-\u03ff\u0400-\u052f\u0531-\u0587\u13a0-\u13ff]"
)


def undisguised_words(text: str) -> Iterator[tuple[int, int, str]]:
    """Where words stand that are spelt with look-alikes, and how they are spelt without."""
    if text.isascii() or not _LOOK_ALIKE.search(text):
        return
    num_latin = sum(1 for _ in _SURELY_LATIN.finditer(text))
    num_other = sum(1 for _ in _SURELY_OTHER.finditer(text))
    for found in _WORD.finditer(text):
        word = found[0]
        if not word.isascii() and _LOOK_ALIKE.search(word):
            plain = _undisguised(word, num_latin, num_other)
            if plain != word:
                yield found.start(), found.end(), plain


def _undisguised(word: str, num_latin: int, num_other: int) -> str:
    if not all(letter in LATIN or letter.isascii() for letter in word):
        if num_other <= num_latin or not _LATIN_LETTER.search(word):
            return word
        return _cyrillic(word)
    letters = [letter for letter in word if letter.isalpha()]
    if _LATIN_LETTER.search(word):
        if num_other > num_latin and (cyrillic := _cyrillic(word)) != word:
            return cyrillic
        # "νx" and "αs" of formulas are no words
        return word.translate(_TO_LATIN) if len(letters) > 2 else word
    if all(letter in _SMALL for letter in letters):
        return word.translate(_TO_LATIN) if len(letters) > 1 else word
    of_latin_text = num_latin > 0 and num_other == 0 and len(letters) > 1
    # a Greek word in a text on Greek is Greek
    if of_latin_text and not any(letter in _GREEK for letter in letters):
        return word.translate(_TO_LATIN)
    return word


def _cyrillic(word: str) -> str:
    """A Russian word spelt with some Latin letters; the word itself where it is none."""
    latin = _LATIN_LETTER.findall(word)
    others = [letter for letter in word if letter.isalpha() and not letter.isascii()]
    if len(latin) > len(others) or not all(letter in _TO_CYRILLIC for letter in latin):
        return word
    if not all("\u0400" <= letter <= "\u052f" for letter in others):
        return word
    return word.translate(_FROM_LATIN)
