"""The face of Azure AI Content Safety, through Azure's own client."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from azure.ai.contentsafety import ContentSafetyClient
from azure.ai.contentsafety.models import AnalyzeTextOptions
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError

from service.faces.azure import severity
from tests.service.scripted import ScriptedEngine, scripted_moderator, serving

CATEGORIES = ["Hate", "SelfHarm", "Sexual", "Violence"]


def by_number(text: str) -> float:
    """The score that a text names."""
    return float(text.split()[-1])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(scripted_moderator(ScriptedEngine(by_number))) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with ContentSafetyClient(url, AzureKeyCredential("any")) as client:
        yield client


def analyze(client: Any, text: str, **options: Any) -> dict[str, int]:
    found = client.analyze_text(AnalyzeTextOptions(text=text, **options))
    assert found.blocklists_match == []
    return {each.category: each.severity for each in found.categories_analysis}


def test_all_categories_are_scored_by_default(client: Any) -> None:
    assert analyze(client, "score 0.9") == dict.fromkeys(CATEGORIES, 6)
    assert analyze(client, "score 0.1") == dict.fromkeys(CATEGORIES, 0)


def test_the_body_is_azures(url: str) -> None:
    answer = httpx.post(
        f"{url}/contentsafety/text:analyze?api-version=2023-10-01",
        headers={"Ocp-Apim-Subscription-Key": "any"},
        json={
            "text": "score 0.6",
            "categories": ["Violence"],
            "blocklistNames": [],
            "haltOnBlocklistHit": False,
            "outputType": "EightSeverityLevels",
        },
    )
    assert answer.json() == {
        "blocklistsMatch": [],
        "categoriesAnalysis": [{"category": "Violence", "severity": 4}],
    }


@pytest.mark.parametrize(
    ("score", "eight", "four"),
    [
        (0.0, 0, 0),
        (0.1249, 0, 0),
        (0.125, 1, 0),
        (0.25, 2, 2),
        (0.49, 3, 2),
        (0.5, 4, 4),
        (0.75, 6, 6),
        (0.875, 7, 6),
        (1.0, 7, 6),
    ],
)
def test_severities_are_bands_of_the_score(
    client: Any, score: float, eight: int, four: int
) -> None:
    assert severity(score) == eight
    text = f"score {score}"
    eight_levels = {"output_type": "EightSeverityLevels", "categories": ["Hate"]}
    assert analyze(client, text, **eight_levels) == {"Hate": eight}
    assert analyze(client, text, categories=["Hate"]) == {"Hate": four}


def test_an_error_is_read_by_azures_client(client: Any) -> None:
    with pytest.raises(HttpResponseError, match="blocklistNames has to be empty") as caught:
        analyze(client, "score 0", blocklist_names=["mine"])
    assert caught.value.status_code == 400
    assert caught.value.error is not None
    assert caught.value.error.code == "InvalidRequestBody"
    assert caught.value.error.innererror == {"code": "unsupported_parameter"}


@pytest.mark.parametrize(
    ("body", "target"),
    [
        ({"text": ""}, "text"),
        ({}, "text"),
        ({"text": "score 0", "categories": ["Spam"]}, "categories.0"),
        ({"text": "score 0", "outputType": "Three"}, "outputType"),
    ],
)
def test_a_bad_request_is_400(url: str, body: dict[str, Any], target: str) -> None:
    answer = httpx.post(f"{url}/contentsafety/text:analyze", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["target"] == target
