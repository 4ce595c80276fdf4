"""What a request holds beside its messages: definitions of tools, and fields that nobody here knows
but the upstream may."""

from collections.abc import Collection, Mapping
from typing import Any

from moderation.content import Content
from policies import Surface
from service.gate.dialects.dialect import Item, Json, parts_of
from service.gate.strings import strings

_NAMES = frozenset(
    {
        "encoding_format",
        "grammar_type",
        "modalities",
        "mode",
        "model",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "role",
        "safety_identifier",
        "service_tier",
        "tool_choice",
        "type",
        "user",
        "verbosity",
    }
)
"""Fields that hold names, not content."""

_NOT_READ = frozenset({"logit_bias", "stop"})
"""Compared with what is generated; no model reads them and no answer holds them."""

_SCHEMA = frozenset(
    {
        "$defs",
        "$ref",
        "$schema",
        "additionalProperties",
        "allOf",
        "anyOf",
        "const",
        "default",
        "description",
        "enum",
        "examples",
        "format",
        "function",
        "items",
        "maximum",
        "maxItems",
        "maxLength",
        "minimum",
        "minItems",
        "minLength",
        "name",
        "oneOf",
        "parameters",
        "pattern",
        "properties",
        "required",
        "strict",
        "title",
        "type",
    }
)
"""Words of JSON schema; other keys in a tool were chosen by somebody, and the model reads them."""


def item_of_tools(tools: Mapping[str, Any]) -> Item | None:
    """The definitions of tools as one content; None where there are none."""
    found = strings(list(tools.values()), names={"type"}, keys=_SCHEMA)
    return _item("tools", [leaf.text for leaf in found])


def item_of_other_fields(body: Json, *, known: Collection[str]) -> Item | None:
    """All texts of the other fields as one content; None where there are none.

    Args:
        body: of the request.
        known: fields that are looked at elsewhere.
    """
    rest = {k: v for k, v in body.items() if k not in known and k not in _NOT_READ}
    return _item("other fields", [leaf.text for leaf in strings(rest, names=_NAMES)])


def _item(where: str, texts: list[str]) -> Item | None:
    parts = parts_of("\n".join(texts))
    return Item(where, Content(surface=Surface.PROMPT, parts=parts)) if parts else None
