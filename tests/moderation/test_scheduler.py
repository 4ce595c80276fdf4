import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.caller import Caller, Priority
from moderation.errors import (
    CallerLeft,
    EngineClosed,
    EngineError,
    EngineOverloaded,
    EngineStopped,
    EngineTimeout,
    Unscorable,
)
from moderation.scheduler import Scheduler

Work = Callable[[], Any]
WorkScheduler = Scheduler[Work, Any]


class Dying(BaseException):
    """Not an Exception: ends the thread."""


def run_all(works: Sequence[Work]) -> list[Any]:
    return [work() for work in works]


@contextmanager
def working(**more: Any) -> Iterator[WorkScheduler]:
    made = WorkScheduler("classifier", run_all, restart_delay_s=0.01, **more)
    made.start()
    yield made
    made.close()


@pytest.fixture
def scheduler() -> Iterator[WorkScheduler]:
    with working(capacity=2) as made:
        yield made


def soon() -> Caller:
    return Caller(deadline=time.monotonic() + 5)


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


@contextmanager
def held(scheduler: WorkScheduler) -> Iterator[Future[Any]]:
    """Keeps the thread busy for the length of the block."""
    gate = threading.Event()
    [running] = scheduler.submit([lambda: gate.wait(10)], Caller(admitted=True))
    wait_until(running.running)
    try:
        yield running
    finally:
        gate.set()


def test_all_work_runs_on_the_one_thread(scheduler: WorkScheduler) -> None:
    names = {
        scheduler.submit([lambda: threading.current_thread().name], soon())[0].result(5)
        for _ in range(3)
    }
    assert names == {"wardgate-classifier"}


def test_past_capacity_a_caller_is_refused_before_anything_is_queued(
    scheduler: WorkScheduler,
) -> None:
    with held(scheduler):
        queued = scheduler.submit([lambda: 1])
        with pytest.raises(EngineOverloaded, match="holds 1 of 2") as caught:
            scheduler.submit([lambda: 1, lambda: 1])
        assert caught.value.retry_after_s >= 1
        assert scheduler.depth == 2
        admitted = scheduler.submit([lambda: 2, lambda: 3], Caller(admitted=True))
    assert [future.result(5) for future in (*queued, *admitted)] == [1, 2, 3]


def knowing(*seconds: float, waiting: int = 1, **more: Any) -> Scheduler[int, int]:
    """A scheduler, not started, of items of cost 1; its last runs took so long for each."""
    made = Scheduler[int, int]("classifier", list, **more)
    made._seconds_per_cost.extend(seconds)
    made.submit([0] * waiting)
    return made


def test_one_slow_run_does_not_drive_callers_away() -> None:
    scheduler = knowing(0.1, 0.1, 400.0, 0.1, 0.1, waiting=4, capacity=5)
    scheduler.submit([0], soon())
    with pytest.raises(EngineOverloaded, match="holds 5 of 5") as caught:
        scheduler.submit([0])
    assert caught.value.retry_after_s == 1.0


def test_a_caller_is_never_told_to_wait_longer_than_the_most() -> None:
    scheduler = knowing(400.0, max_retry_after_s=60.0)
    with pytest.raises(EngineOverloaded, match="retry in 60 s") as caught:
        scheduler.submit([0], soon())
    assert caught.value.retry_after_s == 60.0


def test_a_caller_who_cannot_be_served_in_time_is_refused_at_once() -> None:
    scheduler = knowing(8.0, 8.0)
    with pytest.raises(EngineOverloaded, match="expected wait of 8 s"):
        scheduler.submit([0], soon())
    scheduler.submit([0], Caller(deadline=time.monotonic() + 5, admitted=True))
    scheduler.submit([0], Caller(deadline=time.monotonic() + 30))
    scheduler.submit([0])
    assert scheduler.depth == 4


def test_only_those_before_a_caller_count_for_its_wait() -> None:
    """A queue full of somebody's batch does not turn the gate's callers away."""
    scheduler = knowing(1.0, waiting=100)
    scheduler.submit([0], Caller(deadline=time.monotonic() + 5, priority=Priority.GATE))


def test_a_scheduler_that_knows_nothing_yet_refuses_nobody_for_the_time() -> None:
    scheduler = knowing(waiting=100)
    scheduler.submit([0], Caller(deadline=time.monotonic() + 0.1))


