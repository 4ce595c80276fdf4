"""What work costs in this process."""

import time
from collections.abc import Callable
from typing import Any


def timed(work: Callable[[], Any]) -> float:
    """Processor seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started
