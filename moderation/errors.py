"""Why content could not be scored. A failure is never a verdict.

ModerationError
├── ContentError             the caller's content cannot be scored                      4xx
│   ├── ContentEmpty         nothing to judge
│   ├── ContentTooLong       over the configured maximum of tokens
│   ├── InvalidText          text that has no UTF-8 form (lone surrogates)
│   └── UnreadableImage      not an image, truncated, of an unknown format or too large
├── EngineError              the engine gave no score                                   5xx
│   ├── EngineOverloaded     the queue is full; carries `retry_after_s`
│   ├── EngineTimeout        no score within `deadline_s`
│   ├── CallerLeft           nobody waits for the score any more
│   ├── EngineStopped        the worker died, or hangs
│   │   └── EngineClosed     it was closed, because the process ends
│   └── Unscorable           the model's answer is no number (NaN)
└── ModelError               a model cannot be loaded or used
    ├── ModelRefused         a check of the checkpoint failed: untied head, answer ids, ...
    ├── ModelUnavailable     the files cannot be found, read or converted
    └── UnsupportedModality  this model does not judge that kind of content
"""


class ModerationError(Exception):
    """Root of everything that `moderation` raises."""

    code = "moderation_error"
    """Stable name for machines."""


class ContentError(ModerationError):
    """The caller's content cannot be scored; the message never repeats the content."""

    code = "invalid_content"

    def __init__(self, problem: str, *, part: int | None = None) -> None:
        super().__init__(problem if part is None else f"part {part} {problem}")
        self.problem = problem
        """The message without the part, for who has another name for it."""
        self.part = part
        """The index of the part that is at fault."""


class ContentEmpty(ContentError):
    """There is nothing to judge."""

    code = "content_empty"


class ContentTooLong(ContentError):
    """More tokens than the configured maximum; nothing is ever cut off in silence."""

    code = "content_too_long"


class InvalidText(ContentError):
    """Text that cannot be encoded."""

    code = "invalid_text"


class UnreadableImage(ContentError):
    """Bytes that are no readable image of a supported format and size."""

    code = "unreadable_image"


class EngineError(ModerationError):
    """The engine gave no score."""

    code = "engine_error"


class EngineOverloaded(EngineError):
    """The queue is full; come back in `retry_after_s` seconds."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineTimeout(EngineError):
    """No score within the deadline."""

    code = "timeout"


class CallerLeft(EngineError):
    """Nobody waits for the score any more, so it was not computed."""

    code = "caller_left"


class EngineStopped(EngineError):
    """The worker died, or hangs."""

    code = "engine_stopped"


class EngineClosed(EngineStopped):
    """The worker was closed, because the process ends; for callers the same as a dead one."""


class Unscorable(EngineError):
    """The model answered with something that is no probability."""

    code = "unscorable"


class ModelError(ModerationError):
    """A model cannot be loaded or used."""

    code = "model_error"


class ModelRefused(ModelError):
    """The checkpoint loads, but a check says that its scores would be wrong."""

    code = "model_refused"


class ModelUnavailable(ModelError):
    """The files of a model cannot be found, read or converted."""

    code = "model_unavailable"


class UnsupportedModality(ModelError):
    """This model does not judge that kind of content."""

    code = "unsupported_modality"
