"""Letters that look like Latin ones, and where in a text they stand for a Latin letter.

A table of this project's own: the letters that Unicode's list of confusables takes for one ASCII
letter, and more that people disguise words with. Real Russian, Greek or Armenian stays as it is: a
letter is replaced inside a word that mixes scripts, or in a word of nothing but look-alikes in a
text that has no other letter of those scripts.
"""

import re
from collections.abc import Iterator
from string import ascii_letters

from moderation.edit import Edit


def _table(letters: str, latin: str) -> dict[str, str]:
    return dict(zip(letters, latin, strict=True))


_TWINS = _table("аеорсухіјѕһԁԛԝАВЕКМНОРСТХУІЈЅԌԜ", "aeopcyxijshdqwABEKMHOPCTXYIJSGW")
"""Cyrillic letters that cannot be told from Latin ones; Russian is disguised with those."""
_SIMILAR = _table("ктмвнпгияшьԚёЁѐїЇЬєүҮҽӏӀ", "ktmbhnrurwbQeEeiIbeyYell")
"""Cyrillic letters that are taken for Latin ones in the middle of a Latin word."""
_GREEK = _table("οανρτυικχεηΑΒΕΖΗΙΚΜΝΟΡΤΥΧϲϳϱϹϺϜͿϒᴦ", "oavptuikxenABEZHIKMNOPTYXcjpCMFJYr")
_ARMENIAN = _table("օսոհցզռգաքՕՍՏ", "ounhgqnqwfOUS")
_CHEROKEE = _table("ᎠᎡᎢᎪᎫᎬᎳᎷᎻᏀᏃᏚᏟᏢᏦᏴᏞᏙᎥᎩᎽᏂᏏᏒᏔᏕᏧᏳꭵꮁꮃꮓꮩꮪꮯ", "DRTAJEWMHGZSCPKBLViYYhbRWSdGirwzvsc")
_LISU = _table("ꓮꓐꓚꓓꓰꓝꓖꓧꓲꓙꓗꓡꓟꓠꓳꓑꓣꓢꓔꓴꓦꓪꓫꓬꓜꓒ", "ABCDEFGHIJKLMNOPRSTUVWXYZd")
_CANADIAN = _table("ᐯᑌᑭᑯᑲᒍᒪᕁᕼᕽᖇᖯᖴᗅᗞᗪᗰᗷᗩᑕᑎᑫᔕᗯ", "VUPdbJLxHxRbFADDMBACNqSW")
_COPTIC = _table("ⲅⲎⲒⲔⲘⲚⲞⲟⲢⲣⲤⲥⲦⲨⲬⳐ", "rHIKMNOoPpCcTYXL")
_OLD_CYRILLIC = _table("ѡѵѴꙇ", "wvVi")
_OTHERS = _table(
    # Runes, Tifinagh, Georgian, Ethiopic, Indian and Burmese, Bamum;
    # alphabets of antiquity and of Elbasan; Deseret, Osage, Ahom, Warang Citi, Miao
    "ᚷᛁᛕᛖⴸⴹⵏⵔⵕⵝყჿሀዐଠഠဝꛟ𐊂𐊆𐊇𐊊𐊐𐊒𐊕𐊖𐊗𐊠𐊡𐊢𐊥𐊫𐊰𐊱𐊲𐊴𐋏𐌁𐌂𐌉𐌑𐌕𐌗𐔓𐔖𐔘𐔜𐔝𐔥𐔦𐔧"
    "𐐄𐐕𐐛𐐠𐐬𐐽𐑈𐒴𐓂𐓎𐓪𐓶𑜀𑜆𑜊𑜎𑜏𑢠𑢢𑢣𑢤𑢦𑢩𑢮𑢲𑢵𑢸𑢼𑣀𑣁𑣂𑣃𑣄𑣈𑣗𑣘𑣜𖼈𖼊𖼖𖼨𖼵𖼺𖽀𖽂𖽃",
    "XlKMVElOQXyoUOOooVBEFlXOPSTABCFOMTYXHBClMTXNOKCVFLX"
    "OCLSocsROUoumvwwwVFLYEZELOUTvsFizoouyVTLlRSAUY",
)
_SMALL = _table(
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɑɡƍƄƅƦƽᴑᶃᶌẝỿꞘꞙꞟꞲꞳꞴꬲꬵꬽꭇꭈꭎꭒꭚ",
    "abcdefghijklmnoprstuvwyzaggbbRsogyfyFfuJXBeforruuy",
)
"""Latin letters of phonetics and fonts, which no language writes ordinary words with."""
_NUMERALS = _table("ⅰⅴⅹⅼⅽⅾⅿⅠⅤⅩⅬⅭⅮⅯ", "ivxlcdmIVXLCDM")
_TABLES = (
    *(_TWINS, _SIMILAR, _OLD_CYRILLIC, _GREEK, _ARMENIAN, _CHEROKEE, _LISU, _CANADIAN),
    *(_COPTIC, _OTHERS, _SMALL, _NUMERALS),
)
LATIN = {letter: latin for table in _TABLES for letter, latin in table.items()}
"""The Latin letter that each stands for."""
_IN_COMPANY = _table("ıſƒɩƖɣʋɯǀγσω", "isfilyuwlyow")
"""Those that stand for another only beside one of another script. Turkish, old prints, Ewe, Kabiyè,
Mooré and Khoekhoe write ordinary words with them, formulas Greek ones. Letters with a stroke (ł, đ)
or a mark are not on Unicode's list: those stay."""
_TO_LATIN = str.maketrans({**LATIN, **_IN_COMPANY})
_TO_CYRILLIC = {latin: twin for twin, latin in _TWINS.items() if twin not in "һԁԛԝԌԜ"}
"""Of letters that Slavic languages write with."""
_FROM_LATIN = str.maketrans(_TO_CYRILLIC)

