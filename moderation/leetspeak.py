"""Digits and symbols that stand for letters in words: h4te, k!ll, $tupid.

A word is changed where it is surely one; a name with digits in it (mp3, h264, covid19, 4x4, 2nd) is
not. Once a text has surely disguised words, the doubtful ones beside them (d13, th3) are read as
words too; and where many of its words can be read so, all of them are, with any symbol (t#e).
"""

import re
from collections.abc import Iterator

from moderation.edit import Edit

_SYMBOLS = "@$€!¡|"
_STANDS_FOR = str.maketrans("03457@$€!¡|", "oeastaseiil")
_BOLD_SYMBOLS = "+†#£¥*^&§µ×"
_STANDS_BOLDLY_FOR = str.maketrans(f"2689(<{_BOLD_SYMBOLS}", "zgbgcctthlyoaesux")
"""What is read so in a text alone that is surely disguised."""
_SHAPES = {"(_)": "u", "|<": "k", "|)": "d", "()": "o", "\\/": "v"}
_SHAPE = re.compile("|".join(map(re.escape, _SHAPES)))
_DISGUISE = re.compile(rf"[0-9{_SYMBOLS}{re.escape(_BOLD_SYMBOLS)}\\(<]")
_LETTER = r"[^\W\d_µ]"
_SYMBOL_WITHIN = re.compile(rf"{_LETTER}[{_SYMBOLS}]")
_ODD = re.compile(
    r"[€£¥§†¡µ](?:(?<={a}.)[{b}]|(?<={a}.){a}|(?<={a}[{b}].)|(?<=[{b}].){a}|[{b}]{a})".format(
        a=_LETTER, b="@$!+#|*^&("
    )
)
"""Symbols as they stand in words of no ordinary text."""
_SPELLS = re.compile(rf"{_LETTER}|^(?=(\D)(?!\1)(\D)(?!\1|\2)\D)")
"""A letter, or three different symbols: +#€."""
_READABLE = re.compile(r"(?:[^\W\d_]|['’])+")
_CHUNK = re.compile(r"\S+")
_TOKEN = re.compile(rf"(?:[^\W_]|[{_SYMBOLS}])+")
_GROUP = re.compile(r"[a-z]+|[^a-z]+")
_SPELT = re.compile(rf"[a-z013457{_SYMBOLS}]+")
_VOWEL = re.compile("[aeiouy]")
_ONE = re.compile(
    # an l, by how often i and l stand between two letters in English: he11, k111, he1p, b1ow, fi1m
    r"(?<=[aeou'’])11|(?<=[b-df-hj-np-tv-z]1)1+|(?<=[aeiou]l)1(?=[aeo]|$)"
    r"|(?<=a)1(?![dgmnr])|(?<=e)1(?![gnrt])|(?<=o)1(?![cnt])|(?<=u)1(?![cnr])|(?<=i)1|1(?=[iy])"
    r"|(?:^|(?<=[bp]))1(?=[aeou])|(?<=[cf])1(?=[ou])|(?<=[cgks])1(?=e)|(?<=g)1(?=a)|(?<=[dr])1$",
    re.IGNORECASE,
)
_NAME = re.compile(
    # file types and hashes; ordinals, units, sizes and years
    r"mp[34].*|md5.*|sha1.*|(?=(?:\D*\d){3})[0-9a-f]{8,}"
    r"|[mwft]4[mwft]|b4[nu]|w3c|[cn]h[34].*"
    r"|\d+(?:st|nd|rd|th|[a-z]{1,2}|min|mins|hrs?|day|star|ever)|\d+x\d+"
)
_BOLD_NAME = re.compile(rf"{_NAME.pattern}|[a-z]+\d*[268]\d*|[a-z]{{1,2}}\$|\d+µ.*|\w+\(\)")
"""Also utf8 and win32, US$, 5µs and f()."""


def plain_tokens(text: str) -> Iterator[Edit]:
    """Where words stand that are spelt with digits or symbols, and how they are spelt without."""
    if not _DISGUISE.search(text):
        return
    sure: list[Edit] = []
    doubtful: list[Edit] = []
    num_words = 0
    chunks: list[re.Match[str]] = []
    for chunk in _CHUNK.finditer(text):
        num_words += 1
        if not _DISGUISE.search(chunk[0]) or _is_address(chunk[0]):
            continue
        chunks.append(chunk)
        for found in _TOKEN.finditer(chunk[0]):
            word = found[0].rstrip("!")
            start = chunk.start() + found.start()
            if not word.isalpha() and (kind := _disguised(word)) is not None:
                spelt = (start, start + len(word), _plain(word))
                (sure if kind else doubtful).append(spelt)
    words = {text[start:end] for start, end, _ in sure}
    has_symbols = (not text.isascii() and bool(_ODD.search(text))) or any(
        _SYMBOL_WITHIN.search(word) for word in words
    )
    if has_symbols or len(words) > 1:
        bold = list(_boldly(chunks, _bold_token(text) if has_symbols else _TOKEN))
        is_full = max(len(sure), has_symbols) * 4 >= len(bold) or len(bold) * 4 >= num_words
        if is_full and len(bold) >= len(sure):
            yield from bold
            return
    yield from sorted(sure + doubtful) if 2 * len(sure) >= len(doubtful) else sure


def _bold_token(text: str) -> re.Pattern[str]:
    """Words with any symbol for a letter; of brackets, those that are not closed."""
    rest = _SHAPE.sub("", text)
    brackets = "".join(
        opening
        for opening, closing in ("()", "<>")
        if rest.count(opening) > 2 * rest.count(closing)
    )
    symbols = re.escape(f"{_SYMBOLS}{_BOLD_SYMBOLS}{brackets}")
    return re.compile(rf"(?:{_SHAPE.pattern}|[^\W_]|['’{symbols}])+")


def _boldly(chunks: list[re.Match[str]], token: re.Pattern[str]) -> Iterator[Edit]:
    """All that can be read as words, for a text that is surely disguised."""
    for chunk in chunks:
        for found in token.finditer(chunk[0]):
            word = found[0].rstrip("'’!").lstrip("'’")
            if word[:1] == word[-1:] == "*":  # emphasis
                word = word.strip("*")
            start = chunk.start() + found.start() + found[0].index(word)
            if word[:1] in ("@", "#") and word[1:].isalnum() and len(word) > 4:
                word, start = word[1:], start + 1  # a person's name, a subject
            if word.isalpha() or not _SPELLS.search(word) or _BOLD_NAME.fullmatch(word.lower()):
                continue
            shapes = _SHAPE.sub(lambda shape: _SHAPES[shape[0]], word)
            plain = _plain(shapes.translate(_STANDS_BOLDLY_FOR))
            if plain != word and _READABLE.fullmatch(plain):
                yield start, start + len(word), plain


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
    plain = word.translate(_STANDS_FOR)
    plain = _ONE.sub(lambda found: "l" * len(found[0]), plain).replace("1", "i")
    return plain.upper() if word.isupper() else plain
