"""A service as the subject of a run: asked over HTTP, a bounded number of records at a time.

What a service did not score is an error in the results, never a score. A service that is gone, or
that has become another one, ends the run: that is no record's fault.
"""

import asyncio
import re
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Self
from urllib.parse import urlsplit

from pydantic import JsonValue, SecretStr

from evals.answers import Answer, Api, NoScore
from evals.errors import RunError
from evals.journal import Entry
from evals.run import Keep, Workload
from evals.tasks import Task, Tasks
from moderation.content import Content
from moderation.verdict import ModelInfo
from policies import PolicyRule, PolicySet, Surface
from wardgate_client import (
    AsyncClient,
    ErrorAnswer,
    Overloaded,
    TimeUp,
    Unreachable,
    WardgateError,
)

RETRIES = 8
"""After 429, 503 and broken connections, within the time of a record; the waits double from a
quarter of a second to half a minute where the service does not say."""
MAX_CONNECTIONS = 100
"""That a client holds open."""

_NOT_THERE = {401, 403, 404, 405, 502, 503}
"""Statuses that say nothing of the record: no way in, or nobody behind the door."""
_HELLO = "How do I boil an egg?"


class ServiceError(RunError):
    """A service is gone, refuses to be asked, or has become another one."""

    code = "service_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a service is and how it is asked."""

    url: str
    """Without `/v1`."""
    host: str
    """With its port: what a run records of the URL."""
    api: Api
    api_key: SecretStr | None
    """Sent as a bearer token."""
    connections: int
    """Records that are asked about at a time."""
    timeout_s: float
    """Of a record, tries and waits included."""

    @classmethod
    def of(
        cls, url: str, api: Api, *, api_key: SecretStr | None, connections: int, timeout_s: float
    ) -> Self:
        """Raises `ValueError`: no URL of a service, or a key is in it."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL such as http://127.0.0.1:8080")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("expected no key in the URL; put it into WARDGATE_REMOTE_API_KEY")
        return cls(
            url=url.rstrip("/").removesuffix("/v1"),
            host=parts.netloc,
            api=api,
            api_key=api_key,
            connections=connections,
            timeout_s=timeout_s,
        )

    def client(self) -> AsyncClient:
        """For one event loop."""
        key = self.api_key.get_secret_value() if self.api_key is not None else None
        return AsyncClient(self.url, api_key=key, timeout=self.timeout_s, retries=RETRIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service that has said who it is."""

    address: Address
    model: ModelInfo
    policies: dict[str, str]
    """By policy id, the hash of the words that it judges by."""

    def words(self, policy_set: PolicySet) -> dict[str, str]:
        """As the service stated them."""
        asked = [rule.id for rule in policy_set.policies if rule.id in self.policies]
        return {policy: self.policies[policy] for policy in asked}

    def manifest(self, _workload: Workload) -> dict[str, JsonValue]:
        """The model as the service stated it; nothing of the key."""
        categories = self.address.api.categories
        return {
            "model": asdict(self.model),
            "service": {
                "host": self.address.host,
                "categories": categories.model_dump(mode="json") if categories else None,
            },
            "versions": {"wardgate": version("wardgate")},
        }

    def about(self) -> dict[str, JsonValue]:
        """The model in words, and where it stands."""
        return {
            "model": f"{self.model.name} ({self.model.revision}) at {self.address.host}",
            "calibrated": self.model.calibration is not None,
            "service": self.address.host,
        }

    def score(self, workload: Workload, done: Container[str], keep: Keep) -> None:
        """Asks about every task that is not done, and keeps each answer as it comes.

        Raises:
            ServiceError: the service is gone or another one; what was kept is complete.
        """
        try:
            asyncio.run(self._score(workload.tasks, done, keep))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _score(self, tasks: Tasks, done: Container[str], keep: Keep) -> None:
        left = (task for task in tasks if task.record.id not in done)
        async with self.address.client() as client, asyncio.TaskGroup() as group:
            for _ in range(self.address.connections):
                group.create_task(self._work(client, left, keep))

    async def _work(self, client: AsyncClient, left: Iterator[Task], keep: Keep) -> None:
        for task in left:  # shared by all workers: each takes the next one
            keep([await self._entry(client, task)])

    async def _entry(self, client: AsyncClient, task: Task) -> Entry:
        began = time.monotonic()
        found = await _ask(self.address, client, task.record.content, task.rules)
        wall_s = round(time.monotonic() - began, 6)
        if isinstance(found, str):
            return Entry.not_scored(task.record.id, found, cpu_s=0.0, wall_s=wall_s)
        self._check_same(found)
        return Entry(
            id=task.record.id,
            scores={rule.id: found.scores[rule.id].outcome(rule) for rule in task.rules},
            coverage="scored" if found.complete else "partial",
            tokens=found.tokens,
            windows=found.windows,
            error=None,
            cpu_s=0.0,
            wall_s=wall_s,
        )

    def _check_same(self, found: Answer) -> None:
        stated = {policy: score.words for policy, score in found.scores.items()}
        changed = [name for name, words in stated.items() if self.policies[name] != words]
        if found.model == self.model and not changed:
            return
        what = (
            f"the words of {', '.join(changed)}"
            if changed
            else f"its model from {self.model} to {found.model}"
        )
        raise ServiceError(
            f"{self.address.host} has changed {what} since the run began, so its scores cannot"
            " stand together; begin again with another --out"
        )


