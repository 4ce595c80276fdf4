"""Small real parts for the tests of the service: a tokenizer of bytes, an engine that scores by a
function of the text, a generator that recites, and a server on a free port of loopback.

Moderator, prompts, windows, workers, gate and HTTP are the real ones.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import uvicorn
from torch import nn

from moderation.checkpoints import Classifier
from moderation.moderator import Moderator
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import ModelInfo
from policies import Action, PolicyLibrary, PolicyRule, PolicySet, load_library
from service.chat import Chat
from service.generation import End, Generator, Piece
from service.runtime import Runtime
from service.server import Server
from service.settings import Settings
from tests.moderation.asking import OneByOne
from tests.service.in_thread import in_thread
from tests.waiting import wait_until

CONTROLS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")


def byte_tokenizer() -> SafeTokenizer:
    """A token a byte, and Gemma's control tokens."""
    vocabulary = [*CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256))]
    spec: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, content in enumerate(CONTROLS)
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(vocabulary)},
            "merges": [],
        },
    }
    return SafeTokenizer(json.dumps(spec))


TOKENIZER = byte_tokenizer()


@dataclass(frozen=True)
class Asked:
    """One call of the scripted engine."""

    text: str
    score: float
    at: float
    """`time.monotonic()` when the score was known."""


@dataclass
class ScriptedEngine(OneByOne):
    """Scores a content by a function of its text, the same for every policy."""

    score: Callable[[str], float]
    max_prompt_tokens: int = 8192
    asked: list[Asked] = field(default_factory=list)

    def answer(self, prompt: JudgePrompt) -> list[float]:
        text = TOKENIZER.decode(list(prompt.prefix))
        for marker in ("<start_of_turn>user\n", "<start_of_turn>model\n"):
            text = text.rpartition(marker)[2]
        score = self.score(text)
        self.asked.append(Asked(text, score, time.monotonic()))
        return [score] * len(prompt.leaves)


def bad_is_bad(text: str) -> float:
    """1.0 for a text with BAD in it, else 0.0."""
    return float("BAD" in text)


def scripted_moderator(engine: ScriptedEngine) -> Moderator:
    """The real moderator over a scripted engine."""
    classifier = Classifier(
        info=ModelInfo(name="scripted", revision="1", template="compact", dtype="float32"),
        engine=engine,
        builder=PromptBuilder(TEMPLATES["compact"], TOKENIZER),
        model=nn.Identity(),
        window_tokens=2048,
        to_pixels=None,
        checks=(),
    )
    return Moderator(LIBRARY, classifier)


@dataclass
class RecitingGenerator:
    """Says the same pieces to everyone; `before_piece` may wait or raise."""

    pieces: Sequence[str] = ("Hello", " there.")
    before_piece: Callable[[int], None] = lambda _: None
    name: str = "reciting"
    reads_images: bool = False
    said: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def encode(self, chat: Chat) -> tuple[int, ...]:
        return TOKENIZER.content("".join(message.text for message in chat.messages)).ids

    def generate(
        self,
        prompt: tuple[int, ...],
        chat: Chat,
        *,
        emit: Callable[[Piece], None],
        has_left: Callable[[], bool],
    ) -> End:
        try:
            for index, piece in enumerate(self.pieces):
                self.before_piece(index)
                if has_left():
                    break
                self.said.append(piece)
                emit(Piece(piece, index + 1))
            return End("stop", len(self.said))
        finally:
            self.ended.set()


def rules(action: Action = Action.BLOCK) -> tuple[PolicyRule, ...]:
    """One policy, violated from 0.5."""
    return (PolicyRule(id="harassment", threshold=0.5, action=action),)


