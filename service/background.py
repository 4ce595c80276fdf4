"""Work beside the work: blocking, on a thread of its own that never keeps the process from ending;
or on the event loop, several at a time."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def in_background(work: Callable[[], T], *, name: str) -> Future[T]:
    """Begins the work at once.

    Args:
        work: called on a new daemon thread. What it raises goes into the future, what is no
            Exception as the cause of a RuntimeError: it must not end the thread that waits.
        name: of the thread.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # nobody cancels it by leaving: its end can be seen

    def run() -> None:
        with suppress(InvalidStateError):  # it was abandoned
            try:
                future.set_result(work())
            except Exception as exc:
                future.set_exception(exc)
            except BaseException as exc:
                failure = RuntimeError(f"the thread died ({type(exc).__name__})")
                failure.__cause__ = exc
                future.set_exception(failure)

    threading.Thread(target=run, name=f"wardgate-{name}", daemon=True).start()
    return future


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order; the first failure is raised, and ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def abandon(future: Future[T], exc: Exception) -> None:
    """Answers whoever waits for work that has not ended; its result goes nowhere."""
    with suppress(InvalidStateError):
        future.set_exception(exc)
