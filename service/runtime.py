"""What runs behind the handlers: models, schedulers, gate; how they start, stop and are ready."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from fastapi import Request

from moderation.errors import ModerationError
from moderation.memory import return_freed_memory
from policies import PolicyError, PolicyLibrary
from service.background import in_background
from service.body_limit import InFlight
from service.downloads import Downloader
from service.errors import NotReady, error_message
from service.gate.checks import Checker
from service.gate.gate import Gate, GateOptions
from service.gate.history import History
from service.gate.images import ImageGate
from service.gate.pace import Pace
from service.generation import GenerationScheduler, Generator
from service.in_force import InForce
from service.judging import Judging, start_judging
from service.metrics import Metrics
from service.policy_files import PolicyFiles
from service.settings import Settings
from service.upstreams.in_process import InProcessUpstream
from service.upstreams.openai_server import OpenAIServer
from service.upstreams.router import Router
from service.upstreams.upstream import Upstream

if TYPE_CHECKING:
    from moderation.moderator import Moderator

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
        load_moderator: Callable[[], "Moderator"],
        load_generator: Callable[[], Generator] | None,
    ) -> None:
        """
        Args:
            settings: of this process.
            library: the loaded policies.
            load_moderator: loads the classifiers; called once, on a thread of its own.
            load_generator: loads the generator likewise; None for a service without one.

        Raises:
            UnknownPolicy: `settings.policy_set` is not in the library.
        """
        self.settings = settings
        self.library = library
        self.policy_set = library.policy_set(settings.policy_set)
        self.metrics = Metrics()
        self.bodies = InFlight(settings.max_bodies_bytes, self.metrics)
        self.history = History(settings.unseen_history)
        """Of answers that passed the gate."""
        self.downloader = (
            Downloader(
                settings.download_hosts,
                settings.download_networks,
                deadline_s=settings.download_deadline_s,
            )
            if settings.download_hosts
            else None
        )
        """Fetches what URLs name; None where nothing is fetched."""
        self.created = int(time.time())
        self.failure: BaseException | None = None
        """Why the models could not be loaded."""
        self._load_moderator = load_moderator
        self._load_generator = load_generator
        self._generating = GenerationScheduler(
            "generator",
            lambda generations: [generate() for generate in generations],
            capacity=settings.generation_queue_capacity,
            max_retry_after_s=min(MAX_RETRY_AFTER_S, settings.generation_deadline_s),
            max_run_s=settings.generation_deadline_s + settings.hung_after_s,
        )
        self.policy_files = PolicyFiles(settings.policy_dirs)
        """Where the policies are read from, and how that went."""
        self._judging: Judging | None = None
        self._checker: Checker | None = None
        self._gate: Gate | None = None
        self._image_gate: ImageGate | None = None
        self._servers = [
            OpenAIServer(
                name,
                server.base_url,
                api_key=server.api_key.get_secret_value() if server.api_key else None,
                connect_s=server.connect_s,
                silence_s=server.silence_s,
                max_connections=server.max_connections,
            )
            for name, server in settings.upstreams.items()
        ]
        self.router = Router({}, None)
        """Complete once the models are loaded."""
        self._loaded = False
        self._has_tried_to_load = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._grace_end: float | None = None

    @property
    def state(self) -> State:
        """Whether requests can be answered."""
        if self.failure is not None:
            return "failed"
        if not self._loaded:
            return "loading"
        is_alive = self.judging.is_alive and (
            self._load_generator is None or self._generating.is_alive
        )
        return "ready" if is_alive else "stopped"

    @property
    def is_hung(self) -> bool:
        """Whether a model hangs, which a new process is needed for; see `Scheduler.is_hung`."""
        return self._generating.is_hung or (self._judging is not None and self._judging.is_hung)

    @property
    def judging(self) -> Judging:
        """The classifier. Raises `NotReady`."""
        if self._judging is None:
            raise self._not_ready()
        return self._judging

    @property
    def in_force(self) -> InForce:
        """The policies as they are now, and what judges by them. Raises `NotReady`."""
        return InForce(
            settings=self.settings,
            library=self.library,
            policy_set=self.policy_set,
            judging=self.judging,
        )

    @property
    def calibration_gaps(self) -> list[str]:
        """See `Moderator.calibration_gaps`; none before the models are loaded."""
        return [] if self._judging is None else self.in_force.calibration_gaps

    @property
    def checker(self) -> Checker:
        """What the gate checks with. Raises `NotReady`."""
        if self._checker is None:
            raise self._not_ready()
        return self._checker

    @property
    def has_gate(self) -> bool:
        """Whether there is, or will be, something that answers: a generator or an upstream."""
        return self._load_generator is not None or bool(self._servers)

    @property
    def gate(self) -> Gate:
        """The gate. Raises `NotReady`."""
        if self._gate is None:
            raise self._not_ready()
        return self._gate

    @property
    def image_gate(self) -> ImageGate:
        """The gate for images. Raises `NotReady`."""
        if self._image_gate is None:
            raise self._not_ready()
        return self._image_gate

    async def load(self) -> None:
        """Loads the models and starts what runs them; returns when ready or failed."""
        started = time.monotonic()
        try:
            loading = in_background(self._load_moderator, name="load")
            self._judging = self._start_judging(await asyncio.wrap_future(loading))
            in_process = None
            if self._load_generator is not None:
                generator = await asyncio.wrap_future(
                    in_background(self._load_generator, name="load")
                )
                self._generating.start()
                in_process = InProcessUpstream(
                    generator,
                    self._generating,
                    self.metrics,
                    max_new_tokens=self.settings.max_new_tokens,
                )
            if self.has_gate:
                self.router = self._make_router(in_process)
            self._put_in_force(self.in_force)
        except Exception as exc:
            self.failure = exc
            _log.error("the models could not be loaded", exc_info=exc)
            return
        finally:
            self._has_tried_to_load.set()
        await asyncio.to_thread(return_freed_memory)
        self._loaded = True
        _log.info("ready after %.1f s", time.monotonic() - started)
        if self.settings.policy_reload_s:
            self._watching = asyncio.ensure_future(self._watch_policies())

    async def reload_policies(self) -> None:
        """Reads the policies again, and judges by them from now on; what has begun ends under the
        old ones. Where anything is wrong with the new ones, the old ones stay, and
        `policy_files.failure` says why. Waits until the models are loaded.
        """
        await self._has_tried_to_load.wait()
        async with self._reloading:
            if self.failure is not None:
                return
            try:
                library = await asyncio.to_thread(self.policy_files.read)
                fresh = InForce(
                    settings=self.settings,
                    library=library,
                    policy_set=library.policy_set(self.settings.policy_set),
                    judging=self.judging.under(library),
                )
                await fresh.warm_up()
            except Exception as exc:  # whatever it is, there are policies that work
                self.policy_files.failure = error_message(exc)
                self.metrics.policy_reloads.labels("failed").inc()
                _log.error(
                    "the policies were not reloaded, the old ones stay in force: %s",
                    self.policy_files.failure,
                    exc_info=None if isinstance(exc, (PolicyError, ModerationError)) else exc,
                )
                return
            before = self.in_force.calibration_gaps
            self._put_in_force(fresh)
            self.policy_files.failure = None
            self.metrics.policy_reloads.labels("loaded").inc()
            _log.info(
                "the policies were reloaded: policy set %s, hash %s",
                fresh.policy_set.id,
                fresh.policy_set.hash,
            )
            if lost := [gap for gap in fresh.calibration_gaps if gap not in before]:
                _log.warning(
                    "the calibration leaves scores raw since the policies were reloaded: %s;"
                    " their thresholds are on raw scores now: fit them anew with"
                    " wardgate eval calibrate",
                    "; ".join(lost),
                )

    async def stop(self) -> None:
        """Answers everyone who waits, those included whose body is still coming; see `close`."""
        self.bodies.stop()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Answers everyone who waits and stops the threads; blocks until they have ended.

        What runs has `stop_grace_s` to end, models that are still loading have none.
        """
        self._generating.refuse()
        if self._judging is not None:
            self._judging.refuse()
        if self._grace_end is None:  # closed again at the very end, which is no second grace
            self._grace_end = time.monotonic() + (self.settings.stop_grace_s if self._loaded else 0)
        self._generating.close(timeout_s=self.grace_left_s)
        if self._judging is not None:
            self._judging.close(timeout_s=self.grace_left_s)

    async def disconnect(self) -> None:
        """Closes all connections to others and watches no files, once nothing runs any more."""
        if self._watching is not None:
            self._watching.cancel()
        if self.downloader is not None:
            await self.downloader.close()
        for server in self._servers:
            await server.close()

    @property
    def grace_left_s(self) -> float:
        """Seconds that what still runs has to end, once everything is told to stop."""
        assert self._grace_end is not None, "nothing was told to stop"
        return max(0.0, self._grace_end - time.monotonic())

    def _put_in_force(self, fresh: InForce) -> None:
        """From now on all that begins is judged by these policies."""
        self.library = fresh.library
        self.policy_set = fresh.policy_set
        self._judging = fresh.judging
        # what the old one remembers has passed under the old policies
        self._checker = Checker(
            fresh.judging, fresh.policy_set, deadline_s=self.settings.deadline_s
        )
        if self.has_gate:
            self._gate = self._make_gate(self._checker)
            self._image_gate = ImageGate(
                self._checker,
                self.metrics,
                self.downloader,
                reports_in_body=self.settings.reports_in_body,
            )

    async def _watch_policies(self) -> None:
        """Reloads the policies whenever their files have changed."""
        while True:
            await asyncio.sleep(self.settings.policy_reload_s)
            if await asyncio.to_thread(self.policy_files.have_changed):
                await self.reload_policies()

    def _start_judging(self, moderator: "Moderator") -> Judging:
        settings = self.settings
        return start_judging(
            moderator,
            self.metrics,
            capacity=settings.queue_capacity,
            max_batch_tokens=settings.max_batch_tokens,
            max_retry_after_s=min(MAX_RETRY_AFTER_S, settings.deadline_s),
            max_run_s=settings.deadline_s + settings.hung_after_s,
        )

    def _make_router(self, in_process: Upstream | None) -> Router:
        by_model: dict[str, Upstream] = {}
        default: Upstream | None = in_process
        for server, options in zip(self._servers, self.settings.upstreams.values(), strict=True):
            by_model.update((model, server) for model in options.models)
            if not options.models:
                default = server
        if in_process is not None and in_process.model_name is not None:
            by_model.setdefault(in_process.model_name, in_process)
        return Router(by_model, default)

    @property
    def pace(self) -> Pace:
        """How streamed answers are checked and released."""
        settings = self.settings
        return Pace(
            mode=settings.stream_mode,
            check_every_chars=settings.check_every_chars,
            hold_back_chars=settings.hold_back_chars,
            window_chars=settings.window_chars,
            idle_s=settings.idle_check_s,
        )

    def _make_gate(self, checker: Checker) -> Gate:
        settings = self.settings
        options = GateOptions(
            pre_filter=settings.pre_filter,
            pace=self.pace,
            blocked_prompt=settings.blocked_prompt,
            refusal_text=settings.refusal_text,
            unchecked_text=settings.unchecked_text,
            redacted_text=settings.redacted_text,
            reports_in_body=settings.reports_in_body,
            check_system_prompts=settings.check_system_prompts,
        )
        return Gate(checker, options, self.metrics)

    def _not_ready(self) -> NotReady:
        if self.failure is not None:
            return NotReady("the models could not be loaded; the log has the reason")
        return NotReady("the models are still being loaded; retry in a few seconds")


def runtime_of(request: Request) -> Runtime:
    """The runtime of the application that serves a request."""
    runtime: Runtime = request.app.state.runtime
    return runtime
