"""What a request to `/v1/responses` holds: instructions, items of input, variables of a prompt."""

import re
from collections.abc import Iterator
from typing import Any

from moderation.content import Content
from policies import Surface
from service.errors import BadRequest, UnsupportedInput
from service.gate.dialects.dialect import (
    SYSTEM_ROLES,
    Item,
    Json,
    Path,
    entries,
    list_of_objects,
    parts_of,
)
from service.gate.dialects.other_fields import item_of_other_fields, item_of_tools
from service.gate.dialects.parts import (
    NAMES,
    File,
    Text,
    lines,
    places_of,
    read_parts,
    remote_files_of,
)
from service.gate.history import History
from service.gate.strings import Leaf, strings, unescaped
from service.remote_files import RemoteFile

_WITH_PARTS = {
    "message": "content",
    "function_call_output": "output",
    "custom_tool_call_output": "output",
    "computer_call_output": "output",
}
"""Items that may hold files, and the field that holds them."""
_ITEMS = _WITH_PARTS.keys() | {
    "apply_patch_call",
    "apply_patch_call_output",
    "code_interpreter_call",
    "computer_call",
    "custom_tool_call",
    "file_search_call",
    "function_call",
    "item_reference",
    "local_shell_call",
    "local_shell_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
    "reasoning",
    "shell_call",
    "shell_call_output",
    "web_search_call",
}
_ITEM_NAMES = NAMES | {"approval_request_id", "call_id", "item_id", "phase", "status"}
_OPAQUE = re.compile(r"[A-Za-z0-9+/=_-]*")
_MAKE_FILES = frozenset({"image_generation"})
"""Tools whose results cannot be judged in an answer."""


def read_items(body: Json, history: History) -> list[Item]:
    """See `Dialect.items`; refuses what refers to content that `history` does not know."""
    _refuse_unchecked(body, history)
    items = [
        *_item("instructions", _instructions(body.get("instructions")), [], is_system=True),
        *_input_items(body, history),
        *_variables(body),
    ]
    rest = {**body, "prompt": _without(body.get("prompt"), "variables")}
    tools = item_of_tools({"tools": body.get("tools")})
    others = item_of_other_fields(rest, known=("input", "instructions", "tools"))
    return [*items, *(item for item in (tools, others) if item is not None)]


def remote_files_in(body: Json) -> Iterator[RemoteFile]:
    """See `Dialect.remote_files`."""
    for index, entry in enumerate(entries(body.get("input"))):
        kind = _kind_of(entry)
        name = _WITH_PARTS.get(kind, "") if isinstance(kind, str) else ""
        yield from remote_files_of(_listed(entry.get(name)), f"input[{index}].{name}")
    prompt = body.get("prompt")
    variables = prompt.get("variables") if isinstance(prompt, dict) else None
    for name, value in variables.items() if isinstance(variables, dict) else ():
        yield from remote_files_of(_listed(value), _name_of_variable(name))


def asked_of(body: Json) -> str | None:
    """The last user's text."""
    if isinstance(text := body.get("input"), str):
        return text or None
    for item in reversed(entries(body.get("input"))):
        if item.get("role") == "user":
            texts, _ = read_parts(item.get("content"), "input")
            if text := lines(texts):
                return text
    return None


def is_opaque(leaf: Leaf) -> bool:
    """Whether only the upstream can read a text, and only where it wrote it."""
    return leaf.path[-1:] == ("encrypted_content",) and _OPAQUE.fullmatch(leaf.text) is not None


def _refuse_unchecked(body: Json, history: History) -> None:
    if body.get("background"):
        raise UnsupportedInput(
            "an answer in the background would be fetched past the gate; leave it out",
            param="background",
        )
    for name in ("previous_response_id", "conversation", "prompt"):
        if body.get(name) is not None:
            history.check(body[name], name)
    for index, tool in enumerate(entries(body.get("tools"))):
        if tool.get("type") in _MAKE_FILES:
            raise UnsupportedInput(
                "images in an answer cannot be checked here; leave this tool out",
                param=f"tools[{index}]",
                code="unsupported_tool",
            )


def _input_items(body: Json, history: History) -> list[Item]:
    value = body.get("input")
    if value is None:
        return []
    if isinstance(value, str):
        return _item("input", [Text(value, ("input",))], [])
    items: list[Item] = []
    asked = None
    for index, entry in enumerate(list_of_objects(body, "input")):
        where = f"input[{index}]"
        kind = _kind_of(entry)
        if kind == "item_reference":
            history.check(entry.get("id"), where)
        texts, files = _read(entry, kind, where, ("input", index))
        role = entry.get("role")
        named = role if isinstance(role, str) else None
        is_models = role == "assistant" or kind == "reasoning" or str(kind).endswith("_call")
        items += _item(
            where,
            texts,
            files,
            surface=Surface.RESPONSE if is_models else Surface.PROMPT,
            context=asked if is_models else None,
            index=index if kind == "message" else None,
            role=named,
            is_system=kind == "message" and named in SYSTEM_ROLES,
        )
        if role == "user":
            asked = lines(texts) or asked
    return items


def _kind_of(entry: Json) -> Any:
    return entry.get("type", "message" if "role" in entry else "item_reference")


def _instructions(value: Any) -> list[Text]:
    if isinstance(value, str):
        return [Text(value, ("instructions",))]
    return [Text(leaf.text) for leaf in strings(value)]


def _read(entry: Json, kind: Any, where: str, path: Path) -> tuple[list[Text], list[File]]:
    if kind not in _ITEMS:
        raise UnsupportedInput(
            f"{where} is of a kind that cannot be checked; expected {', '.join(sorted(_ITEMS))}",
            param=where,
            code="unsupported_part",
        )
    name = _WITH_PARTS.get(kind, "")
    content = entry.get(name)
    # no text can stand in the place of a screenshot
    place = None if isinstance(content, dict) else (*path, name)
    texts, files = read_parts(_listed(content), f"{where}.{name}", place)
    leaves = strings(_without(entry, name), names=_ITEM_NAMES)
    texts += [Text(unescaped(leaf.text)) for leaf in leaves if not is_opaque(leaf)]
    return texts, files


def _variables(body: Json) -> list[Item]:
    prompt = body.get("prompt")
    variables = prompt.get("variables") if isinstance(prompt, dict) else None
    if variables is None:
        return []
    if not isinstance(variables, dict):
        raise BadRequest("prompt.variables has to be an object", param="prompt.variables")
    texts = [Text(name) for name in variables]
    files: list[File] = []
    for name, value in variables.items():
        found = read_parts(_listed(value), _name_of_variable(name))
        texts += found[0]
        files += found[1]
    return _item("prompt.variables", texts, files)


def _name_of_variable(name: str) -> str:
    return f"prompt.variables.{name}"[:100]


def _listed(content: Any) -> Any:
    """A content of one part as a list."""
    return [content] if isinstance(content, dict) else content


def _without(value: Any, name: str) -> Any:
    return {k: v for k, v in value.items() if k != name} if isinstance(value, dict) else value


def _item(
    where: str,
    texts: list[Text],
    files: list[File],
    *,
    surface: Surface = Surface.PROMPT,
    context: str | None = None,
    index: int | None = None,
    role: str | None = None,
    is_system: bool = False,
) -> list[Item]:
    parts = (*parts_of(lines(texts)), *(each.file for each in files))
    if not parts:
        return []
    content = Content(surface=surface, parts=parts, context=context)
    places = places_of(content, texts, files)
    return [Item(where, content, index, role, places, is_system=is_system)]
