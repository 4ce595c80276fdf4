"""`wardgate score --jsonl`: one content a line in, one verdict or error a line out."""

import json
from collections.abc import Callable, Iterable
from typing import Literal, TextIO

from pydantic import BaseModel, ValidationError

from moderation.content import Content
from moderation.errors import ContentError, ModerationError
from moderation.moderator import Moderator
from moderation.verdict import Verdict, verdict_to_dict
from policies import PolicySet, Surface
from wardgate.output import error_object

RESPONSE_ROLES = ("model", "assistant", "response")


class ContentLine(BaseModel):
    """One line; further keys, as evaluation records have them, are let through."""

    text: str
    role: Literal["user", "prompt", "model", "assistant", "response"] | None = None
    prompt: str | None = None
    """What a response answers; says by itself that the text is a response."""
    id: str | int | None = None
    """Given back with the verdict."""

    def content(self, surface: Surface) -> Content:
        """What is judged; `surface` holds where the line does not say.

        Raises:
            ContentError: a prompt that answers a prompt.
        """
        if self.role is not None:
            is_response = self.role in RESPONSE_ROLES
        else:
            is_response = self.prompt is not None or surface is Surface.RESPONSE
        if not is_response and self.prompt is not None:
            raise ContentError(f"'prompt' is what a response answers; the role is {self.role!r}")
        if is_response:
            return Content.response(self.text, context=self.prompt)
        return Content.prompt(self.text)


class InvalidLine(ContentError):
    """A line that is no JSON object with a text."""

    code = "invalid_line"


def score_lines(
    lines: Iterable[str | bytes],
    moderator: Moderator,
    policy_set: PolicySet,
    *,
    surface: Surface,
    out: TextIO,
    done: Callable[[int], None],
) -> tuple[int, int]:
    """Writes one object a line that is not blank: a verdict, or an error.

    Args:
        lines: JSON objects.
        surface: holds for lines that do not say.
        out: gets `{"line", "id", <verdict>}` or `{"line", "id", "error"}`, at once.
        done: told after each line how many lines are done.

    Returns:
        How many lines got an error, and how many verdicts were flagged.
    """
    num_done = num_errors = num_flagged = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        answer: dict[str, object] = {"line": number, "id": None}
        try:
            data = _read(line)
            answer["id"] = _id(data)
            parsed = _parse(data)
            verdict: Verdict = moderator.judge(parsed.content(surface), policy_set)
            answer |= verdict_to_dict(verdict)
            num_flagged += verdict.flagged
        except ModerationError as exc:
            answer["error"] = error_object(exc)
            num_errors += 1
        print(json.dumps(answer, ensure_ascii=False), file=out, flush=True)
        num_done += 1
        done(num_done)
    return num_errors, num_flagged


def _read(line: str | bytes) -> object:
    try:
        return json.loads(line, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as exc:
        where = f" at column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise InvalidLine(f"expected one JSON object in UTF-8; it cannot be read{where}") from exc


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON lets the last of two equal keys win in silence; the first would go unjudged."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidLine("a key stands twice; expected each once")
    return found


def _id(data: object) -> str | int | None:
    """The id to give back, also of a line that has something else wrong with it."""
    found = data.get("id") if isinstance(data, dict) else None
    if isinstance(found, str) and not _has_utf8(found):
        raise InvalidLine("id: holds lone surrogates, which have no UTF-8 form")
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse(data: object) -> ContentLine:
    try:
        return ContentLine.model_validate(data, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        key = first["loc"][0] if first["loc"] else None
        what = first["msg"].replace("Input should be", "expected")
        raise InvalidLine(
            f"{key}: {what}" if key is not None else "expected a JSON object"
        ) from exc
