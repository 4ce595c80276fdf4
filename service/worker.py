"""Runs blocking model work on one thread, with a bounded queue in front.

The event loop never waits for a model: `submit` returns a future at once or raises
`EngineOverloaded` before anything is queued. One failed job answers only its own caller. When the
thread dies, everyone who waits is answered with `EngineStopped`; when it is closed, with
`EngineClosed`.
Knows nothing of models or HTTP.
"""

import asyncio
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from moderation.errors import (
    EngineClosed,
    EngineError,
    EngineOverloaded,
    EngineStopped,
    EngineTimeout,
    ModerationError,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    is_typical: bool
    """Whether what it takes says something about the next; loading a model does not."""
    future: Future[Any] = field(default_factory=Future)


class Worker:
    """One thread that owns a model; every method is safe from any thread."""

    def __init__(self, name: str, *, capacity: int, max_retry_after_s: float = 60.0) -> None:
        """
        Args:
            name: what messages and metrics call it.
            capacity: jobs that may wait; one more may run.
            max_retry_after_s: no caller is told to come back later than this.
        """
        self.name = name
        self.capacity = capacity
        self.job_seconds: deque[float] = deque(maxlen=31)
        """What the last jobs with a deadline took; a wait is expected by their median, which one
        slow job among them does not move."""
        self._max_retry_after_s = max_retry_after_s
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._running: _Job | None = None
        self._stopped: EngineStopped | None = None
        self._thread = threading.Thread(target=self._loop, name=f"wardgate-{name}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether jobs are still worked on."""
        return self._thread.is_alive() and self._stopped is None

    @property
    def depth(self) -> int:
        """Jobs that wait or run."""
        return len(self._waiting) + (self._running is not None)

    def submit(
        self, work: Callable[[], T], *, deadline: float | None = None, admitted: bool = False
    ) -> Future[T]:
        """Queues a job.

        Args:
            work: called on the thread; has to watch its own deadline.
            deadline: `time.monotonic()` after which its result is of no use.
            admitted: part of something that was let in before, hence never refused as too much.
                At most one such job a request waits at a time, so the queue stays bounded.

        Raises:
            EngineOverloaded: `capacity` jobs wait already, or so many that it could not begin by
                its deadline.
            EngineStopped: the thread died, or was closed (`EngineClosed`).
        """
        job = _Job(work, is_typical=deadline is not None)
        with self._changed:
            if self._stopped is not None:
                raise type(self._stopped)(str(self._stopped))
            if not admitted:
                self._check_room(deadline)
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def _check_room(self, deadline: float | None) -> None:
        job_seconds = statistics.median(self.job_seconds) if self.job_seconds else 0.0
        wait_s = job_seconds * len(self._waiting)
        if len(self._waiting) >= self.capacity:
            found = f"{len(self._waiting)} of {self.capacity} requests"
        elif deadline is not None and time.monotonic() + wait_s > deadline:
            found = (
                f"{len(self._waiting)} requests, an expected wait of {wait_s:.0f} s, which is past"
                " the deadline"
            )
        else:
            return
        retry_after_s = min(max(1.0, wait_s), self._max_retry_after_s)
        raise EngineOverloaded(
            f"the {self.name} queue holds {found}; retry in {retry_after_s:.0f} s",
            retry_after_s=retry_after_s,
        )

    async def run(self, work: Callable[[], T], *, deadline: float, admitted: bool = False) -> T:
        """Queues a job and waits for its result; a caller who is cancelled takes it back.

        Args:
            work: see `submit`.
            deadline: `time.monotonic()` after which the caller is answered without a result.
            admitted: see `submit`.

        Raises:
            EngineTimeout: no result by the deadline; a job that had not begun never will.
            EngineError: see `submit`; or the job failed in a way that is no `ModerationError`.
            ModerationError: what the job raised.
        """
        future = self.submit(work, deadline=deadline, admitted=admitted)
        try:
            return await asyncio.wait_for(
                asyncio.wrap_future(future), max(0.0, deadline - time.monotonic())
            )
        except TimeoutError as exc:
            raise EngineTimeout(
                f"no answer from the {self.name} within the deadline; retry later, or send less"
            ) from exc
        finally:
            self.withdraw(future)

    def withdraw(self, future: Future[Any]) -> None:
        """Takes a job out of the queue whose caller has left; one that runs is not stopped."""
        with self._changed:
            if future.cancel():
                self._waiting = deque(job for job in self._waiting if job.future is not future)

    def refuse(self) -> None:
        """Takes no more jobs, and answers everyone who waits with `EngineClosed`."""
        self._stop(EngineClosed(f"the {self.name} was closed, because the service is stopping"))

    def close(self, *, timeout_s: float = 10.0) -> None:
        """As `refuse`; then gives the running job some time to end, and returns.

        The caller of a job that does not end in time is answered too; its result goes nowhere.
        """
        self.refuse()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        with self._changed:
            if self._running is not None and self._stopped is not None:
                _answer(self._running, self._stopped)

    def _loop(self) -> None:
        try:
            while job := self._next():
                started = time.monotonic()
                self._work(job)
                seconds = time.monotonic() - started
                with self._changed:
                    if job.is_typical:
                        self.job_seconds.append(seconds)
                    self._running = None
        except BaseException as exc:  # not of a job: the thread itself is dying
            reason = f"the {self.name} died ({type(exc).__name__}); restart the service"
            self._stop(EngineStopped(reason))
        finally:
            self._running = None

    def _next(self) -> _Job | None:
        with self._changed:
            while True:
                if self._stopped is not None:
                    return None
                if self._waiting:
                    job = self._waiting.popleft()
                    # from here on the future cannot be cancelled, so setting it cannot fail
                    if job.future.set_running_or_notify_cancel():
                        self._running = job
                        return job
                else:
                    self._changed.wait()

    def _work(self, job: _Job) -> None:
        try:
            result = job.work()
        except ModerationError as exc:
            self._settle(job, exc)
        except Exception as exc:
            # its words may hold content; the cause is kept for the log
            failed = EngineError(f"the {self.name} failed on this item ({type(exc).__name__})")
            failed.__cause__ = exc
            self._settle(job, failed)
        except BaseException as exc:
            self._settle(job, EngineStopped(f"the {self.name} died ({type(exc).__name__})"))
            raise
        else:
            with self._changed:
                if not job.future.done():
                    job.future.set_result(result)

    def _settle(self, job: _Job, exc: ModerationError) -> None:
        with self._changed:
            _answer(job, exc)

    def _stop(self, reason: EngineStopped) -> None:
        with self._changed:
            if self._stopped is None:
                self._stopped = reason
            left, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for job in left:
            if job.future.set_running_or_notify_cancel():
                _answer(job, reason)


def _answer(job: _Job, exc: ModerationError) -> None:
    """The failure of a job, unless its caller was answered already: `close` may be first."""
    if not job.future.done():
        job.future.set_exception(exc)