def test_whoever_waits_past_the_deadline_is_answered_and_never_begun(
    scheduler: WorkScheduler,
) -> None:
    begun: list[int] = []
    with held(scheduler):
        [late] = scheduler.submit(
            [lambda: begun.append(1)], Caller(deadline=time.monotonic() + 0.05)
        )
        time.sleep(0.06)
        scheduler.prune()
        with pytest.raises(EngineTimeout, match="deadline"):
            late.result(0)
        assert scheduler.depth == 1
        [later] = scheduler.submit(
            [lambda: begun.append(2)], Caller(deadline=time.monotonic() + 0.05)
        )
        time.sleep(0.06)
    with pytest.raises(EngineTimeout, match="deadline"):
        later.result(5)
    assert begun == []


def test_whoever_leaves_is_taken_out_of_the_queue(scheduler: WorkScheduler) -> None:
    begun: list[int] = []
    left = threading.Event()
    with held(scheduler):
        [gone] = scheduler.submit([lambda: begun.append(1)], Caller(has_left=left.is_set))
        [stays] = scheduler.submit([lambda: 7])
        left.set()
        scheduler.prune()
        with pytest.raises(CallerLeft):
            gone.result(0)
        assert scheduler.depth == 2
    assert stays.result(5) == 7
    assert begun == []


def test_a_cancelled_future_is_passed_over(scheduler: WorkScheduler) -> None:
    begun: list[int] = []
    with held(scheduler):
        [cancelled] = scheduler.submit([lambda: begun.append(1)])
        assert cancelled.cancel()
        [stays] = scheduler.submit([lambda: 7])
    assert stays.result(5) == 7
    assert begun == []


def test_items_run_together_up_to_a_cost() -> None:
    batches: list[list[int]] = []
    gate = threading.Event()

    def run(items: Sequence[int]) -> list[int]:
        gate.wait(5)
        batches.append(list(items))
        return [-item for item in items]

    scheduler = Scheduler[int, int]("classifier", run, cost=lambda item: item, max_batch_cost=10)
    scheduler.start()
    [first] = scheduler.submit([1])
    wait_until(first.running)
    futures = scheduler.submit([4, 6, 3, 20, 5])
    gate.set()
    assert [future.result(5) for future in futures] == [-4, -6, -3, -20, -5]
    assert batches == [[1], [4, 6], [3], [20], [5]]
    scheduler.close()


def served_order(submissions: Sequence[tuple[Caller, int]], *, cost: int = 1) -> list[str]:
    """The keys in the order of service, of so many items a caller that all wait at once."""
    order: list[str] = []

    def run(items: Sequence[str]) -> Sequence[None]:
        order.extend(items)
        return [None] * len(items)

    scheduler = Scheduler[str, None]("classifier", run, cost=lambda _: cost)
    futures = [
        future
        for caller, number in submissions
        for future in scheduler.submit([caller.key] * number, caller)
    ]
    scheduler.start()
    for future in futures:
        future.result(5)
    scheduler.close()
    return order


def test_callers_with_different_keys_take_turns_however_much_each_asks() -> None:
    order = served_order([(Caller(key="much"), 100), (Caller(key="little"), 3)])
    assert order[:6].count("little") == 3


def test_many_requests_of_one_key_get_the_share_of_one() -> None:
    much = [(Caller(key="much"), 1)] * 100
    order = served_order([*much, (Caller(key="little"), 1), (Caller(key="little"), 1)])
    assert order[:5].count("little") == 2


def test_the_gate_goes_before_a_batch_and_does_not_starve_it() -> None:
    batch = Caller(key="batch", priority=Priority.BATCH)
    gate = Caller(key="gate", priority=Priority.GATE)
    order = served_order([(batch, 50), (gate, 50)])
    assert order[:10] == ["gate"] * 10
    assert "batch" in order[:20]


@settings(deadline=None, max_examples=40)
@given(
    numbers=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    cost=st.integers(1, 900),
)
def test_no_key_is_ever_more_than_a_turn_ahead_of_another_that_waits(
    numbers: list[int], cost: int
) -> None:
    callers = [(Caller(key=str(index)), number) for index, number in enumerate(numbers)]
    order = served_order(callers, cost=cost)
    left = Counter({str(index): number for index, number in enumerate(numbers)})
    served: Counter[str] = Counter()
    for key in order:
        served[key] += 1
        left[key] -= 1
        waiting = [served[other] for other, number in left.items() if number]
        if waiting:
            assert served[key] <= min(waiting) + 1
    assert not +left


def test_being_refused_costs_no_turn() -> None:
    scheduler = knowing(8.0, waiting=1)
    hasty = Caller(key="hasty", deadline=time.monotonic() + 1)
    for _ in range(50):
        with pytest.raises(EngineOverloaded):
            scheduler.submit([0], hasty)
    assert ("hasty", hasty.priority) not in scheduler._last_turns


