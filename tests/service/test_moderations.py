import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from moderation.media.ocr import ImageText
from moderation.moderator import ContentLimits, Moderator
from moderation.score_cache import ScoreCache
from service.categories import POLICY_OF_CATEGORY
from service.moderation_input import MAX_TEXT_CHARS
from tests.moderation.media import animation, plain, video
from tests.service.scripted import (
    LIBRARY,
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    error_of,
    scripted_moderator,
    serving,
)

OPENAI_CATEGORIES = {
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
}


class WidthReader:
    """A reader of images that reads BAD in wide ones and dark ones, and GOOD in others."""

    def read(self, image: Image.Image) -> ImageText:
        corner: Any = image.getpixel((2, image.height - 3))
        return ImageText("BAD" if image.width > image.height or corner[0] < 99 else "GOOD")


LIGHT, DARK = plain("white", (48, 80)), plain("navy", (48, 80))


def png(width: int, height: int) -> str:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).line((0, 0, width, height), fill="black")
    data = io.BytesIO()
    image.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    moderator = scripted_moderator(ScriptedEngine(bad_is_bad))
    with serving(Moderator(LIBRARY, moderator.text, reader=WidthReader())) as url:
        yield url


def moderate(url: str, value: object, **more: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/moderations", json={"input": value, **more})


def results(url: str, value: object, **more: object) -> list[dict[str, Any]]:
    response = moderate(url, value, **more)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def test_a_text_gets_one_result_in_openais_shape(url: str) -> None:
    body = moderate(url, "BAD").json()
    assert body["id"].startswith("modr-")
    assert body["model"] == "embedded"
    (result,) = body["results"]
    assert result["flagged"] is True
    assert set(result["categories"]) >= OPENAI_CATEGORIES
    assert set(result["category_scores"]) == set(result["categories"])
    assert result["categories"]["harassment"] is True
    assert result["category_scores"]["harassment"] == 1.0
    assert result["category_applied_input_types"]["harassment"] == ["text"]
    assert result["wardgate"]["action"] == "block"
    assert result["wardgate"]["policy_set"]["id"] == "closed"


def test_a_category_without_a_policy_is_not_covered_and_has_no_input_types(url: str) -> None:
    (result,) = results(url, "BAD")
    not_covered = result["wardgate"]["not_covered"]
    assert set(not_covered) == OPENAI_CATEGORIES - {"harassment"}
    assert not any(result["categories"][name] for name in not_covered)
    assert all(result["category_applied_input_types"][name] == [] for name in not_covered)


def test_the_default_set_covers_the_categories_that_ask_the_same_question(url: str) -> None:
    (result,) = results(url, "BAD", model="default")
    covered = OPENAI_CATEGORIES - set(result["wardgate"]["not_covered"])
    assert covered == {name for name, policy in POLICY_OF_CATEGORY.items() if policy}
    assert {"dangerous_content", "prompt_injection"} <= set(result["categories"])


def test_the_mapping_names_openais_categories_and_policies_that_exist() -> None:
    assert set(POLICY_OF_CATEGORY) == OPENAI_CATEGORIES
    assert {policy for policy in POLICY_OF_CATEGORY.values() if policy} <= set(LIBRARY.policies)


def test_a_list_of_texts_gets_a_result_each_in_order(url: str) -> None:
    assert [r["flagged"] for r in results(url, ["good", "BAD", "good"])] == [False, True, False]


def test_parts_get_one_result_together(url: str) -> None:
    (result,) = results(url, [{"type": "text", "text": "good"}, image_part(png(80, 40))])
    assert result["categories"]["harassment"] is True
    assert result["category_applied_input_types"]["harassment"] == ["text", "image"]


def test_an_image_that_is_not_judged_in_full_is_flagged_and_says_so(url: str) -> None:
    (result,) = results(url, [image_part(png(40, 80))])
    assert result["flagged"] is True
    assert not any(result["categories"].values())
    assert result["wardgate"]["complete"] is False
    assert "no image model" in result["wardgate"]["coverage"][0]["reason"]


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("data", "kind", "part"),
    [
        pytest.param(video([LIGHT] * 5 + [DARK] * 5), "video/mp4", "image_url", id="mp4"),
        pytest.param(video([LIGHT] * 5 + [DARK] * 5), "video/mp4", "video_url", id="video_url"),
        pytest.param(
            video([LIGHT] * 5 + [DARK] * 5, "webm"), "image/png", "image_url", id="a wrong kind"
        ),
        pytest.param(animation([LIGHT, DARK], "WEBP"), "image/webp", "image_url", id="animation"),
    ],
)
def test_videos_and_animations_are_judged_frame_by_frame(
    url: str, data: bytes, kind: str, part: str
) -> None:
    (result,) = results(url, [{"type": part, part: {"url": data_url(data, kind)}}])
    assert result["categories"]["harassment"] is True
    assert result["category_applied_input_types"]["harassment"] == ["image"]
    (covered,) = result["wardgate"]["coverage"]
    assert covered["frames"]["scored"] == 2
    windows = result["wardgate"]["scores"][0]["windows"]
    assert [window["raw"] for window in windows] == [0.0, 1.0]
    assert windows[1]["frame"]["index"] in (1, 5)


def test_the_same_content_is_scored_once_and_metrics_say_so() -> None:
    engine = ScriptedEngine(bad_is_bad)
    moderator = scripted_moderator(engine)
    moderator.cache = ScoreCache()
    with serving(moderator) as caching:
        first, again = (results(caching, "BAD")[0]["wardgate"] for _ in range(2))
        metrics = httpx.get(f"{caching}/metrics").text
    assert len(engine.asked) == 1
    assert ("cached" in first["scores"][0], again["scores"][0]["cached"]) == (False, True)
    assert 'wardgate_scores_total{source="model"} 1.0' in metrics
    assert 'wardgate_scores_total{source="cache"} 1.0' in metrics


