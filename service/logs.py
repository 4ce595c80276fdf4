"""JSON logs on standard error, a line an entry, without content.

Only our own messages are written, never the text of an exception from elsewhere: it may quote
what it choked on.
"""

import json
import logging
import sys
import traceback
import warnings
from datetime import UTC, datetime
from typing import TextIO

from moderation.errors import ModerationError
from policies import PolicyError
from service.errors import ServiceError

_log = logging.getLogger(__name__)

_OWN_ERRORS = (ModerationError, PolicyError, ServiceError)
_FIELDS = ("request_id", "status", "ms")


class JsonFormatter(logging.Formatter):
    """One entry as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({name: getattr(record, name) for name in _FIELDS if hasattr(record, name)})
        if record.exc_info and record.exc_info[1] is not None:
            entry["error"] = _describe(record.exc_info[1])
        return json.dumps(entry)


def configure_logging(level: str) -> None:
    """Sends the logs of this process to standard error, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    warnings.showwarning = _log_warning
    for name in ("httpx", "urllib3", "filelock", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _log_warning(
    message: Warning | str,  # noqa: ARG001 (its words may quote content, like an exception's)
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Stands in for `warnings.showwarning`, which would write to standard error past the log."""
    _log.warning("a %s from %s:%d", category.__name__, filename, lineno)


def _describe(exc: BaseException) -> list[str]:
    """Where an exception and its causes came from; the words only of our own."""
    lines: list[str] = []
    current: BaseException | None = exc
    while current is not None:
        words = f": {current}" if isinstance(current, _OWN_ERRORS) else ""
        lines.append(f"{type(current).__name__}{words}")
        frames = traceback.extract_tb(current.__traceback__)[-6:]
        lines += [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        current = current.__cause__
    return lines