def test_a_poisoned_item_answers_its_own_caller_only() -> None:
    def poisoned() -> None:
        raise ZeroDivisionError("the content of somebody")

    with working(max_batch_cost=10) as scheduler:
        with held(scheduler):
            before, bad, after = (
                scheduler.submit([work], soon())[0] for work in (lambda: 1, poisoned, lambda: 2)
            )
        assert (before.result(5), after.result(5)) == (1, 2)
        with pytest.raises(
            EngineError, match=r"failed on this item \(ZeroDivisionError\)"
        ) as caught:
            bad.result(5)
        assert "somebody" not in str(caught.value)
        assert scheduler.submit([lambda: 7], soon())[0].result(5) == 7
        assert scheduler.is_alive


def test_an_error_of_our_own_reaches_the_caller_as_it_is(scheduler: WorkScheduler) -> None:
    def unscorable() -> None:
        raise Unscorable("NaN")

    with pytest.raises(Unscorable, match="NaN"):
        scheduler.submit([unscorable], soon())[0].result(5)


def test_a_run_that_loses_a_result_fails_and_shifts_none() -> None:
    def forgetful(items: Sequence[int]) -> Sequence[int]:
        return items[1:]

    scheduler = Scheduler[int, int]("classifier", forgetful, max_batch_cost=3)
    futures = scheduler.submit([1, 2, 3])
    scheduler.start()
    for future in futures:
        with pytest.raises(EngineError, match="AssertionError"):
            future.result(5)
    scheduler.close()


def die() -> None:
    raise Dying


def test_when_the_thread_dies_everyone_is_answered_and_another_follows() -> None:
    probed = threading.Event()
    may_pass = threading.Event()

    def probe() -> None:
        probed.set()
        if not may_pass.is_set():
            raise EngineError("still broken")

    with working(probe=probe) as scheduler:
        with held(scheduler) as running:
            dying, waiting = scheduler.submit([die, lambda: 1])
        assert running.result(5) is True
        for future in (dying, waiting):
            with pytest.raises(EngineStopped, match=r"died \(Dying\) and is being restarted"):
                future.result(5)
        assert probed.wait(5)
        assert not scheduler.is_alive
        with pytest.raises(EngineStopped, match="retry in a few seconds"):
            scheduler.submit([lambda: 1])
        may_pass.set()
        wait_until(lambda: scheduler.is_alive)
        assert scheduler.submit([lambda: 8])[0].result(5) == 8


def test_a_thread_that_dies_again_and_again_keeps_being_followed() -> None:
    with working() as scheduler:
        for _ in range(3):
            wait_until(lambda: scheduler.is_alive)
            with pytest.raises(EngineStopped):
                scheduler.submit([die])[0].result(5)
        wait_until(lambda: scheduler.is_alive)
        assert scheduler.submit([lambda: 8])[0].result(5) == 8


def fail() -> None:
    raise ZeroDivisionError


@contextmanager
def hanging(
    *works: Work, then: Work = lambda: 7, **more: Any
) -> Iterator[tuple[WorkScheduler, list[Future[Any]], threading.Event]]:
    """A scheduler that hangs in the first item until the event is set, and then does `then`.

    With the futures of it and of `works`, which wait for it. They cost so much that they do not
    hang on a busy machine.
    """
    gate = threading.Event()
    begun = threading.Event()

    def hang() -> Any:
        begun.set()
        gate.wait(10)
        return then()

    with working(max_run_s=0.1, cost=lambda work: 1 if work is hang else 1000, **more) as scheduler:
        hung = scheduler.submit([hang])
        assert begun.wait(5)
        try:
            yield scheduler, [*hung, *scheduler.submit(works)], gate
        finally:
            gate.set()


