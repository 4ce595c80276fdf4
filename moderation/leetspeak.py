"""Digits and symbols that stand for letters in words: h4te, k!ll, $tupid.

A word is changed where it is surely one; a name with digits in it (mp3, h264, covid19, 4x4, 2nd) is
not. Once a text has surely disguised words, the doubtful ones beside them (d13, th3) are read as
words too.
"""

import re
from collections.abc import Iterator

_SYMBOLS = "@$€!¡|"
_STANDS_FOR = str.maketrans("013457@$€!¡|", "oieastaseiil")
_DISGUISE = re.compile(rf"[0-9{_SYMBOLS}]")
_CHUNK = re.compile(r"\S+")
_TOKEN = re.compile(rf"(?:[^\W_]|[{_SYMBOLS}])+")
_GROUP = re.compile(r"[a-z]+|[^a-z]+")
_SPELT = re.compile(rf"[a-z013457{_SYMBOLS}]+")
_VOWEL = re.compile("[aeiouy]")
_ONE = re.compile(
    # an l: he11, ki1l, kil1; 1ove
    r"(?<=[aeiouAEIOU034@])(?:11|1(?=[lL|]))|(?<=[lL])1|^1(?=[aeiouAEIOU034@])"
)
_NAME = re.compile(
    # file types and hashes; ordinals, units, sizes and years
    r"mp[34].*|md5.*|sha1.*|(?=(?:\D*\d){3})[0-9a-f]{8,}"
    r"|[mwft]4[mwft]|b4[nu]|w3c|[cn]h[34].*"
    r"|\d+(?:st|nd|rd|th|[a-z]{1,2}|min|mins|hrs?|day|star|ever)|\d+x\d+"
)


def plain_tokens(text: str) -> Iterator[tuple[int, int, str]]:
    """Where words stand that are spelt with digits or symbols, and how they are spelt without."""
    if not _DISGUISE.search(text):
        return
    sure: list[tuple[int, int, str]] = []
    doubtful: list[tuple[int, int, str]] = []
    for chunk in _CHUNK.finditer(text):
        if not _DISGUISE.search(chunk[0]) or _is_address(chunk[0]):
            continue
        for found in _TOKEN.finditer(chunk[0]):
            word = found[0].rstrip("!")
            start = chunk.start() + found.start()
            if not word.isalpha() and (kind := _disguised(word)) is not None:
                spelt = (start, start + len(word), _plain(word))
                (sure if kind else doubtful).append(spelt)
    yield from sorted(sure + doubtful) if 2 * len(sure) >= len(doubtful) else sure


def _is_address(chunk: str) -> bool:
    return "://" in chunk or chunk.startswith("www.") or "." in chunk.partition("@")[2]


def _disguised(word: str) -> bool | None:
    """Whether it is surely a word that is disguised; None where it is none."""
    lower = word.lower()
    groups = _GROUP.findall(lower)
    num_letters = sum(len(group) for group in groups if group.isalpha())
    if not _SPELT.fullmatch(lower) or _NAME.fullmatch(lower):
        return None
    if not num_letters or num_letters * 2 < len(word) - 1:
        return None
    if word[0] == "@" and len(word) > 4:
        word, groups = word[1:], groups[1:]  # a person's name
        if word.isalpha():
            return None
    is_lower = word[1:] == word[1:].lower()
    before = ""
    for index, group in enumerate(groups):
        if not group.isalpha():
            after = groups[index + 1] if index + 1 < len(groups) else ""
            if _is_sure(group, before, after, is_lower=is_lower, is_loud=word.isupper()):
                return True
        before += group
    return False


def _is_sure(group: str, before: str, after: str, *, is_lower: bool, is_loud: bool) -> bool:
    """Whether digits or symbols are surely letters.

    Args:
        group: the same twice at most, or it is not sure.
        before: all of the word before it.
        after: the letters behind it.
        is_lower: whether the word has no capital behind its first letter.
        is_loud: whether it is all capitals.
    """
    if len(group) > 2 or len(set(group)) > 1:
        return False
    if before and after:
        if group in "@!":  # no address of two words, and no sentence that ends
            return not _VOWEL.search(before)
        if group.isdigit():
            # in capitals it is often the name of a thing: CH3OH, SW1A
            return is_lower or (is_loud and len(after) > 1)
        return group[0] in "$€"
    if group[0] == "$":  # no variable, no currency
        return is_lower and len(after or before) > (2 if after else 1)
    return bool(before) and is_lower and group in ("@", "€") and len(before) > 2


def _plain(word: str) -> str:
    ones = _ONE.sub(lambda found: "l" * len(found[0]), word)
    plain = ones.translate(_STANDS_FOR)
    return plain.upper() if word.isupper() else plain
