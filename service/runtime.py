"""What runs behind the handlers: workers, models, gate; how they start, stop and are ready."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

from fastapi import Request

from moderation.errors import EngineClosed, EngineError
from policies import PolicyLibrary
from service.body_limit import InFlight
from service.errors import NotReady
from service.gate import Gate
from service.generation import Generator
from service.judging import Judge, Judging
from service.metrics import Metrics
from service.settings import Settings
from service.worker import Worker

_log = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 60.0
"""No caller is told to come back later: by then a queue looks quite different."""

State = Literal["loading", "ready", "failed", "stopped"]


class Runtime:
    """The moving parts of one application. Used on its event loop only."""

    def __init__(
        self,
        settings: Settings,
        library: PolicyLibrary,
        *,
        load_judge: Callable[[], Judge],
        load_generator: Callable[[], Generator] | None,
    ) -> None:
        """
        Args:
            settings: of this process.
            library: the loaded policies.
            load_judge: loads the classifier; called once, on the thread that then owns it.
            load_generator: loads the generator likewise; None for a service without chat.

        Raises:
            UnknownPolicy: `settings.policy_set` is not in the library.
        """
        self.settings = settings
        self.library = library
        self.policy_set = library.policy_set(settings.policy_set)
        self.metrics = Metrics()
        self.bodies = InFlight(settings.max_bodies_bytes, self.metrics)
        self.created = int(time.time())
        self.failure: BaseException | None = None
        """Why the models could not be loaded."""
        self._load_judge = load_judge
        self._load_generator = load_generator
        self._judge_worker = Worker(
            "classifier",
            capacity=settings.queue_capacity,
            max_retry_after_s=min(MAX_RETRY_AFTER_S, settings.deadline_s),
        )
        self._generator_worker = Worker(
            "generator",
            capacity=settings.generation_queue_capacity,
            max_retry_after_s=min(MAX_RETRY_AFTER_S, settings.generation_deadline_s),
        )
        self._judging: Judging | None = None
        self._gate: Gate | None = None
        self._loaded = False
        self._grace_end: float | None = None

    @property
    def state(self) -> State:
        """Whether requests can be answered."""
        if self.failure is not None:
            return "failed"
        if not self._loaded:
            return "loading"
        workers = [self._judge_worker]
        if self._load_generator is not None:
            workers.append(self._generator_worker)
        return "ready" if all(worker.is_alive for worker in workers) else "stopped"

    @property
    def judging(self) -> Judging:
        """The classifier. Raises `NotReady`."""
        if self._judging is None:
            raise self._not_ready()
        return self._judging

    @property
    def has_generator(self) -> bool:
        """Whether there is, or will be, a generator."""
        return self._load_generator is not None

    @property
    def gate(self) -> Gate:
        """The gate. Raises `NotReady`."""
        if self._gate is None:
            raise self._not_ready()
        return self._gate

    async def load(self) -> None:
        """Starts the workers and loads the models on them; returns when ready or failed."""
        self._judge_worker.start()
        self._generator_worker.start()
        started = time.monotonic()
        try:
            judge = await asyncio.wrap_future(self._judge_worker.submit(self._load_judge))
            self._judging = Judging(judge, self._judge_worker, self.metrics)
            if self._load_generator is not None:
                loading = self._generator_worker.submit(self._load_generator)
                self._gate = self._make_gate(self._judging, await asyncio.wrap_future(loading))
        except EngineClosed:  # told to stop before there was anything to serve
            return
        except Exception as exc:
            # the worker wraps what is no ModerationError; the reason is what went wrong inside
            wrapped = isinstance(exc, EngineError) and exc.__cause__ is not None
            self.failure = exc.__cause__ if wrapped else exc
            _log.error("the models could not be loaded", exc_info=self.failure)
            return
        self._loaded = True
        _log.info("ready after %.1f s", time.monotonic() - started)

    async def stop(self) -> None:
        """Answers everyone who waits, those included whose body is still coming; see `close`."""
        self.bodies.stop()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Answers everyone who waits and stops the threads; blocks until they have ended.

        What runs has `stop_grace_s` to end, models that are still loading have none.
        """
        workers = (self._generator_worker, self._judge_worker)
        for worker in workers:
            worker.refuse()
        if self._grace_end is None:  # closed again at the very end, which is no second grace
            self._grace_end = time.monotonic() + (self.settings.stop_grace_s if self._loaded else 0)
        for worker in workers:
            worker.close(timeout_s=self.grace_left_s)

    @property
    def grace_left_s(self) -> float:
        """Seconds that what still runs has to end, once everything is told to stop."""
        assert self._grace_end is not None, "nothing was told to stop"
        return max(0.0, self._grace_end - time.monotonic())

    def _make_gate(self, judging: Judging, generator: Generator) -> Gate:
        return Gate(
            judging,
            generator,
            self._generator_worker,
            self.policy_set,
            self.metrics,
            deadline_s=self.settings.deadline_s,
            generation_deadline_s=self.settings.generation_deadline_s,
            check_every_chars=self.settings.check_every_chars,
        )

    def _not_ready(self) -> NotReady:
        if self.failure is not None:
            return NotReady("the models could not be loaded; the log has the reason")
        return NotReady("the models are still being loaded; retry in a few seconds")


def runtime_of(request: Request) -> Runtime:
    """The runtime of the application that serves a request."""
    runtime: Runtime = request.app.state.runtime
    return runtime
