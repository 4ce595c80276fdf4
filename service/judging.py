"""The classifier as handlers see it: content in, verdict out, without blocking the event loop."""

import threading
from typing import Protocol

from moderation.caller import PATIENT, Caller
from moderation.content import Content
from moderation.errors import EngineOverloaded
from moderation.growing import GrowingContent
from moderation.verdict import Verdict
from policies import PolicySet
from service.metrics import Metrics
from service.worker import Worker


class Judge(Protocol):
    """What judges contents; `moderation.moderator.Moderator` is the real one. Blocking."""

    def judge(
        self,
        content: Content,
        policy_set: PolicySet,
        *,
        caller: Caller = PATIENT,
        growing: GrowingContent | None = None,
    ) -> Verdict:
        """See `Moderator.judge`."""
        ...


class Judging:
    """A judge behind the queue of its worker."""

    def __init__(self, judge: Judge, worker: Worker, metrics: Metrics) -> None:
        self._judge = judge
        self._worker = worker
        self._metrics = metrics
        metrics.watch_queue(worker.name, lambda: worker.depth)

    async def judge(
        self,
        content: Content,
        policy_set: PolicySet,
        *,
        deadline: float,
        admitted: bool = False,
        growing: GrowingContent | None = None,
    ) -> Verdict:
        """The verdict on one content.

        Args:
            content: what to judge.
            policy_set: what to judge it by.
            deadline: `time.monotonic()` by which the caller is answered.
            admitted: see `Worker.submit`.
            growing: see `Moderator.judge`.

        Raises:
            ModerationError: see `Moderator.judge` and `Worker.run`.
        """
        left = threading.Event()
        caller = Caller(deadline, left.is_set)
        try:
            verdict = await self._worker.run(
                lambda: self._judge.judge(content, policy_set, caller=caller, growing=growing),
                deadline=deadline,
                admitted=admitted,
            )
        except EngineOverloaded:
            self._metrics.overloads.labels(self._worker.name).inc()
            raise
        finally:
            left.set()  # of a caller who was cancelled, the rest need not be scored
        self._metrics.count_verdict(content.surface, verdict)
        return verdict
