"""Whatever is text in a JSON value is found, and what escapes hide is read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gate.strings import MAX_ESCAPE_CHARS, Leaf, decoded, joined, strings, unescaped

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def every_text(value: object) -> list[str]:
    """All texts and keys of a value, found in another way: from the tokens of its JSON."""
    found: list[str] = []
    json.loads(
        json.dumps(value, ensure_ascii=False),
        object_pairs_hook=lambda pairs: found.extend(
            [key for key, _ in pairs] + [v for _, v in pairs if isinstance(v, str)]
        ),
    )
    lists: list[object] = [value]
    while lists:
        top = lists.pop()
        for element in (
            top if isinstance(top, list) else top.values() if isinstance(top, dict) else ()
        ):
            if isinstance(top, list) and isinstance(element, str):
                found.append(element)
            lists.append(element)
    return sorted(text for text in [*found, *([value] if isinstance(value, str) else [])] if text)


@given(value=JSON)
def test_every_text_and_every_key_is_found(value: object) -> None:
    assert sorted(leaf.text for leaf in strings(value, keys=())) == every_text(value)


@given(value=JSON)
def test_of_keys_only_what_looks_like_one_is_left_out(value: object) -> None:
    found = [leaf.text for leaf in strings(value)]
    left_out = [
        text for text in every_text(value) if found.count(text) < every_text(value).count(text)
    ]
    assert all(text.isascii() and " " not in text and len(text) <= 64 for text in left_out)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"id": "chatcmpl-1"}, []),
        ({"id": "a sentence for an id"}, ["a sentence for an id"]),
        ({"id": "x" * 129}, ["x" * 129]),
        ({"id": "line\n"}, ["line\n"]),
        ({"id": ["chatcmpl-1"]}, ["chatcmpl-1"]),
        ({"other": "chatcmpl-1"}, ["chatcmpl-1"]),
        ({"": ""}, []),
    ],
)
def test_a_name_is_no_content_while_it_looks_like_one(value: object, found: list[str]) -> None:
    assert [leaf.text for leaf in strings(value, names={"id"})] == found


def test_in_what_a_model_wrote_nothing_is_a_name() -> None:
    value = {"id": "a", "arguments": {"id": "b", "c": {"d": 1}}, "e": {"f": 2}}
    found = [leaf.text for leaf in strings(value, names={"id"}, chosen={"arguments"})]
    assert found == ["id", "b", "c", "d"]


def test_pieces_of_one_text_share_their_path() -> None:
    first = [{"index": 3, "text": "a"}, {"index": 1, "text": "b"}]
    again = [{"index": 1, "text": "c"}]
    where = [leaf.where for leaf in strings({"calls": first})]
    assert where == ["calls[3].text", "calls[1].text"]
    assert [leaf.where for leaf in strings({"calls": again})] == ["calls[1].text"]
    assert Leaf(("a", 0, "b"), "").where == "a[0].b"


@given(text=TEXTS, ascii_only=st.booleans())
def test_escapes_are_read_as_json_reads_them(text: str, ascii_only: bool) -> None:
    written = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    read = json.loads(f'"{written}"')
    for escape, space in (("\b", " "), ("\f", " "), ("\r", "\n")):
        read = read.replace(escape, space)
    assert unescaped(written).replace("\r", "\n") == read
    assert len(written) <= MAX_ESCAPE_CHARS * max(1, len(text))


@given(text=TEXTS, data=st.data())
def test_a_beginning_reads_the_same_up_to_an_unfinished_escape(
    text: str, data: st.DataObject
) -> None:
    written = json.dumps(text)[1:-1]
    cut = data.draw(st.integers(0, len(written)))
    whole, begun = unescaped(written), unescaped(written[:cut])
    common = next(
        (i for i, (a, b) in enumerate(zip(whole, begun, strict=False)) if a != b),
        min(len(whole), len(begun)),
    )
    assert len(begun) - common < MAX_ESCAPE_CHARS


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\\ud83d\\ude00", "😀"),
        ("\ud83d\ude00", "😀"),
        ("\\ud83d", "\ufffd"),
        ("\\u00", "\\u00"),
        ("\\\\u0041", "\\u0041"),
        ("a\\", "a\\"),
    ],
)
def test_halves_and_unfinished_escapes(written: str, read: str) -> None:
    assert unescaped(written) == read


def test_outside_json_only_coded_letters_are_read() -> None:
    assert decoded("C:\\bomb \\frac \\u0042AD \\ud83d\\ude00") == "C:\\bomb \\frac BAD 😀"
    assert joined("\ud83d") == "\ufffd"