def meet(address: Address, workload: Workload) -> Service:
    """Asks a service who it is, and whether it scores all policies of a workload.

    Raises:
        ServiceError: it is not there, is not of this kind, or lacks a policy; or the data has
            images.
    """
    if workload.images_sha256 is not None:
        raise ServiceError("the data has images; expected texts alone, which services are asked")
    rules: dict[Surface, dict[str, PolicyRule]] = {}
    for task in workload.tasks:
        known = rules.setdefault(task.record.surface, {})
        known.update({rule.id: rule for rule in task.rules})
    answers = asyncio.run(_greet(address, {s: tuple(r.values()) for s, r in rules.items()}))
    if any(answer.model != answers[0].model for answer in answers):
        raise ServiceError(f"{address.host} answers with different models from one to the next")
    policies = {
        policy: score.words for answer in answers for policy, score in answer.scores.items()
    }
    return Service(address=address, model=answers[0].model, policies=policies)


async def _greet(address: Address, rules: dict[Surface, tuple[PolicyRule, ...]]) -> list[Answer]:
    answers = []
    async with address.client() as client:
        for surface, asked in rules.items():
            content = (
                Content.prompt(_HELLO) if surface is Surface.PROMPT else Content.response(_HELLO)
            )
            found = await _ask(address, client, content, asked)
            if isinstance(found, str):
                raise ServiceError(
                    f"{address.host} cannot be measured: {found}; expected Wardgate, or with"
                    " --categories a server of OpenAI's moderation API that has them"
                )
            answers.append(found)
    return answers


async def _ask(
    address: Address, client: AsyncClient, content: Content, rules: Sequence[PolicyRule]
) -> Answer | str:
    """What the service says of a content, or why it says nothing, without a word of it.

    Raises:
        ServiceError: the service is at fault and not the content.
    """
    policies = [rule.id for rule in rules]
    try:
        # the client's timeout is for each step of a request; one that trickles would never end
        async with asyncio.timeout(address.timeout_s):
            body = address.api.body(content, policies)
            answer = await client.request("POST", "/v1/moderations", body)
        return address.api.read(answer, policies)
    except NoScore as exc:
        return f"no_score: {exc}"
    except UnicodeEncodeError:
        return "invalid_text: the text has a lone surrogate, half of a character"
    except (TimeUp, TimeoutError):
        return f"timeout: no answer within {address.timeout_s:g} s"
    except WardgateError as exc:
        if _ends_the_run(exc):
            raise ServiceError(
                f"{address.host}: {_in_our_words(exc)}; what is done is kept, run the same command"
                " again"
            ) from exc
        return _in_our_words(exc)


def _ends_the_run(failure: WardgateError) -> bool:
    if isinstance(failure, ErrorAnswer):
        return isinstance(failure, Overloaded) or failure.status in _NOT_THERE
    return isinstance(failure, Unreachable)


def _in_our_words(failure: WardgateError) -> str:
    """What a service said may quote the content; its status and the name of its error do not."""
    if not isinstance(failure, ErrorAnswer):
        return f"unreachable: {failure}"
    code = failure.code or ""
    named = code if re.fullmatch(r"[a-z][a-z0-9_]{0,63}", code) else "error"
    if failure.status in (401, 403):
        return f"{named}: status {failure.status}; is WARDGATE_REMOTE_API_KEY set, and right"
    return f"{named}: the service answers with status {failure.status}"
