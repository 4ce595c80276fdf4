"""The face of LLM Guard's API."""

from collections.abc import Iterator

import httpx
import pytest

from tests.service.faces.calls import llm_guard_error
from tests.service.scripted import serving

REMOVED = "[removed by the content policy]"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


def post(url: str, path: str, **body: object) -> httpx.Response:
    return httpx.post(url + path, json=body)


def test_a_good_prompt_and_a_bad_one(url: str) -> None:
    assert post(url, "/analyze/prompt", prompt="good", scanners_suppress=[]).json() == {
        "is_valid": True,
        "scanners": {"harassment": 0.0},
        "sanitized_prompt": "good",
    }
    assert post(url, "/analyze/prompt", prompt="BAD").json() == {
        "is_valid": False,
        "scanners": {"harassment": 1.0},
        "sanitized_prompt": REMOVED,
    }


def test_an_output_is_judged_and_its_prompt_is_not(url: str) -> None:
    assert post(url, "/analyze/output", prompt="BAD", output="good").json() == {
        "is_valid": True,
        "scanners": {"harassment": 0.0},
        "sanitized_output": "good",
    }
    bad = post(url, "/analyze/output", prompt="good", output="BAD").json()
    assert (bad["is_valid"], bad["sanitized_output"]) == (False, REMOVED)


def test_an_output_is_judged_as_a_response(url: str) -> None:
    post(url, "/scan/output", prompt="Hi", output="BAD BAD")
    text = httpx.get(f"{url}/metrics").text
    assert 'wardgate_verdicts_total{action="block",surface="response"}' in text


@pytest.mark.parametrize("body", [{"prompt": "BAD"}, {"prompt": "Hi", "output": "BAD"}])
def test_a_scan_hands_nothing_back(url: str, body: dict[str, str]) -> None:
    path = "/scan/output" if "output" in body else "/scan/prompt"
    assert post(url, path, **body).json() == {"is_valid": False, "scanners": {"harassment": 1.0}}


@pytest.mark.parametrize(
    ("policy_set", "valid"),
    [("flagging", True), ("shadowing", True), ("reviewing", False), ("redacting", False)],
)
def test_only_what_is_let_through_is_valid(policy_set: str, valid: bool) -> None:
    with serving(policy_set=policy_set) as url:
        answer = post(url, "/analyze/prompt", prompt="BAD").json()
    assert (answer["is_valid"], answer["sanitized_prompt"]) == (valid, "BAD" if valid else REMOVED)


def test_scanners_cannot_be_switched_off_by_the_caller(url: str) -> None:
    refused = post(url, "/analyze/prompt", prompt="BAD", scanners_suppress=["harassment"])
    assert "scanners_suppress has to be empty" in llm_guard_error(refused, 400).message


@pytest.mark.parametrize(
    "body", [{}, {"prompt": ""}, {"prompt": 1}, {"prompt": "x", "output": "y"}]
)
def test_a_bad_request_is_400(url: str, body: dict[str, object]) -> None:
    llm_guard_error(post(url, "/analyze/prompt", **body), 400)


def test_an_empty_output_is_400(url: str) -> None:
    llm_guard_error(post(url, "/analyze/output", prompt="x", output=""), 400)
