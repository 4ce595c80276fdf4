"""LiteLLM's own guardrail in front of the service: what it extracts, sends and does."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

# read when LiteLLM is imported, which would fetch a list of prices otherwise
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from litellm.exceptions import GuardrailRaisedException
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
from litellm.llms.openai.chat.guardrail_translation.handler import OpenAIChatCompletionsHandler
from litellm.proxy.guardrails.guardrail_hooks.generic_guardrail_api.generic_guardrail_api import (
    GenericGuardrailAPI,
)
from litellm.types.utils import ModelResponse

from tests.service.scripted import ScriptedEngine, scripted_moderator, serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@asynccontextmanager
async def guardrail(url: str) -> AsyncIterator[Any]:
    """The guardrail, with connections that are closed behind it."""
    guardrail = GenericGuardrailAPI(api_base=url, guardrail_name="wardgate")
    guardrail.async_handler = AsyncHTTPHandler()
    try:
        yield guardrail
    finally:
        await guardrail.async_handler.close()


async def request(url: str, text: str, **more: Any) -> Any:
    data = {"model": "any", "messages": [{"role": "user", "content": text}], **more}
    async with guardrail(url) as check:
        return await OpenAIChatCompletionsHandler().process_input_messages(data, check)


async def response(url: str, text: str) -> Any:
    said = ModelResponse(choices=[{"message": {"role": "assistant", "content": text}}])
    async with guardrail(url) as check:
        return await OpenAIChatCompletionsHandler().process_output_response(said, check)


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def test_good_messages_reach_the_model_and_good_responses_the_client(url: str) -> None:
    sent = asyncio.run(request(url, "good", tools=[tool("fine")]))
    assert sent["messages"] == [{"role": "user", "content": "good"}]
    assert asyncio.run(response(url, "good")).choices[0].message.content == "good"


def test_bad_ones_do_not(url: str) -> None:
    for work in (
        request(url, "BAD"),
        request(url, "good", tools=[tool("BAD")]),
        response(url, "BAD"),
    ):
        with pytest.raises(GuardrailRaisedException, match="content policy: harassment"):
            asyncio.run(work)


def test_redacted_texts_are_replaced() -> None:
    with serving(policy_set="redacting") as url:
        sent = asyncio.run(request(url, "BAD"))
    assert sent["messages"] == [{"role": "user", "content": "[removed by the content policy]"}]


def test_a_classifier_that_fails_blocks() -> None:
    def failing(_: str) -> float:
        raise RuntimeError

    with (
        serving(scripted_moderator(ScriptedEngine(failing)), policy_set="opened") as url,
        pytest.raises(Exception, match=r"Generic Guardrail API failed.*500"),
    ):
        asyncio.run(request(url, "good"))
