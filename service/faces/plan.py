"""From a request of a face to its answer: what to judge, by what, and how to tell the verdicts.

A failure is never a verdict: it leaves as an HTTP error, whatever the policy set's `on_error` says,
and the client decides what that means. `on_error` is about the gate, which has nobody to ask.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from moderation.verdict import Verdict
from policies import Action, PolicySet
from service.callers import caller_key, unless_caller_leaves
from service.errors import ErrorShape, error_body
from service.gate.checks import PASSING
from service.in_force import InForce
from service.questions import Question, judge_in_order
from service.remote_files import RemoteFile, fetch_files
from service.runtime import runtime_of
from service.schemas import Model, read_body

REMOVED = "[removed by the content policy]"
"""Stands for a text whose action is `redact`. The whole text goes: a window is no smaller than
most texts, and what surrounds a violation often repeats it."""

HELD = frozenset(Action) - PASSING
"""Actions that let nothing through where there is nobody to review it and nothing to rewrite."""
HELD_OR_REMOVED = HELD - {Action.REDACT}
"""The same for faces that can hand a text back with something removed."""


@dataclass(frozen=True, slots=True)
class Face:
    """The routes of one API, and how it tells failures."""

    router: APIRouter
    error_body: ErrorShape = error_body

    @property
    def paths(self) -> frozenset[str]:
        """The paths of its routes."""
        return frozenset(r.path for r in self.router.routes if isinstance(r, APIRoute))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request asks for."""

    questions: Sequence[Question]
    policy_set: PolicySet
    tell: Callable[[Sequence[Verdict]], dict[str, object]]
    """From the verdicts, in the order of the questions, to the body of the answer. After one of an
    action in `until` there are no more."""
    until: frozenset[Action] = HELD


async def serve(
    request: Request,
    model: type[Model],
    read: Callable[[InForce, Model], Plan],
    files: Callable[[Model], Iterable[RemoteFile]] = lambda _: (),
) -> Response:
    """Answers a request.

    Args:
        request: its body is not read yet.
        model: what the body has to be.
        read: from the body to the plan; runs on a thread, as bodies may hold images.
        files: of the body that are named by URLs; see `fetch_files`. Those that are left are
            refused by `read`.

    Raises:
        ServiceError, ModerationError, PolicyError: there is no answer; see `service.errors`.
    """
    runtime = runtime_of(request)
    in_force = runtime.in_force  # first: who cannot be served need not be read
    body = await read_body(request, model)
    max_body_bytes = runtime.settings.max_body_bytes
    await fetch_files(request, files(body), runtime.downloader, max_body_bytes=max_body_bytes)
    plan = await asyncio.to_thread(read, in_force, body)
    del body  # or images would be held twice
    return await unless_caller_leaves(request, _answer(in_force, plan, caller_key(request)))


async def _answer(in_force: InForce, plan: Plan, key: str) -> Response:
    verdicts = await judge_in_order(
        in_force, plan.questions, plan.policy_set, key=key, until=plan.until
    )
    return JSONResponse(plan.tell(verdicts))


def deciding(verdict: Verdict) -> list[str]:
    """Ids of the policies that gave a verdict its action; see `Verdict.deciding`."""
    return [score.policy_id for score in verdict.deciding]


def reason(verdict: Verdict) -> str:
    """Why a content did not pass, for those who sent it; repeats nothing of the content."""
    found = ", ".join(deciding(verdict)) or "a part of it could not be judged"
    return f"blocked by the content policy: {found}"