@pytest.mark.parametrize("then", [lambda: 7, fail, die])
def test_when_a_run_hangs_everyone_is_answered_and_its_end_brings_the_scheduler_back(
    then: Work, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[int] = []
    with hanging(lambda: begun.append(1), then=then) as (scheduler, futures, gate):
        for future in futures:
            with pytest.raises(EngineStopped, match=r"hangs: .* restart the service if this lasts"):
                future.result(5)
        assert scheduler.is_hung
        assert not scheduler.is_alive
        assert "in hang < " in caplog.text, "the log says where"
        with pytest.raises(EngineStopped, match="hangs"):
            scheduler.submit([lambda: 1])
        gate.set()
        wait_until(lambda: scheduler.is_alive)
        assert not scheduler.is_hung
        assert scheduler.submit([lambda: 8])[0].result(5) == 8
    assert begun == []


def test_an_item_that_costs_more_may_run_longer() -> None:
    with working(max_run_s=0.05, cost=lambda _: 1000) as scheduler:
        [future] = scheduler.submit([lambda: threading.Event().wait(0.2)])
        assert future.result(5) is False
        assert scheduler.is_alive


def test_an_item_that_costs_less_than_a_batch_may_run_as_long() -> None:
    with working(max_run_s=5, max_batch_cost=10**9) as scheduler:
        assert scheduler.submit([lambda: scheduler.is_hung])[0].result(5) is False


def test_a_batch_that_hung_and_then_failed_is_not_computed_again() -> None:
    batches: list[int] = []
    gate = threading.Event()

    def run(items: Sequence[int]) -> Sequence[int]:
        batches.append(len(items))
        gate.wait(10)
        raise ValueError("a poisoned item")

    scheduler = Scheduler[int, int]("classifier", run, max_batch_cost=2, max_run_s=0.1)
    futures = scheduler.submit([1, 2])
    scheduler.start()
    for future in futures:
        with pytest.raises(EngineStopped, match="hangs"):
            future.result(5)
    gate.set()
    wait_until(lambda: scheduler.is_alive)
    scheduler.close()
    assert batches == [2]


def test_a_probe_may_hang_as_well() -> None:
    gate = threading.Event()
    with working(probe=lambda: gate.wait(10), max_run_s=0.1, cost=lambda _: 1000) as scheduler:
        with pytest.raises(EngineStopped):
            scheduler.submit([die])[0].result(5)
        wait_until(lambda: scheduler.is_hung)
        gate.set()
        wait_until(lambda: scheduler.is_alive)
        assert not scheduler.is_hung


def test_what_is_closed_while_it_hangs_stays_closed_after_its_end() -> None:
    with hanging() as (scheduler, [hung], gate):
        assert isinstance(hung.exception(5), EngineStopped)
        scheduler.close(timeout_s=0)
        gate.set()
        scheduler.close(timeout_s=5)
        with pytest.raises(EngineClosed):
            scheduler.submit([lambda: 1])
        assert not scheduler._thread.is_alive()


def test_what_is_closed_while_it_is_down_stays_down() -> None:
    scheduler = WorkScheduler("classifier", run_all, restart_delay_s=30.0)
    scheduler.start()
    with pytest.raises(EngineStopped):
        scheduler.submit([die])[0].result(5)
    scheduler.close(timeout_s=5)
    with pytest.raises(EngineClosed):
        scheduler.submit([lambda: 1])
    assert not scheduler._thread.is_alive()


def test_after_close_callers_get_engine_closed_and_what_runs_its_result() -> None:
    scheduler = WorkScheduler("classifier", run_all)
    scheduler.start()
    gate = threading.Event()
    [running] = scheduler.submit([lambda: gate.wait(10)])
    wait_until(running.running)
    [waiting] = scheduler.submit([lambda: 1])
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    with pytest.raises(EngineClosed, match="closed"):
        waiting.result(5)
    gate.set()
    closing.join(5)
    assert running.result(5) is True
    with pytest.raises(EngineClosed, match="closed"):
        scheduler.submit([lambda: 1])
    assert not scheduler.is_alive


def test_what_does_not_end_in_time_is_abandoned_and_its_caller_answered() -> None:
    scheduler = WorkScheduler("classifier", run_all)
    scheduler.start()
    gate = threading.Event()
    [running] = scheduler.submit([lambda: gate.wait(10)])
    wait_until(running.running)
    scheduler.close(timeout_s=0.05)
    with pytest.raises(EngineClosed, match="closed"):
        running.result(0)
    gate.set()  # its late result goes nowhere, and the thread ends
    scheduler.close()
    assert not scheduler.is_alive


def test_many_threads_submit_and_every_item_is_answered_once() -> None:
    def run(items: Sequence[int]) -> Sequence[int]:
        if any(item % 17 == 0 for item in items):
            raise ValueError("a poisoned item")
        return [-item for item in items]

    scheduler = Scheduler[int, int]("classifier", run, max_batch_cost=8)
    scheduler.start()
    answers: dict[int, int | None] = {}

    def caller(first: int) -> None:
        for item in range(first, first + 100):
            [future] = scheduler.submit([item], Caller(key=str(first)))
            failed = future.exception(10)
            answers[item] = None if failed else future.result()

    threads = [threading.Thread(target=caller, args=(first,)) for first in range(0, 1600, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == {item: -item if item % 17 else None for item in range(1600)}
    scheduler.close()
