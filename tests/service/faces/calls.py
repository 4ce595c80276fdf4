"""One call of every route of every face, and how each face tells an error."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.service.scripted import error_of

Body = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """An error in any face's shape."""

    message: str
    code: str | None
    """Where the shape has room for it."""


def openai_error(response: httpx.Response, status: int) -> Told:
    error = error_of(response, status)
    return Told(error["message"], error["code"])


def llm_guard_error(response: httpx.Response, status: int) -> Told:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"message", "details"}
    return Told(body["message"], None)


def google_error(response: httpx.Response, status: int) -> Told:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"code", "message", "status", "details"}
    assert error["code"] == status
    assert error["status"].isupper()
    return Told(error["message"], error["details"][0]["reason"].lower())


def azure_error(response: httpx.Response, status: int) -> Told:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"code", "message", "target", "details", "innererror"}
    return Told(error["message"], error["innererror"]["code"])


@dataclass(frozen=True)
class Call:
    """A request of one text."""

    face: str
    path: str
    body: Callable[[str], Body]
    error: Callable[[httpx.Response, int], Told]

    def post(self, url: str, text: str, **more: Any) -> httpx.Response:
        return httpx.post(url + self.path, json={**self.body(text), **more}, timeout=20)


CALLS = [
    Call(
        "litellm",
        "/beta/litellm_basic_guardrail_api",
        lambda text: {"input_type": "request", "texts": [text]},
        openai_error,
    ),
    Call(
        "nemo",
        "/v1/checks",
        lambda text: {"model": "any", "messages": [{"role": "user", "content": text}]},
        openai_error,
    ),
    Call(
        "llama-stack",
        "/v1/safety/run-shield",
        lambda text: {
            "shield_id": "closed",
            "messages": [{"role": "user", "content": text}],
            "params": {},
        },
        openai_error,
    ),
    *(
        Call("llm-guard", f"/{verb}/prompt", lambda text: {"prompt": text}, llm_guard_error)
        for verb in ("analyze", "scan")
    ),
    *(
        Call(
            "llm-guard",
            f"/{verb}/output",
            lambda text: {"prompt": "Hi", "output": text},
            llm_guard_error,
        )
        for verb in ("analyze", "scan")
    ),
    Call(
        "perspective",
        "/v1alpha1/comments:analyze",
        lambda text: {"comment": {"text": text}, "requestedAttributes": {"HARASSMENT": {}}},
        google_error,
    ),
    Call(
        "azure",
        "/contentsafety/text:analyze",
        lambda text: {"text": text, "categories": ["Violence"]},
        azure_error,
    ),
]

each_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.path)
