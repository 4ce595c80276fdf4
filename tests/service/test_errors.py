from collections.abc import Iterator

import pytest

import moderation.errors
import service.errors
from moderation.errors import EngineOverloaded, ModerationError, UnreadableImage
from policies import PolicyError
from policies.errors import UnknownPolicy
from service.errors import (
    TABLE,
    BadRequest,
    BodyTooLarge,
    ContentBlocked,
    NotReady,
    ServiceError,
    error_body,
    error_response,
    row_of,
)


def tree(root: type[Exception]) -> Iterator[type[Exception]]:
    """The errors that the service can meet; the command line has one of its own."""
    yield root
    for kind in root.__subclasses__():
        if not kind.__module__.startswith("wardgate."):
            yield from tree(kind)


@pytest.mark.parametrize("root", [ModerationError, PolicyError, ServiceError])
def test_every_error_has_a_row_of_its_own(root: type[Exception]) -> None:
    missing = [kind.__name__ for kind in tree(root) if kind not in TABLE]
    assert not missing, f"add a row to service.errors.TABLE for {missing}"


def test_no_row_answers_422() -> None:
    assert 422 not in {row.status for row in TABLE.values()}


@pytest.mark.parametrize("kind", TABLE)
def test_who_is_at_fault_agrees_with_the_status(kind: type[Exception]) -> None:
    row = TABLE[kind]
    assert (row.type == "server_error") == (row.status >= 500)


def test_the_drawn_tree_names_every_error() -> None:
    for module, root in ((moderation.errors, ModerationError), (service.errors, ServiceError)):
        assert module.__doc__ is not None
        assert all(kind.__name__ in module.__doc__ for kind in tree(root))


def test_overload_says_when_to_come_back() -> None:
    answer = error_response(EngineOverloaded("full", retry_after_s=2.4))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"


def test_not_ready_says_when_to_come_back() -> None:
    answer = error_response(NotReady("loading"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_a_body_too_large_closes_the_connection() -> None:
    answer = error_response(BodyTooLarge("large"))
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")


@pytest.mark.parametrize(
    ("exc", "error"),
    [
        (
            UnreadableImage("truncated"),
            {
                "message": "truncated",
                "type": "invalid_request_error",
                "param": None,
                "code": "unreadable_image",
            },
        ),
        (
            BadRequest("no", param="input[0]", code="special"),
            {
                "message": "no",
                "type": "invalid_request_error",
                "param": "input[0]",
                "code": "special",
            },
        ),
        (
            UnknownPolicy("policy", "x", ["a"]),
            {
                "message": "unknown policy 'x'; known: a",
                "type": "invalid_request_error",
                "param": None,
                "code": "unknown_policy",
            },
        ),
    ],
)
def test_errors_have_openais_shape(exc: Exception, error: dict[str, object]) -> None:
    assert error_body(exc) == {"error": error}


def test_the_words_of_foreign_exceptions_stay_inside() -> None:
    body = error_body(KeyError("the content of somebody"))
    assert "somebody" not in str(body)
    assert row_of(KeyError()).status == 500


def test_a_blocked_prompt_reports_the_verdict() -> None:
    error = error_body(ContentBlocked("blocked", param="messages", report={"passed": False}))[
        "error"
    ]
    assert error == {
        "message": "blocked",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "content_filter",
        "wardgate": {"passed": False},
    }
