"""The classifier as handlers see it: content in, verdict out, without blocking the event loop."""

import asyncio
import copy
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from moderation.caller import Caller, Priority
from moderation.content import Content
from moderation.errors import (
    EngineClosed,
    EngineError,
    EngineOverloaded,
    EngineTimeout,
    ModerationError,
)
from moderation.growing import GrowingContent
from moderation.verdict import Verdict
from moderation.watchdog import MAX_RUN_S
from policies import PolicyLibrary, PolicySet
from service.background import abandon, in_background
from service.metrics import Metrics

if TYPE_CHECKING:
    from moderation.engine import Engine
    from moderation.moderator import Moderator
    from moderation.scheduled_engine import AskScheduler

QUEUE = "classifier"
"""What metrics and messages call it."""


class Judging:
    """A moderator whose engines serve many requests at once.

    Each request is prepared on a thread of its own (decoding, tokens, windows), and what it asks
    the engines is packed together with what the others ask. Used on one event loop.
    """

    def __init__(
        self,
        moderator: "Moderator",
        schedulers: Sequence["AskScheduler"],
        metrics: Metrics,
        *,
        capacity: int,
    ) -> None:
        """
        Args:
            moderator: its engines stand behind the schedulers.
            schedulers: running; closed with this.
            metrics: told of verdicts and refusals.
            capacity: requests that may be prepared, wait or be scored at a time.
        """
        self._moderator = moderator
        self._schedulers = schedulers
        self._metrics = metrics
        self._capacity = capacity
        self._closed = threading.Event()
        self._open: set[Future[Verdict]] = set()
        metrics.watch_queue(QUEUE, lambda: len(self._open))

    @property
    def is_alive(self) -> bool:
        """Whether contents are scored."""
        return all(scheduler.is_alive for scheduler in self._schedulers)

    @property
    def is_hung(self) -> bool:
        """See `Scheduler.is_hung`."""
        return any(scheduler.is_hung for scheduler in self._schedulers)

    @property
    def judges_images(self) -> bool:
        """See `Moderator.judges_images`."""
        return self._moderator.judges_images

    def calibration_gaps(self, policy_set: PolicySet) -> list[str]:
        """See `Moderator.calibration_gaps`."""
        return self._moderator.calibration_gaps(policy_set)

    def under(self, library: PolicyLibrary) -> "Judging":
        """The same classifier by other policies; both have one queue and are closed together."""
        other = copy.copy(self)
        other._moderator = self._moderator.with_library(library)
        return other

    async def judge(
        self,
        content: Content,
        policy_set: PolicySet,
        *,
        deadline: float,
        key: str = "",
        priority: Priority = Priority.CALL,
        admitted: bool = False,
        growing: GrowingContent | None = None,
    ) -> Verdict:
        """The verdict on one content.

        Args:
            content: what to judge.
            policy_set: what to judge it by.
            deadline: `time.monotonic()` by which the caller is answered.
            key, priority, admitted: see `Caller`.
            growing: see `Moderator.judge`.

        Raises:
            EngineTimeout: no verdict by the deadline.
            EngineOverloaded: too much is being judged already, or waits for it.
            EngineClosed: the service is stopping.
            ModerationError: see `Moderator.judge`.
        """
        left = threading.Event()
        caller = Caller(
            deadline=deadline, has_left=left.is_set, key=key, priority=priority, admitted=admitted
        )
        try:
            verdict = await self._answer(content, policy_set, caller, growing)
        except BaseException as exc:
            if isinstance(exc, EngineOverloaded):
                self._metrics.overloads.labels(QUEUE).inc()
            left.set()  # of a caller who was cancelled, the rest need not be scored
            for scheduler in self._schedulers:
                scheduler.prune()
            raise
        self._metrics.count_verdict(content.surface, verdict)
        return verdict

    def refuse(self) -> None:
        """Takes no more contents, and answers everyone who waits for an engine."""
        self._closed.set()
        for scheduler in self._schedulers:
            scheduler.refuse()

    def close(self, *, timeout_s: float) -> None:
        """As `refuse`; then gives what runs some time to end. Blocks; answers everyone."""
        self.refuse()
        end = time.monotonic() + timeout_s
        for scheduler in self._schedulers:
            scheduler.close(timeout_s=max(0.0, end - time.monotonic()))
        wait(self._open.copy(), max(0.0, end - time.monotonic()))
        for work in self._open.copy():
            abandon(work, _stopping())

    def _overloaded(self) -> EngineOverloaded:
        found = f"{len(self._open)} of {self._capacity} requests"
        if self._schedulers:
            return self._schedulers[0].overloaded(found)
        # nobody here knows how long a model server takes
        return EngineOverloaded(f"the {QUEUE} has {found}; retry in 1 s", retry_after_s=1.0)

    async def _answer(
        self,
        content: Content,
        policy_set: PolicySet,
        caller: Caller,
        growing: GrowingContent | None,
    ) -> Verdict:
        if self._closed.is_set():
            raise _stopping()
        if len(self._open) >= self._capacity and not caller.admitted:
            raise self._overloaded()
        work = in_background(
            lambda: self._moderator.judge(content, policy_set, caller=caller, growing=growing),
            name="judge",
        )
        self._open.add(work)
        work.add_done_callback(self._open.discard)
        assert caller.deadline is not None, "a request has a deadline"
        try:
            return await asyncio.wait_for(
                asyncio.wrap_future(work), max(0.0, caller.deadline - time.monotonic())
            )
        except TimeoutError as exc:
            raise EngineTimeout(
                f"no answer from the {QUEUE} within the deadline; retry later, or send less"
            ) from exc
        except ModerationError:
            raise
        except Exception as exc:
            # its words may hold content; the cause is kept for the log
            raise EngineError(f"the {QUEUE} failed on this item ({type(exc).__name__})") from exc


def _stopping() -> EngineClosed:
    return EngineClosed(f"the {QUEUE} was closed, because the service is stopping")


def start_judging(
    moderator: "Moderator",
    metrics: Metrics,
    *,
    capacity: int,
    max_batch_tokens: int,
    max_retry_after_s: float,
    max_run_s: float = MAX_RUN_S,
) -> Judging:
    """Puts the engines of a moderator behind schedulers, which run from now on.

    An engine that works for several callers at a time is left as it is.

    Args:
        moderator: used by nobody else from now on.
        metrics, capacity: see `Judging`.
        max_batch_tokens, max_retry_after_s, max_run_s: see `ScheduledEngine`.
    """
    from moderation.scheduled_engine import ScheduledEngine  # torch, which is loaded by now

    schedulers: list[AskScheduler] = []

    def behind_scheduler(engine: "Engine") -> "Engine":
        if engine.is_concurrent:  # a model server packs what comes by itself
            return engine
        scheduled = ScheduledEngine(
            engine,
            max_batch_tokens=max_batch_tokens,
            max_retry_after_s=max_retry_after_s,
            max_run_s=max_run_s,
        )
        schedulers.append(scheduled.scheduler)
        return scheduled

    return Judging(moderator.with_engines(behind_scheduler), schedulers, metrics, capacity=capacity)