_LATIN_BEYOND_ASCII = (*map(chr, [*range(0xC0, 0x250), *range(0x1E00, 0x1F00)]), *_IN_COMPANY)
_SCRIPTS: dict[str, str] = {
    **dict.fromkeys(LATIN, "other"),
    **dict.fromkeys([*_TWINS, *_SIMILAR, *_OLD_CYRILLIC], "cyrillic"),
    **dict.fromkeys(_GREEK, "greek"),
    **dict.fromkeys(_ARMENIAN, "armenian"),
    **dict.fromkeys([*ascii_letters, *_LATIN_BEYOND_ASCII, *_SMALL, *_NUMERALS], "latin"),
}
_LOOK_ALIKE = re.compile(f"[{''.join(LATIN)}]")
_MAY_LOOK_ALIKE = re.compile(f"[{''.join([*LATIN, *_IN_COMPANY])}]")
_WORD = re.compile(r"[^\W_]+")
_BEHIND_NAMES = "ⅠⅤⅩ"
"""Numerals that stand behind other words: TypeⅠ."""
_LATIN_LETTER = re.compile("[A-Za-z]")
# letters that are of one script for certain; replacing twins changes neither count
_SURELY_LATIN = re.compile(f"(?![{''.join(_TO_CYRILLIC)}])[A-Za-z]")
_SURELY_OTHER = re.compile(
    "[\u0370-\u03ff\u0400-\u052f\u0531-\u0587\u0b05-\u0b39\u0d05-\u0d39\u1000-\u137f\u13a0-\u16ff"
    "\u2c80-\u2d7f\ua4d0-\ua4f7\ua6a0-\ua6e5\uab70-\uabbf\U00010280-\U00016fff]"
    f"(?<![{''.join(frozenset(LATIN) - frozenset(_SIMILAR))}])"
)


def undisguised_words(text: str) -> Iterator[Edit]:
    """Where words stand that are spelt with look-alikes, and how they are spelt without."""
    if text.isascii() or not _LOOK_ALIKE.search(text):
        return
    num_latin = sum(1 for _ in _SURELY_LATIN.finditer(text))
    num_other = 0  # in words without Latin letters
    num_mixed = 0
    words: list[tuple[int, str]] = []
    for found in _WORD.finditer(text):
        word = found[0].rstrip(_BEHIND_NAMES)
        if word.isascii():
            continue
        if not _LATIN_LETTER.search(word):
            num_other += len(_SURELY_OTHER.findall(word))
        if _MAY_LOOK_ALIKE.search(word):
            words.append((found.start(), word))
            num_mixed += _is_mixed(word)
    is_bold = num_mixed >= 3 and num_mixed * 2 >= len(words)
    for start, word in words:
        plain = _undisguised(word, num_latin, num_other, is_bold=is_bold)
        if plain != word:
            yield start, start + len(word), plain


def _is_mixed(word: str) -> bool:
    """Whether it has letters of more than one script; Greek and Latin are mixed in formulas."""
    scripts = {_SCRIPTS[letter] for letter in word if letter in _SCRIPTS}
    return len(scripts) > 1 and scripts != {"latin", "greek"}


def _undisguised(word: str, num_latin: int, num_other: int, *, is_bold: bool) -> str:
    """The word itself where it is none.

    Args:
        num_latin: how many letters of the text are Latin for certain.
        num_other: how many are of another script.
        is_bold: whether so many words of the text are disguised that doubtful ones are, too.
    """
    has_latin = bool(_LATIN_LETTER.search(word))
    if has_latin and num_other + len(_SURELY_OTHER.findall(word)) > num_latin:
        cyrillic = _cyrillic(word)
        if cyrillic != word:
            return cyrillic
    is_sure = (is_bold or _is_mixed(word)) and num_latin > num_other
    if not all(
        letter in LATIN or letter.isascii() or (is_sure and _SCRIPTS.get(letter) == "latin")
        for letter in word
    ):
        return word
    letters = [letter for letter in word if letter in _SCRIPTS]
    if is_sure:
        is_word = is_bold or len(letters) > 1
    elif has_latin:
        is_word = len(letters) > 2  # "νx" and "αs" of formulas are none
    elif all(letter in _SMALL for letter in letters):
        is_word = len(letters) > 1
    else:
        # a Greek word in a text on Greek is Greek, and a numeral a numeral
        is_word = len(letters) > 1 and num_latin > 0 and num_other == 0
        is_word = is_word and {"greek", "latin"}.isdisjoint(map(_SCRIPTS.__getitem__, letters))
    return word.translate(_TO_LATIN) if is_word else word


def _cyrillic(word: str) -> str:
    """A Russian word spelt with some Latin letters; the word itself where it is none."""
    latin = _LATIN_LETTER.findall(word)
    others = [letter for letter in word if letter.isalpha() and not letter.isascii()]
    if len(latin) > len(others) or not all(letter in _TO_CYRILLIC for letter in latin):
        return word
    if not all("\u0400" <= letter <= "\u052f" for letter in others):
        return word
    return word.translate(_FROM_LATIN)
