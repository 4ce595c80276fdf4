"""The generator of this process as an upstream of `/v1/chat/completions`."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from moderation.errors import EngineOverloaded
from service.chat import chat_from_request
from service.errors import UnsupportedInput
from service.generation import Generation, GenerationScheduler, Generator
from service.metrics import Metrics
from service.schemas import ChatRequest, checked
from service.upstreams.upstream import Call, Json, Open


class InProcessUpstream:
    """See `Upstream`."""

    streams_always = True

    def __init__(
        self,
        generator: Generator,
        scheduler: GenerationScheduler,
        metrics: Metrics,
        *,
        max_new_tokens: int,
    ) -> None:
        """`scheduler` runs the generator; `max_new_tokens` is the most that a call may ask for."""
        self.name = generator.name
        self.model_name: str | None = generator.name
        self._generator = generator
        self._scheduler = scheduler
        self._metrics = metrics
        self._max_new_tokens = max_new_tokens
        metrics.watch_queue(scheduler.name, lambda: scheduler.depth)

    async def prepare(self, call: Call) -> Open:
        """See `Upstream.prepare`."""
        if call.endpoint != "chat/completions":
            raise UnsupportedInput(
                f"this generator answers /v1/chat/completions, not /v1/{call.endpoint}"
            )
        request = checked(call.body, ChatRequest)
        chat = await asyncio.to_thread(
            chat_from_request,
            request,
            max_new_tokens=self._max_new_tokens,
            reads_images=self._generator.reads_images,
        )
        prompt = await asyncio.to_thread(self._generator.encode, chat)
        options = request.stream_options
        with_usage = bool(request.stream and options is not None and options.include_usage)

        async def begin() -> "_InProcessReply":
            try:
                generation = Generation(
                    self._generator,
                    prompt,
                    chat,
                    scheduler=self._scheduler,
                    deadline=call.deadline,
                    key=call.key,
                )
            except EngineOverloaded:
                self._metrics.overloads.labels(self._scheduler.name).inc()
                raise
            return _InProcessReply(generation, self.name, len(prompt), with_usage=with_usage)

        return begin


class _InProcessReply:
    """See `Reply`."""

    def __init__(
        self, generation: Generation, model: str, prompt_tokens: int, *, with_usage: bool
    ) -> None:
        self._generation = generation
        self._prompt_tokens = prompt_tokens
        self._with_usage = with_usage
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }

    @property
    def usage(self) -> Json:
        """See `Reply.usage`."""
        completion_tokens = self._generation.completion_tokens
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self._prompt_tokens + completion_tokens,
        }

    async def chunks(self) -> AsyncGenerator[Json]:
        """See `Reply.chunks`. Raises `EngineTimeout` and what the generator raises."""
        yield self._chunk({"role": "assistant", "content": ""})
        while True:
            if text := await self._generation.take():
                yield self._chunk({"content": text})
            if (end := self._generation.end) is not None:
                break
        yield self._chunk({}, end.finish_reason)
        if self._with_usage:
            yield {**self._head, "choices": [], "usage": self.usage}

    async def whole(self) -> Json:
        """Never asked for: see `Upstream.streams_always`."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `Reply.close`."""
        self._generation.close()

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> Json:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        usage = {"usage": None} if self._with_usage else {}
        return {**self._head, "choices": [choice], **usage}
