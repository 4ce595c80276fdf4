"""The remote engine: judge prompts to a model server that returns log-probabilities.

Prompts go as token ids, so that no text can become a control token on the way. Servers that take
only text get it where it reads back as the very same ids, and no score otherwise.
"""

import asyncio
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any

from pydantic import ValidationError

from moderation.caller import PATIENT, Caller
from moderation.engine import Ask
from moderation.errors import EngineError, Unscorable, UnsupportedModality
from moderation.prompts import JudgePrompt
from moderation.remote.logprobs import MIN_MASS, AnswerTokens, Completion, score_of
from moderation.remote.server import ModelServer
from moderation.tokenizer import SafeTokenizer

TOP_LOGPROBS = 20
"""How many tokens are asked for; the most that vLLM returns unless told otherwise."""
_CHECK_EVERY_S = 0.05
"""How often the caller is asked whether it still waits."""


class TextPrompts:
    """Prompts for servers that take no token ids."""

    def __init__(self, tokenizer: SafeTokenizer, *, server_adds_bos: bool) -> None:
        self._tokenizer = tokenizer
        self._server_adds_bos = server_adds_bos

    def render(self, ids: tuple[int, ...]) -> str:
        """The text of which the server makes these ids.

        Raises:
            Unscorable: there is none, for example where content spells a control token.
        """
        text = self._tokenizer.decode(list(ids))
        if self._tokenizer.template(text) != ids:
            raise Unscorable(
                "as text this prompt would be read as other tokens, and the model server takes"
                " only text; a server that takes token ids can score it"
            )
        return text.removeprefix("<bos>") if self._server_adds_bos else text


class RemoteEngine:
    """A model server behind `Engine`; see there."""

    is_concurrent = True

    def __init__(
        self,
        server: ModelServer,
        *,
        model: str,
        answers: AnswerTokens,
        max_prompt_tokens: int,
        top_logprobs: int = TOP_LOGPROBS,
        min_mass: float = MIN_MASS,
        as_text: TextPrompts | None = None,
    ) -> None:
        """
        Args:
            server: used on this engine's own event loop from now on, and closed with it.
            model: what the server calls it.
            answers: the ids of Yes and No.
            max_prompt_tokens: see `Engine`.
            top_logprobs: how many of the most probable tokens the server is asked for. vLLM
                returns the two answers themselves instead.
            min_mass: see `MIN_MASS`.
            as_text: for a server that takes no token ids.
        """
        self.max_prompt_tokens = max_prompt_tokens
        self._server = server
        self._model = model
        self._answers = answers
        self._top_logprobs = top_logprobs
        self._min_mass = min_mass
        self._as_text = as_text
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self._loop,), name="wardgate-remote", daemon=True
        )
        self._thread.start()
        self._end = weakref.finalize(self, _end, self._loop, server)

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        """See `Engine.p_yes`.

        Raises:
            UnsupportedModality: there is an image among the asks.
            Unscorable: the server's answer is none; see `score_of`.
            EngineOverloaded, EngineTimeout, EngineError: see `ModelServer.post`.
        """
        for ask in asks:
            assert ask.prompt.longest <= self.max_prompt_tokens, "the caller splits content"
            assert not ask.prompt.query, "a server has only one order of attention"
            if ask.pixels is not None:
                raise UnsupportedModality("images cannot be judged by a model server; only text")
        caller.check()
        prompts = [ask.prompt for ask in asks]
        work = asyncio.run_coroutine_threadsafe(self._all(prompts, caller.deadline), self._loop)
        try:
            while not wait([work], timeout=_CHECK_EVERY_S).done:
                caller.check()  # the deadline too
            return work.result()
        finally:
            work.cancel()  # closes the connections, whereupon servers stop working on the prompts

    def close(self) -> None:
        """Closes the connections and ends the thread. Nobody may wait for a score any more.

        Happens by itself, a little later, when nothing refers to the engine any more.
        """
        self._end()
        self._thread.join()

    async def _all(
        self, prompts: Sequence[JudgePrompt], deadline: float | None
    ) -> list[list[float]]:
        try:
            async with asyncio.TaskGroup() as group:
                scores = [group.create_task(self._each(prompt, deadline)) for prompt in prompts]
        except ExceptionGroup as failures:
            raise _first(failures) from None
        return [task.result() for task in scores]

    async def _each(self, prompt: JudgePrompt, deadline: float | None) -> list[float]:
        """Of one content: the first question alone, so that the server has the keys and values of
        the content when the others come."""
        first = await self._one((*prompt.prefix, *prompt.leaves[0]), deadline)
        async with asyncio.TaskGroup() as group:
            rest = [
                group.create_task(self._one((*prompt.prefix, *leaf), deadline))
                for leaf in prompt.leaves[1:]
            ]
        return [first, *(task.result() for task in rest)]

    async def _one(self, ids: tuple[int, ...], deadline: float | None) -> float:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(ids) if self._as_text is None else self._as_text.render(ids),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": self._top_logprobs,
            # vLLM: these two tokens instead of the most probable ones, named by id. Others have no
            # such fields and pass over them.
            "logprob_token_ids": [self._answers.yes, self._answers.no],
            "return_tokens_as_token_ids": True,
        }
        completion = read_completion(await self._server.post("completions", body, deadline))
        read = completion.prompt_tokens
        if read != len(ids) and (read is not None or self._as_text is not None):
            raise Unscorable(
                f"the model server read {'an unknown number of' if read is None else read} tokens"
                f" of a prompt of {len(ids)}: it cuts prompts off, or has another tokenizer"
            )
        return score_of(
            completion.first_logprobs(),
            self._answers,
            top=self._top_logprobs,
            min_mass=self._min_mass,
        )


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, server: ModelServer) -> None:
    """Waits for nothing: the garbage collector may call it on the loop's own thread."""

    async def close() -> None:
        await server.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)


def read_completion(body: bytes) -> Completion:
    """The answer of a server. Raises `EngineError`."""
    try:
        return Completion.model_validate_json(body)
    except ValidationError:  # its words quote the answer
        raise EngineError(
            "the model server answered with something that is no completion of OpenAI's shape;"
            " expected the JSON of POST /v1/completions"
        ) from None


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    """The first failure of a group that may hold groups; the others had the same cause, mostly."""
    failure: Exception = failures
    while isinstance(failure, ExceptionGroup):
        failure = failure.exceptions[0]
    return failure
