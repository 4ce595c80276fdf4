"""Waiting in tests."""

import time
from collections.abc import Callable


def wait_until(happened: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    """Waits for something; it not happening in time fails the test."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
