"""Finds out that a run does not end, as a forward does not in a driver or a library that hangs.

A thread cannot be killed in Python: who is told can only answer those who wait.
"""

import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)

MAX_RUN_S = 360.0
"""Where nobody says otherwise: the default `deadline_s` and `hung_after_s` of the service."""


class Watchdog:
    """Watches one run at a time, of a thread that has others to do after it."""

    def __init__(self, name: str, tell: Callable[[str], None], *, max_run_s: float) -> None:
        """
        Args:
            name: of what runs, in messages.
            tell: called on a thread of the watchdog when a run hangs, and again every `max_run_s`
                as long as it does; the run does not end while it is called.
            max_run_s: a run that takes longer hangs.
        """
        self._name = name
        self._tell = tell
        self._max_run_s = max_run_s
        self._closed = threading.Event()
        self._lock = threading.Lock()
        # guarded by _lock
        self._began = math.inf  # nothing runs
        self._limit_s = max_run_s
        self._runner = 0

    def start(self) -> None:
        """Starts its thread."""
        threading.Thread(
            target=self._watch, name=f"wardgate-{self._name}-watchdog", daemon=True
        ).start()

    def close(self) -> None:
        """Ends its thread; tells nobody any more."""
        self._closed.set()

    @property
    def is_hung(self) -> bool:
        """Whether a run has not ended in time; only the end of the process is sure to end it."""
        return self._left_s() <= 0

    @contextmanager
    def run(self, size: float = 1.0) -> Iterator[None]:
        """A run, to its end; one of a `size` over 1 may take as many times longer."""
        with self._lock:
            self._runner = threading.get_ident()
            self._limit_s = self._max_run_s * max(1.0, size)
            self._began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._began = math.inf

    def _left_s(self) -> float:
        """Seconds until the run of this moment hangs."""
        return self._began + self._limit_s - time.monotonic()

    def _watch(self) -> None:
        wait_s = self._max_run_s
        while not self._closed.wait(wait_s):
            with self._lock:
                left_s = self._left_s()
                if left_s <= 0:
                    self._tell(self._found())
            # what begins from now on does not hang before `max_run_s` have passed
            wait_s = min(left_s, self._max_run_s) if left_s > 0 else self._max_run_s

    def _found(self) -> str:
        found = (
            f"the {self._name} hangs: a run that may take {self._limit_s:.0f} s has not ended"
            f" after {time.monotonic() - self._began:.0f} s"
        )
        stack = traceback.extract_stack(sys._current_frames()[self._runner])[-6:]
        where = " < ".join(f"{at.filename}:{at.lineno} in {at.name}" for at in reversed(stack))
        _log.error("%s; restart the process unless it ends; it is at %s", found, where)
        return found
