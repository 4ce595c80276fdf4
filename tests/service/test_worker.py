import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from moderation.errors import (
    EngineClosed,
    EngineError,
    EngineOverloaded,
    EngineStopped,
    EngineTimeout,
    Unscorable,
)
from service.worker import Worker
from tests.service.scripted import wait_until


class Dying(BaseException):
    """Not an Exception: ends the thread."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("classifier", capacity=2)
    made.start()
    yield made
    made.close()


def soon() -> float:
    return time.monotonic() + 5


def test_a_job_runs_on_the_one_thread_that_owns_the_model(worker: Worker) -> None:
    async def ask() -> str:
        return await worker.run(lambda: threading.current_thread().name, deadline=soon())

    assert {asyncio.run(ask()) for _ in range(3)} == {"wardgate-classifier"}


def test_past_capacity_a_caller_is_refused_before_anything_is_queued(worker: Worker) -> None:
    gate = threading.Event()
    first = worker.submit(gate.wait)
    wait_until(first.running)
    queued = [worker.submit(lambda: 1) for _ in range(2)]
    with pytest.raises(EngineOverloaded, match="holds 2 of 2") as caught:
        worker.submit(lambda: 1)
    assert caught.value.retry_after_s >= 1
    assert worker.depth == 3
    admitted = worker.submit(lambda: 2, admitted=True)
    gate.set()
    assert [job.result(5) for job in (*queued, admitted)] == [1, 1, 2]


def known(*seconds: float, **more: Any) -> Worker:
    """A worker, not started, whose last jobs took so long; one job waits."""
    made = Worker("classifier", capacity=4, **more)
    made.job_seconds.extend(seconds)
    made.submit(lambda: None)
    return made


def test_one_slow_job_does_not_drive_callers_away() -> None:
    worker = known(0.1, 0.1, 400.0, 0.1, 0.1)
    worker.submit(lambda: None, deadline=soon())
    for _ in range(2):
        worker.submit(lambda: None)
    with pytest.raises(EngineOverloaded, match="holds 4 of 4") as caught:
        worker.submit(lambda: None)
    assert caught.value.retry_after_s == 1.0


def test_a_caller_is_never_told_to_wait_longer_than_the_most() -> None:
    worker = known(400.0, max_retry_after_s=60.0)
    with pytest.raises(EngineOverloaded, match="retry in 60 s") as caught:
        worker.submit(lambda: None, deadline=soon())
    assert caught.value.retry_after_s == 60.0


def test_a_caller_who_cannot_be_served_in_time_is_refused_at_once() -> None:
    worker = known(8.0, 8.0)
    with pytest.raises(EngineOverloaded, match="expected wait of 8 s"):
        worker.submit(lambda: None, deadline=time.monotonic() + 5)
    worker.submit(lambda: None, deadline=time.monotonic() + 5, admitted=True)
    worker.submit(lambda: None, deadline=time.monotonic() + 30)
    worker.submit(lambda: None)
    assert worker.depth == 4


def test_a_worker_that_knows_nothing_yet_refuses_nobody_for_the_time() -> None:
    worker = known()
    worker.submit(lambda: None, deadline=time.monotonic() + 0.1)
    assert worker.depth == 2


def test_loading_a_model_says_nothing_about_the_jobs_after_it(worker: Worker) -> None:
    worker.submit(lambda: None).result(5)
    worker.submit(lambda: None, deadline=soon()).result(5)
    wait_until(lambda: worker.depth == 0)
    assert len(worker.job_seconds) == 1


def test_a_caller_is_answered_at_the_deadline_and_the_queued_job_never_begins(
    worker: Worker,
) -> None:
    gate = threading.Event()
    begun: list[int] = []
    worker.submit(gate.wait)

    async def ask() -> None:
        started = time.monotonic()
        with pytest.raises(EngineTimeout, match="deadline"):
            await worker.run(lambda: begun.append(1), deadline=started + 0.05)
        assert time.monotonic() - started < 1

    asyncio.run(ask())
    assert worker.depth == 1, "the job of the caller who left is out of the queue"
    gate.set()
    worker.submit(lambda: None).result(5)
    assert not begun


def test_a_caller_who_leaves_takes_the_queued_job_back(worker: Worker) -> None:
    gate = threading.Event()
    begun: list[int] = []
    worker.submit(gate.wait)

    async def ask() -> None:
        task = asyncio.ensure_future(worker.run(lambda: begun.append(1), deadline=soon()))
        await asyncio.sleep(0.02)
        assert worker.depth == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError, match=r"^$"):
            await task
        assert worker.depth == 1

    asyncio.run(ask())
    gate.set()
    worker.submit(lambda: None).result(5)
    assert not begun


def test_a_poisoned_job_answers_its_own_caller_only(worker: Worker) -> None:
    def poisoned() -> None:
        raise ZeroDivisionError("the content of somebody")

    async def ask() -> int:
        with pytest.raises(
            EngineError, match=r"failed on this item \(ZeroDivisionError\)"
        ) as caught:
            await worker.run(poisoned, deadline=soon())
        assert "somebody" not in str(caught.value)
        return await worker.run(lambda: 7, deadline=soon())

    assert asyncio.run(ask()) == 7
    assert worker.is_alive


def test_an_error_of_our_own_reaches_the_caller_as_it_is(worker: Worker) -> None:
    def unscorable() -> None:
        raise Unscorable("NaN")

    async def ask() -> None:
        with pytest.raises(Unscorable, match="NaN"):
            await worker.run(unscorable, deadline=soon())

    asyncio.run(ask())


def test_when_the_thread_dies_everyone_is_answered(worker: Worker) -> None:
    gate = threading.Event()

    def die() -> None:
        gate.wait()
        raise Dying

    dying, waiting = worker.submit(die), worker.submit(lambda: 1)
    gate.set()
    for job in (dying, waiting):
        with pytest.raises(EngineStopped, match="died"):
            job.result(5)
    wait_until(lambda: not worker.is_alive)
    with pytest.raises(EngineStopped, match="restart the service"):
        worker.submit(lambda: 1)


def test_after_close_callers_get_engine_closed_and_the_running_job_its_result() -> None:
    worker = Worker("classifier", capacity=2)
    worker.start()
    gate = threading.Event()
    running, waiting = worker.submit(gate.wait), worker.submit(lambda: 1)
    wait_until(running.running)
    closing = threading.Thread(target=worker.close)
    closing.start()
    with pytest.raises(EngineClosed, match="closed"):
        waiting.result(5)
    gate.set()
    closing.join(5)
    assert running.result(5) is True
    with pytest.raises(EngineClosed, match="closed"):
        worker.submit(lambda: 1)
    assert not worker.is_alive


def test_a_job_that_does_not_end_in_time_is_abandoned_and_its_caller_answered() -> None:
    worker = Worker("classifier", capacity=2)
    worker.start()
    gate = threading.Event()
    running = worker.submit(gate.wait)
    wait_until(running.running)
    worker.close(timeout_s=0.05)
    with pytest.raises(EngineClosed, match="closed"):
        running.result(0)
    gate.set()  # its late result goes nowhere, and the thread ends
    worker.close()
    assert not worker.is_alive
