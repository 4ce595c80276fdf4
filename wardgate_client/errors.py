"""Why there is no moderation. A failure is never a verdict, so each of these is an exception.

WardgateError
├── Unreachable          no connection, or it broke before the answer was there
├── TimeUp               no answer within the client's timeout
├── UnexpectedAnswer     an answer that is not the service's
└── ErrorAnswer          the service said what is wrong
    ├── RequestRefused   the request or its content cannot be judged as it is          4xx
    ├── Overloaded       too much at a time; come back in `retry_after_s`              429
    └── ServiceFailed    there is no verdict: not ready, timed out, failed             5xx
"""


class WardgateError(Exception):
    """Root of everything that the client raises for a call."""


class Unreachable(WardgateError):
    """The service could not be reached, or the connection broke."""


class TimeUp(WardgateError):
    """The client's timeout passed before an answer came."""


class UnexpectedAnswer(WardgateError):
    """What answers is not this service, or one of a later version that changed its answers."""


class ErrorAnswer(WardgateError):
    """The service answered with an error; the message is the service's own words."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """Of HTTP."""
        self.code = code
        """Stable name of what is wrong, such as `content_too_long`."""
        self.param = param
        """The field that is at fault, such as `input[1]`."""
        self.retry_after_s = retry_after_s
        """Seconds after which it is worth trying again."""
        self.request_id = request_id
        """The service's log has the same."""


class RequestRefused(ErrorAnswer):
    """The request or its content cannot be judged as it is."""


class Overloaded(ErrorAnswer):
    """The service has too much to do."""


class ServiceFailed(ErrorAnswer):
    """The service could not judge."""