def _library() -> PolicyLibrary:
    built_in = load_library()
    more = [
        PolicySet(id="closed", version=1, policies=rules(), on_error="block"),
        PolicySet(id="opened", version=1, policies=rules(), on_error="allow"),
        PolicySet(id="flagging", version=1, policies=rules(Action.FLAG)),
        PolicySet(
            id="shadowing",
            version=1,
            policies=tuple(rule.model_copy(update={"mode": "shadow"}) for rule in rules()),
        ),
        PolicySet(id="reviewing", version=1, policies=rules(Action.REVIEW)),
        PolicySet(id="reading", version=1, policies=rules(), on_incomplete="allow"),
        PolicySet(id="redacting", version=1, policies=rules(Action.REDACT)),
        PolicySet(
            id="redacting_images",
            version=1,
            policies=rules(Action.REDACT),
            on_incomplete="allow",
        ),
        PolicySet(
            id="redacting_or_blocking",
            version=1,
            policies=(
                *rules(Action.REDACT),
                PolicyRule(id="violence", threshold=0.9, action=Action.BLOCK),
                PolicyRule(
                    id="sexually_explicit", threshold=0.5, action=Action.BLOCK, mode="shadow"
                ),
            ),
        ),
        PolicySet(
            id="mixed",
            version=1,
            policies=(
                PolicyRule(id="violence", threshold=0.5, action=Action.FLAG),
                *rules(Action.BLOCK),
            ),
        ),
        PolicySet(
            id="speaking",
            version=1,
            policies=(
                PolicyRule(
                    id="violence",
                    threshold=0.5,
                    action=Action.REVIEW,
                    refusal="Not in the words of the milder one.",
                ),
                rules()[0].model_copy(update={"refusal": {"en": "No.", "de": "Nein."}}),
            ),
        ),
        PolicySet(
            id="speaking_as_one", version=1, policies=rules(), refusal={"fr": "Non.", "en": "No."}
        ),
    ]
    return replace(built_in, sets={**built_in.sets, **{item.id: item for item in more}})


LIBRARY = _library()


def settings(**changes: Any) -> Settings:
    """Settings of a test; short deadlines, a small limit on bodies."""
    values: dict[str, Any] = {
        "policy_set": "closed",
        "max_body_bytes": 1024 * 1024,
        "deadline_s": 10.0,
        "generation_deadline_s": 20.0,
        "check_every_chars": 20,
        "hold_back_chars": 0,
        "pre_filter": "first",
        **changes,
    }
    return Settings(**values)


@contextmanager
def serving(
    judge: Moderator | Callable[[], Moderator] | None = None,
    generator: Generator | None = None,
    *,
    wait_ready: bool = True,
    **changes: Any,
) -> Iterator[str]:
    """The URL of a service over these parts, on uvicorn, on a free port of loopback."""
    with serving_runtime(judge, generator, wait_ready=wait_ready, **changes) as (url, _):
        yield url


@contextmanager
def serving_runtime(
    judge: Moderator | Callable[[], Moderator] | None = None,
    generator: Generator | None = None,
    *,
    wait_ready: bool = True,
    **changes: Any,
) -> Iterator[tuple[str, Runtime]]:
    """See `serving`; the runtime too."""
    with serving_server(judge, generator, wait_ready=wait_ready, **changes) as (url, runtime, _):
        yield url, runtime


@contextmanager
def serving_server(
    judge: Moderator | Callable[[], Moderator] | None = None,
    generator: Generator | None = None,
    *,
    wait_ready: bool = True,
    **changes: Any,
) -> Iterator[tuple[str, Runtime, uvicorn.Server]]:
    """See `serving`; the runtime and the server too."""
    parts = judge or scripted_moderator(ScriptedEngine(bad_is_bad))
    load_moderator = parts if callable(parts) else lambda: parts
    runtime = Runtime(
        settings(**changes),
        LIBRARY,
        load_moderator=load_moderator,
        load_generator=(lambda: generator) if generator is not None else None,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(runtime)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener, in_thread(server, [listener]):
        wait_until(lambda: not wait_ready or runtime.state != "loading")
        yield url, runtime, server


def chat_body(text: str = "Hi", **more: Any) -> dict[str, Any]:
    """A chat of one user message."""
    return {"model": "any", "messages": [{"role": "user", "content": text}], **more}


def stream_events(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of every event of a stream, which has to end with [DONE]."""
    lines = [line for line in response.text.split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines), "only data and comments"
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def streamed_text(events: list[dict[str, Any]]) -> str:
    """What a client shows of a stream."""
    return "".join(
        choice["delta"].get("content", "")
        for event in events
        for choice in event.get("choices", ())
    )


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, after a check of its shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    error: dict[str, Any] = body["error"]
    return error
