"""An engine for many callers at once: their asks are packed together as they come."""

import threading
from collections.abc import Sequence
from dataclasses import replace

from moderation.caller import PATIENT, Caller
from moderation.engine import Ask, Engine
from moderation.prompts import JudgePrompt
from moderation.scheduler import Scheduler
from moderation.watchdog import MAX_RUN_S

AskScheduler = Scheduler[Ask, list[float]]

_PROBE = JudgePrompt((1,), ((1,),))
"""Any two tokens: whether a score comes at all."""


class ScheduledEngine:
    """Another engine behind a scheduler; answers what that engine answers.

    Callers wait on their own threads, one thread does the work.
    """

    is_concurrent = True

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch_tokens: int,
        max_retry_after_s: float,
        max_run_s: float = MAX_RUN_S,
    ) -> None:
        """
        Args:
            engine: does the work; must not be used by anybody else.
            max_batch_tokens: of the asks that are packed together; whoever comes next waits for
                them.
            max_retry_after_s, max_run_s: see `Scheduler`.
        """
        self.max_prompt_tokens = engine.max_prompt_tokens
        self.scheduler = AskScheduler(
            "classifier",
            engine.p_yes,
            cost=lambda ask: ask.num_new_tokens,
            max_batch_cost=max_batch_tokens,
            probe=lambda: engine.p_yes([Ask(_PROBE)]),
            max_retry_after_s=max_retry_after_s,
            max_run_s=max_run_s,
        )
        self.scheduler.start()

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        """See `Engine.p_yes`.

        Raises:
            EngineOverloaded: see `Scheduler.submit`; of these asks none is answered.
        """
        over = threading.Event()
        mine = replace(caller, has_left=lambda: over.is_set() or caller.has_left())
        futures = self.scheduler.submit(asks, mine)
        try:
            return [future.result() for future in futures]
        finally:
            over.set()
            if not all(future.done() for future in futures):  # one failed: the rest is for nothing
                self.scheduler.prune()
