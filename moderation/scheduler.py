"""One thread that owns a model, and the queue in front of it: who is served next, and with whom.

Items of many callers run together, up to a cost. Turns are dealt by self-clocked fair queueing
(Golestani, INFOCOM 1994): every key gets an equal share of the thread, a higher priority a larger
one, and nobody starves. A queue that is full, or too long for a caller's deadline, refuses at
once. Everyone who was let in is answered: with a result, with what went wrong with their own item,
or with why the thread cannot work: it died and another one follows, or it hangs.

Knows nothing of models, contents or HTTP.
"""

import heapq
import itertools
import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from moderation.caller import PATIENT, Caller
from moderation.errors import (
    EngineClosed,
    EngineError,
    EngineOverloaded,
    EngineStopped,
    ModerationError,
)
from moderation.watchdog import MAX_RUN_S, Watchdog

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)

MAX_RESTART_DELAY_S = 60.0


@dataclass(slots=True, eq=False)
class _Ticket(Generic[Item, Result]):
    """An item in the queue, or being worked on."""

    item: Item
    cost: int
    caller: Caller
    turn: tuple[float, int]
    """Virtual time at which it would end if all shares were kept, and the order of coming."""
    future: Future[Result] = field(default_factory=Future)

    def __lt__(self, other: "_Ticket[Item, Result]") -> bool:
        return self.turn < other.turn


