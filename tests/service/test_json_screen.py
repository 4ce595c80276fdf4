"""What a small body can make of a large machine: counted before anything is built of it."""

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.json_screen import has_more_pieces
from service.schemas import Body, ChatRequest, ModerationRequest
from tests.service.scripted import RecitingGenerator, error_of, serving

MANY = 120_000

hostile = {
    "stop of integers": ("/v1/chat/completions", b'"stop":[1' + b",1" * MANY + b"]"),
    "modalities of integers": ("/v1/chat/completions", b'"modalities":[1' + b",1" * MANY + b"]"),
    "unknown keys": ("/v1/moderations", b'"x":1' + b"".join(b',"%x":1' % n for n in range(MANY))),
    "empty lists": ("/v1/moderations", b'"input":[[]' + b",[]" * MANY + b"]"),
    "metadata": ("/v1/chat/completions", b'"metadata":[{"":[]}' + b',{"":[]}' * MANY + b"]"),
}


@pytest.mark.parametrize("name", hostile)
def test_a_body_of_too_many_pieces_is_refused_before_it_is_parsed(name: str) -> None:
    path, fields = hostile[name]
    with serving(generator=RecitingGenerator(), max_body_bytes=8 * 2**20) as url:
        error = error_of(httpx.post(url + path, content=b"{" + fields + b"}", timeout=30), 400)
    assert error["code"] == "body_too_complex"
    assert "100000" in error["message"]


@pytest.mark.parametrize(
    ("model", "field"),
    [(ChatRequest, "stop"), (ChatRequest, "messages"), (ModerationRequest, "policies")],
)
def test_after_the_first_wrong_entry_no_other_is_looked_at(model: type[Body], field: str) -> None:
    raw = json.dumps({"input": "", "messages": [{"role": "user"}], field: [1] * 1000})
    with pytest.raises(ValidationError, match=field) as caught:
        model.model_validate_json(raw)
    found = [error for error in caught.value.errors() if error["loc"][0] == field]
    assert len(found) <= 2, "one entry, and at most what it makes of the length"


def test_a_stop_may_be_one_text_or_several() -> None:
    messages = [{"role": "user", "content": "x"}]
    for stop, read in (("a", ("a",)), (["a", "b"], ("a", "b")), (None, None)):
        raw = json.dumps({"messages": messages, "stop": stop})
        assert ChatRequest.model_validate_json(raw).stop == read


def test_a_prose_of_many_commas_is_one_piece() -> None:
    prose = '"well", he said: [sic], {so}, \\, and so on, '
    with serving(max_body_bytes=8 * 2**20) as url:
        response = httpx.post(f"{url}/v1/moderations", json={"input": prose * 25_000}, timeout=30)
    assert error_of(response, 400)["code"] == "content_too_long", "read, and judged by its length"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a,:[{"\\ \n\u20ac'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('b,:[{"\\'), inner),
    max_leaves=30,
)


def pieces(value: object) -> int:
    """Strings, commas, colons and opening brackets, counted on the parsed value."""
    if isinstance(value, str):
        return 1
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(pieces, value))
    if isinstance(value, dict):
        inside = sum(2 + pieces(item) for item in value.values())
        return 1 + max(0, len(value) - 1) + inside
    return 0


@given(value=json_values, indent=st.sampled_from([None, 2]))
def test_pieces_are_counted_outside_of_texts_only(value: object, indent: int | None) -> None:
    raw = json.dumps(value, indent=indent).encode()
    found = pieces(value)
    assert not has_more_pieces(raw, found)
    assert found == 0 or has_more_pieces(raw, found - 1)


@given(raw=st.binary() | st.text('"\\,[').map(str.encode))
def test_bytes_that_are_no_json_are_counted_too(raw: bytes) -> None:
    assert not has_more_pieces(raw, len(raw))