@pytest.mark.parametrize(
    "model", ["omni-moderation-latest", "text-moderation-latest", "embedded", "default"]
)
def test_openais_model_names_ours_and_policy_sets_are_taken(url: str, model: str) -> None:
    assert moderate(url, "good", model=model).status_code == 200


def test_another_model_name_is_refused_with_the_known_ones(url: str) -> None:
    error = error_of(moderate(url, "good", model="shieldgema"), 400)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "shieldgemma2" in error["message"]


def test_callers_add_policies_and_never_remove_any(url: str) -> None:
    (result,) = results(url, "BAD", policies=["any_harm"])
    assert [s["policy"] for s in result["wardgate"]["scores"]] == ["harassment", "any_harm"]
    assert result["wardgate"]["scores"][1]["action"] == "flag"
    (again,) = results(url, "BAD", policies=["harassment"])
    assert again["wardgate"]["scores"][0]["action"] == "block", "the operator's rule stays"


def test_an_unknown_policy_is_refused_with_the_known_ones(url: str) -> None:
    error = error_of(moderate(url, "good", policies=["hate"]), 400)
    assert error["code"] == "unknown_policy"
    assert "hate_speech" in error["message"]


def test_the_surface_picks_the_words_and_a_response_has_context(url: str) -> None:
    (result,) = results(url, "BAD", surface="response", context="What?")
    assert result["wardgate"]["scores"][0]["windows"][0]["surface"] == "response"


def test_a_policy_in_shadow_is_scored_and_flags_nothing() -> None:
    moderator = scripted_moderator(ScriptedEngine(bad_is_bad))
    with serving(moderator, policy_set="shadowing") as shadowing:
        (result,) = results(shadowing, "BAD")
    assert result["flagged"] is False
    assert result["categories"]["harassment"] is False
    assert result["category_scores"]["harassment"] == 1.0


def test_models_are_listed(url: str) -> None:
    body = httpx.get(f"{url}/v1/models").json()
    assert [model["id"] for model in body["data"]] == ["embedded"]


def test_a_service_without_generator_has_no_chat(url: str) -> None:
    response = httpx.post(f"{url}/v1/chat/completions", json={})
    assert error_of(response, 404)["code"] == "not_found"


def test_every_answer_has_a_request_id(url: str) -> None:
    first, second = (httpx.get(f"{url}/healthz").headers["x-request-id"] for _ in range(2))
    assert first.startswith("req-")
    assert first != second


def test_metrics_count_verdicts_requests_and_queues(url: str) -> None:
    moderate(url, "BAD")
    text = httpx.get(f"{url}/metrics").text
    assert 'wardgate_verdicts_total{action="block",surface="prompt"}' in text
    assert 'wardgate_violations_total{mode="enforce",policy="harassment"}' in text
    assert 'wardgate_requests_total{route="/v1/moderations",status="200"}' in text
    assert 'wardgate_queue_depth{queue="classifier"} 0.0' in text
    assert "wardgate_scoring_seconds_bucket" in text


@pytest.mark.parametrize(
    ("value", "where", "code"),
    [
        pytest.param("  ", "input", "content_empty", id="empty text"),
        pytest.param(["fine", ""], "input[1]", "content_empty", id="empty text of a list"),
        pytest.param(["fine", "a" * 1_048_577], "input[1]", "content_too_long", id="too long"),
        pytest.param(
            [{"type": "text", "text": "fine"}, {"type": "text", "text": " "}],
            "input[1].text",
            "content_empty",
            id="empty part",
        ),
        pytest.param(
            [{"type": "text", "text": "fine"}] * 65, "input", "content_too_long", id="many parts"
        ),
        pytest.param(
            [
                {"type": "text", "text": "fine"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
            "input[1].image_url.url",
            "unreadable_image",
            id="no image",
        ),
    ],
)
def test_what_is_wrong_is_named_and_looked_for_before_anything_is_scored(
    value: object, where: str, code: str
) -> None:
    engine = ScriptedEngine(bad_is_bad)
    with serving(scripted_moderator(engine), max_body_bytes=4 * 2**20) as url:
        error = error_of(httpx.post(f"{url}/v1/moderations", json={"input": value}), 400)
    assert (error["param"], error["code"]) == (where, code)
    assert error["message"].startswith(where)
    assert engine.asked == [] or code == "unreadable_image"


def test_a_text_of_a_list_with_too_many_tokens_is_named() -> None:
    with serving() as url:
        body = {"input": ["fine", "a b " * 10_000]}
        error = error_of(httpx.post(f"{url}/v1/moderations", json=body, timeout=20), 400)
    assert (error["param"], error["code"]) == ("input[1]", "content_too_long")
    assert error["message"].startswith("input[1] has 40000 tokens")


def test_no_text_that_the_moderator_takes_is_too_long_for_the_service() -> None:
    assert ContentLimits().max_tokens * 32 == MAX_TEXT_CHARS


def test_a_model_is_found_by_its_id_and_another_is_not() -> None:
    with serving(generator=RecitingGenerator(name="google/reciting")) as url:
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert [model["id"] for model in listed] == ["google/reciting", "embedded"]
        for model in listed:
            assert httpx.get(f"{url}/v1/models/{model['id']}").json() == model
        error = error_of(httpx.get(f"{url}/v1/models/gpt-4"), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert error["message"].endswith("known: google/reciting, embedded")
