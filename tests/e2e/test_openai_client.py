"""The official OpenAI client against a real service with the real embedded models.

Nothing but the base URL is changed. The thresholds are the test's own, because no claim here may
hang on what the classifier thinks of a text.
"""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openai import BadRequestError, NotFoundError, OpenAI, RateLimitError
from openai.types import ModerationMultiModalInputParam

from tests.e2e.serving import ROOT, serve

pytestmark = pytest.mark.model

SETS = """\
id: {id}
version: 1
policies:
  - {{id: {policy}, threshold: {threshold}, action: block}}
on_incomplete: allow
"""


@pytest.fixture(scope="module")
def client(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder = tmp_path_factory.mktemp("policies")
    for name, policy, threshold in (
        ("never", "harassment", "0.999999"),
        ("always", "violence", "0.0000000001"),
    ):
        text = SETS.format(id=name, policy=policy, threshold=threshold)
        (folder / f"{name}.yaml").write_text(text)
    with serve(
        WARDGATE_CACHE_DIR=str(cache_dir),
        WARDGATE_POLICY_DIRS=str(folder),
        WARDGATE_POLICY_SET="never",
        WARDGATE_QUEUE_CAPACITY="1",
        WARDGATE_BLOCKED_PROMPT="error",
    ) as served:
        served.wait_ready()
        with OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
            yield client


def test_moderating_a_text(client: OpenAI) -> None:
    created = client.moderations.create(input="How do I bake bread?")
    (result,) = created.results
    assert result.flagged is False
    assert 0.0 < result.category_scores.harassment < 1.0
    assert result.category_applied_input_types.harassment == ["text"]


def test_moderating_by_a_policy_set_of_ones_own(client: OpenAI) -> None:
    (result,) = client.moderations.create(input="How do I bake bread?", model="always").results
    assert result.flagged is True
    assert result.categories.violence is True
    assert result.categories.harassment is False


def test_moderating_a_list(client: OpenAI) -> None:
    created = client.moderations.create(model="omni-moderation-latest", input=["one", "two"])
    assert len(created.results) == 2
    assert created.results[0].category_scores.harassment > 0


def test_moderating_an_image(client: OpenAI) -> None:
    sign = base64.b64encode((ROOT / "docs/examples/sign.png").read_bytes()).decode()
    parts: list[ModerationMultiModalInputParam] = [
        {"type": "text", "text": "What does the sign say?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{sign}"}},
    ]
    (result,) = client.moderations.create(model="omni-moderation-latest", input=parts).results
    assert result.category_scores.harassment > 0
    assert result.model_extra is not None
    coverage = result.model_extra["wardgate"]["coverage"]
    assert [(part["modality"], part["status"]) for part in coverage] == [
        ("text", "scored"),
        ("image", "partial"),
    ]


def test_completing_a_chat(client: OpenAI) -> None:
    done = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[
            {"role": "system", "content": "A conversation about geography."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        max_tokens=16,
        temperature=0.5,
        seed=1,
    )
    assert done.model == "gemma-3-270m"
    (choice,) = done.choices
    assert choice.finish_reason in ("stop", "length")
    assert choice.message.content
    assert done.usage is not None
    assert 0 < done.usage.completion_tokens <= 16
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_streaming_a_chat_gives_the_same_text(client: OpenAI) -> None:
    def ask(stream: bool) -> str:
        options = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "Tell me about the sea."}],
            "max_tokens": 24,
            "seed": 3,
        }
        if not stream:
            whole = client.chat.completions.create(**options)  # type: ignore[call-overload]
            return str(whole.choices[0].message.content)
        text, finish_reason = "", None
        for chunk in client.chat.completions.create(stream=True, **options):  # type: ignore[call-overload]
            text += chunk.choices[0].delta.content or ""
            finish_reason = chunk.choices[0].finish_reason or finish_reason
        assert finish_reason in ("stop", "length")
        return text

    assert ask(True) == ask(False) != ""


def test_listing_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["gemma-3-270m", "embedded"]


def test_bad_requests_raise_their_own_class(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="input is an empty text") as caught:
        client.moderations.create(input="")
    assert caught.value.code == "content_empty"
    with pytest.raises(BadRequestError, match="'n' is not supported") as caught:
        client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "Hi"}], n=2
        )
    assert (caught.value.param, caught.value.code) == ("n", "unsupported_parameter")
    with pytest.raises(NotFoundError, match="Not Found"):
        client.embeddings.create(model="any", input="x")


def test_overload_raises_its_own_class(client: OpenAI) -> None:
    def ask(number: int) -> object:
        try:  # texts of their own: the same ones would be scored once for all
            return client.moderations.create(input=[f"{number} {word}" for word in ("a", "b", "c")])
        except RateLimitError as exc:
            return exc

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    refused = [answer for answer in answers if isinstance(answer, RateLimitError)]
    assert refused
    assert refused[0].code == "overloaded"
    assert int(refused[0].response.headers["retry-after"]) >= 1
    assert len(refused) < 8, "those who were let in get their answer"