class Scheduler(Generic[Item, Result]):
    """Runs items on one thread; every method is safe from any thread."""

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        capacity: int | None = None,
        cost: Callable[[Item], int] = lambda _: 1,
        max_batch_cost: int = 1,
        probe: Callable[[], object] = lambda: None,
        max_retry_after_s: float = 60.0,
        max_run_s: float = MAX_RUN_S,
        restart_delay_s: float = 1.0,
    ) -> None:
        """
        Args:
            name: what messages call it.
            run: the work on some items, called on the thread; a result an item.
            capacity: items that may wait; None where whoever submits is bounded already.
            cost: of an item, in any unit that time is proportional to.
            max_batch_cost: of the items of one run; an item that costs more runs alone.
            probe: called on a new thread after one has died; while it raises, nothing is served.
            max_retry_after_s: no caller is told to come back later than this.
            max_run_s: a run that takes longer hangs; one of an item that costs more than
                `max_batch_cost` may take as many times longer.
            restart_delay_s: until a new thread follows one that died; doubled each time until one
                has done some work.
        """
        self.name = name
        self._run = run
        self._capacity = capacity
        self._cost = cost
        self._max_batch_cost = max_batch_cost
        self._probe = probe
        self._max_retry_after_s = max_retry_after_s
        self._restart_delay_s = restart_delay_s
        self._deaths = 0
        self._order = itertools.count()
        self._changed = threading.Condition()  # over a lock that its owner may take again
        # all below is guarded by _changed
        self._waiting: list[_Ticket[Item, Result]] = []  # a heap
        self._running: list[_Ticket[Item, Result]] = []
        self._virtual_time = 0.0
        self._last_turns: dict[tuple[str, int], float] = {}
        self._seconds_per_cost: deque[float] = deque(maxlen=31)
        self._stopped: EngineStopped | None = None
        self._closed = False
        self._thread = self._new_thread(self._serve)
        self._watchdog = Watchdog(name, self._hang, max_run_s=max_run_s)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()
        self._watchdog.start()

    @property
    def is_alive(self) -> bool:
        """Whether items are worked on."""
        return self._thread.is_alive() and self._stopped is None

    @property
    def is_hung(self) -> bool:
        """See `Watchdog.is_hung`."""
        return self._watchdog.is_hung

    @property
    def depth(self) -> int:
        """Items that wait or run."""
        return len(self._waiting) + len(self._running)

    def submit(self, items: Sequence[Item], caller: Caller = PATIENT) -> list[Future[Result]]:
        """Queues the items of a caller: all of them or none.

        Raises:
            EngineOverloaded: there is no room, or they could not begin by the caller's deadline.
            EngineStopped: the thread died or hangs, or was closed (`EngineClosed`).
        """
        with self._changed:
            if self._stopped is not None:
                raise type(self._stopped)(str(self._stopped))
            tickets = self._tickets(items, caller)
            if not caller.admitted:
                self._check_room(tickets, caller)
            for ticket in tickets:
                heapq.heappush(self._waiting, ticket)
                self._last_turns[_flow(caller)] = ticket.turn[0]
            self._changed.notify_all()
        return [ticket.future for ticket in tickets]

    def expected_wait_s(self) -> float:
        """Seconds until all that waits now is done, by what the last runs took."""
        with self._changed:
            return self._seconds_for(self._waiting)

    def prune(self) -> None:
        """Answers those in the queue who have left or whose deadline has passed."""
        with self._changed:
            self._waiting = [ticket for ticket in self._waiting if _still_waits(ticket)]
            heapq.heapify(self._waiting)

    def refuse(self) -> None:
        """Takes no more items, and answers everyone who waits with `EngineClosed`."""
        self._watchdog.close()
        with self._changed:
            self._closed = True
            self._stop(EngineClosed(f"the {self.name} was closed, because the service is stopping"))

    def close(self, *, timeout_s: float = 10.0) -> None:
        """As `refuse`; then gives what runs some time to end, and returns.

        The callers of items that do not end in time are answered too; their results go nowhere.
        """
        self.refuse()
        with self._changed:
            thread = self._thread
        if thread.is_alive():
            thread.join(timeout_s)
        with self._changed:
            assert self._stopped is not None, "it was closed above"
            for ticket in self._running:
                _fail(ticket, self._stopped)

    def _tickets(self, items: Sequence[Item], caller: Caller) -> list[_Ticket[Item, Result]]:
        end = max(self._virtual_time, self._last_turns.get(_flow(caller), 0.0))
        tickets = []
        for item in items:
            cost = self._cost(item)
            end += cost / caller.priority
            tickets.append(_Ticket[Item, Result](item, cost, caller, (end, next(self._order))))
        return tickets

    def _check_room(self, tickets: Sequence[_Ticket[Item, Result]], caller: Caller) -> None:
        wait_s = self._seconds_for(other for other in self._waiting if other < tickets[0])
        if self._capacity is not None and len(self._waiting) + len(tickets) > self._capacity:
            found = f"{len(self._waiting)} of {self._capacity} requests"
        elif caller.deadline is not None and time.monotonic() + wait_s > caller.deadline:
            found = (
                f"{len(self._waiting)} requests, an expected wait of {wait_s:.0f} s, which is past"
                " the deadline"
            )
        else:
            return
        raise self.overloaded(found)

    def overloaded(self, found: str) -> EngineOverloaded:
        """The refusal of a caller, with how long to wait; `found` is what the queue holds."""
        retry_after_s = min(max(1.0, self.expected_wait_s()), self._max_retry_after_s)
        return EngineOverloaded(
            f"the {self.name} queue holds {found}; retry in {retry_after_s:.0f} s",
            retry_after_s=retry_after_s,
        )

    def _seconds_for(self, tickets: Iterable[_Ticket[Item, Result]]) -> float:
        # the median: one slow run among them does not move it
        each = statistics.median(self._seconds_per_cost) if self._seconds_per_cost else 0.0
        return each * sum(ticket.cost for ticket in tickets)

    def _new_thread(self, target: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=target, name=f"wardgate-{self.name}", daemon=True)

    def _serve(self) -> None:
        try:
            while batch := self._next():
                self._work(batch)
                with self._changed:
                    self._running = []
                    if self._stopped is not None and not self._closed:
                        self._stopped = None
                        _log.warning("the %s works again: what hung has ended", self.name)
        except BaseException as exc:  # not of an item: the thread itself is dying
            self._die(exc)

    def _next(self) -> list[_Ticket[Item, Result]]:
        """Who is served next; empty when the thread shall end."""
        with self._changed:
            while self._stopped is None:
                batch: list[_Ticket[Item, Result]] = []
                room = self._max_batch_cost
                while self._waiting and (not batch or self._waiting[0].cost <= room):
                    ticket = heapq.heappop(self._waiting)
                    # once it is running a future cannot be cancelled, so setting it cannot fail
                    if _still_waits(ticket) and ticket.future.set_running_or_notify_cancel():
                        batch.append(ticket)
                        room -= ticket.cost
                        self._virtual_time = ticket.turn[0]
                if batch:
                    self._running = batch
                    self._last_turns = {
                        flow: turn
                        for flow, turn in self._last_turns.items()
                        if turn > self._virtual_time
                    }
                    return batch
                self._changed.wait()
            return []

    def _work(self, batch: Sequence[_Ticket[Item, Result]]) -> None:
        cost = sum(ticket.cost for ticket in batch)
        started = time.monotonic()
        try:
            with self._watchdog.run(cost / self._max_batch_cost):
                results = list(self._run([ticket.item for ticket in batch]))
            assert len(results) == len(batch), "a result an item"
        except Exception as exc:
            if len(batch) > 1:  # one of them may be at fault, which is not the others' failure
                for ticket in batch:
                    if not ticket.future.done():  # as it is where the batch hung before
                        self._work([ticket])
                return
            self._settle(batch[0], exc)
            return
        seconds = time.monotonic() - started
        with self._changed:
            self._deaths = 0
            self._seconds_per_cost.append(seconds / cost)
            for ticket, result in zip(batch, results, strict=True):
                if not ticket.future.done():
                    ticket.future.set_result(result)

    def _settle(self, ticket: _Ticket[Item, Result], exc: Exception) -> None:
        if not isinstance(exc, ModerationError):
            # its words may hold content; the cause is kept for the log
            failed = EngineError(f"the {self.name} failed on this item ({type(exc).__name__})")
            failed.__cause__ = exc
            exc = failed
        with self._changed:
            _fail(ticket, exc)

    def _die(self, exc: BaseException) -> None:
        """Answers everyone and lets another thread follow."""
        died = f"the {self.name} died ({type(exc).__name__}) and is being restarted"
        _log.error(died, exc_info=exc)
        with self._changed:
            reason = EngineStopped(f"{died}; retry in a few seconds")
            running, self._running = self._running, []
            for ticket in running:
                _fail(ticket, reason)
            self._stop(reason)
            if not self._closed:
                self._thread = self._new_thread(self._revive)
                self._thread.start()

    def _hang(self, found: str) -> None:
        """Answers everyone; what runs goes on, and so does the thread if it ends after all.

        No other thread takes over: the one that hangs has the model's lock and the processor.
        """
        reason = EngineStopped(f"{found}; retry later, and restart the service if this lasts")
        with self._changed:
            for ticket in self._running:
                _fail(ticket, reason)
            self._stop(reason)

    def _revive(self) -> None:
        """Waits, probes, and serves once the probe passes."""
        while True:
            with self._changed:
                delay_s = min(self._restart_delay_s * 2**self._deaths, MAX_RESTART_DELAY_S)
                self._deaths = min(self._deaths + 1, 32)
                if self._changed.wait_for(lambda: self._closed, delay_s):
                    return
            try:
                with self._watchdog.run():
                    self._probe()
            except BaseException as exc:  # as long as it fails, nothing is served
                _log.error("the %s is still down", self.name, exc_info=exc)
                continue
            with self._changed:
                if self._closed:
                    return
                self._stopped = None
            _log.warning("the %s was restarted", self.name)
            self._serve()
            return

    def _stop(self, reason: EngineStopped) -> None:
        if not isinstance(self._stopped, EngineClosed):
            self._stopped = reason
        left, self._waiting = self._waiting, []
        self._last_turns.clear()
        self._changed.notify_all()
        for ticket in left:
            _fail(ticket, reason)


def _flow(caller: Caller) -> tuple[str, int]:
    return caller.key, caller.priority


def _still_waits(ticket: _Ticket[Item, Result]) -> bool:
    """Whether its caller does; one who does not is answered."""
    try:
        ticket.caller.check()
    except ModerationError as exc:
        _fail(ticket, exc)
        return False
    return True


def _fail(ticket: _Ticket[Item, Result], exc: Exception) -> None:
    """The failure of an item, unless its caller was answered already: `close` may be first."""
    future = ticket.future
    if future.running() or (not future.done() and future.set_running_or_notify_cancel()):
        future.set_exception(exc)
