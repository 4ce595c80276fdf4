"""The face of Perspective."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.faces.calls import google_error
from tests.service.scripted import ScriptedEngine, bad_is_bad, scripted_moderator, serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(scripted_moderator(ScriptedEngine(lambda text: 0.75 * ("BAD" in text)))) as url:
        yield url


def post(url: str, text: str = "BAD", **body: Any) -> httpx.Response:
    body = {"comment": {"text": text}, "requestedAttributes": {"IDENTITY_ATTACK": {}}, **body}
    # what Google's clients add to the address
    return httpx.post(f"{url}/v1alpha1/comments:analyze?key=any&alt=json", json=body)


def test_the_answer_has_perspectives_shape(url: str) -> None:
    attributes: dict[str, Any] = {"IDENTITY_ATTACK": {}, "HARASSMENT": {"scoreType": "PROBABILITY"}}
    answer = post(
        url,
        requestedAttributes=attributes,
        languages=["en"],
        clientToken="mine",
        doNotStore=True,
        sessionId="1",
    ).json()
    score = {"value": 0.75, "type": "PROBABILITY"}
    shown = {"summaryScore": score, "spanScores": [{"begin": 0, "end": 3, "score": score}]}
    assert answer == {
        "attributeScores": {"IDENTITY_ATTACK": shown, "HARASSMENT": shown},
        "languages": ["en"],
        "clientToken": "mine",
    }


def test_a_comment_may_also_be_fine(url: str) -> None:
    scores = post(url, "good").json()["attributeScores"]
    assert scores["IDENTITY_ATTACK"]["summaryScore"]["value"] == 0.0


def test_scores_below_the_threshold_are_left_out(url: str) -> None:
    attributes = {"HARASSMENT": {"scoreThreshold": 0.75}, "VIOLENCE": {"scoreThreshold": 0.76}}
    scores = post(url, requestedAttributes=attributes).json()["attributeScores"]
    assert list(scores) == ["HARASSMENT"]


def test_the_operators_policies_are_judged_too() -> None:
    moderator = scripted_moderator(ScriptedEngine(bad_is_bad))
    with serving(moderator) as url:
        post(url, requestedAttributes={"VIOLENCE": {}})
        text = httpx.get(f"{url}/metrics").text
    assert 'wardgate_violations_total{mode="enforce",policy="harassment"} 1.0' in text


@pytest.mark.parametrize("name", ["TOXICITY", "INSULT", "harassment", "nothing"])
def test_an_attribute_that_no_policy_asks_is_refused_with_the_known_ones(
    url: str, name: str
) -> None:
    told = google_error(post(url, requestedAttributes={name: {}}), 400)
    assert told.code == "unknown_attribute"
    assert f"attribute '{name}'; known: " in told.message
    assert "IDENTITY_ATTACK" in told.message


def test_an_error_has_googles_shape(url: str) -> None:
    assert post(url, requestedAttributes={"TOXICITY": {}}).json()["error"] | {"message": ""} == {
        "code": 400,
        "message": "",
        "status": "INVALID_ARGUMENT",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "UNKNOWN_ATTRIBUTE",
                "domain": "wardgate",
                "metadata": {"param": "requestedAttributes"},
            }
        ],
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"spanAnnotations": True}, "spanAnnotations"),
        ({"context": {"entries": [{"text": "x"}]}}, "context"),
        ({"dropUnsupportedAttributes": True}, "dropUnsupportedAttributes"),
        ({"comment": {"text": "x", "type": "HTML"}}, "comment.type"),
        ({"comment": {"text": " "}}, "comment.text"),
        ({"requestedAttributes": {}}, "requestedAttributes"),
        (
            {"requestedAttributes": {"HARASSMENT": {"scoreType": "STD_DEV_SCORE"}}},
            "requestedAttributes.HARASSMENT.scoreType",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    url: str, body: dict[str, Any], param: str
) -> None:
    response = post(url, **body)
    google_error(response, 400)
    assert response.json()["error"]["details"][0]["metadata"]["param"] == param
