"""Holds a document against the schema, and words what is wrong for the person who wrote it.

Pydantic's own messages name union branches and validators; here each problem reads
`file:line: key: what was expected, what was found`.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from policies.document import Document
from policies.errors import PolicyFileError
from policies.schema import (
    MANY,
    ONE,
    ActionThresholds,
    Example,
    Policy,
    PolicyRule,
    PolicySet,
    SurfaceDefinitions,
)

_UNDER: dict[str, type[BaseModel]] = {
    "definition": SurfaceDefinitions,
    "examples": Example,
    "policies": PolicyRule,
    "threshold": ActionThresholds,
}
"""The shape of what stands under a key."""

_WORDS = {
    "missing": "this key is missing",
    "string_type": "expected a text",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "model_type": "expected a mapping",
    "string_too_short": "expected a text that is not empty",
    "too_short": "expected at least one entry",
    "string_pattern_mismatch": "expected a lower-case letter, then those, digits and _",
    "string_unicode": "expected Unicode text, found half a surrogate pair",
    "invalid_key": "keys are texts",
}
"""By pydantic's name of the problem; the others read well as they are."""

_SHOW_FOUND = frozenset(
    {"string_type", "int_type", "float_type", "bool_type", "tuple_type", "model_type", "enum"}
    | {"greater_than", "greater_than_equal", "less_than", "literal_error"}
    | {"string_pattern_mismatch", "definition_shape", "threshold_shape"}
    | {"refusal_shape"}
)


def validate(document: Document) -> Policy | PolicySet:
    """The policy or policy set that a document holds.

    Raises:
        PolicyFileError: the document breaks the schema; `more` holds all further problems.
    """
    model: type[Policy] | type[PolicySet] = PolicySet if _is_set(document.data) else Policy
    try:
        return model.model_validate(document.data)
    except ValidationError as exc:
        # a key that is missing is often one that is misspelt: the misspelling comes first
        errors = sorted(exc.errors(), key=lambda error: error["type"] == "missing")
        first, *rest = [_problem(document, model, error) for error in errors]
        raise first.with_more(tuple(rest)) from exc


def _is_set(names: Iterable[object]) -> bool:
    """A set has `policies`; the keys of a file decide even where one of them is misspelt."""
    of_set = PolicySet.model_fields.keys() - Policy.model_fields.keys()
    of_policy = Policy.model_fields.keys() - PolicySet.model_fields.keys()
    own = [*of_set, *of_policy]
    meant = {close for name in names for close in get_close_matches(str(name), own, n=1)}
    return "policies" in meant or len(meant & of_set) > len(meant & of_policy)


def _problem(document: Document, model: type[BaseModel], error: ErrorDetails) -> PolicyFileError:
    location = [step for step in error["loc"] if step not in (ONE, MANY)]
    location += error.get("ctx", {}).get("at", ())
    return PolicyFileError(
        document.path,
        document.line_of(location),
        _message(error, location, model),
        key=_dotted(location),
    )


def _message(error: ErrorDetails, location: Sequence[int | str], model: type[BaseModel]) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(str(location[-1]), location[:-1], model)
    if kind in _WORDS:
        message = _WORDS[kind]
    else:
        message = error["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "expected", 1)
        message = re.sub("^expected (greater|less)", r"expected a number \1", message)
    if kind in _SHOW_FOUND:
        message += f", found {_shown(error['input'])}"
    if kind == "string_type" and isinstance(error["input"], bool | int | float):
        message += "; put it in quotes"  # YAML reads no, on and 2024 as something else than text
    return message


def _unknown_key(name: str, parents: Sequence[int | str], model: type[BaseModel]) -> str:
    for step in parents:
        model = _UNDER.get(str(step), model)
    known = list(model.model_fields)
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key; {hint}known: {', '.join(known)}"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else "a long text"
    return "a list" if isinstance(value, list) else "a mapping"


def _dotted(location: Sequence[int | str]) -> str:
    """`policies[2].threshold.block`."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
