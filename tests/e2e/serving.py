"""A real `wardgate serve` in a process of its own, on a free port of loopback."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-c", "from wardgate.main import main; main()", "serve"]


def environment(**variables: str) -> dict[str, str]:
    """The environment of the tests with only these WARDGATE_* variables, and one thread: the tests
    run on all cores already."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WARDGATE_")}
    return {**kept, "WARDGATE_THREADS": "1", **variables}


def run_serve(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs `wardgate serve` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Served:
    """A running service, and what it has said so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._wait_for(r"listening on (http://\S+);", 60)

    @property
    def stderr(self) -> str:
        return "".join(self._lines)

    def wait_ready(self, timeout_s: float = 180) -> None:
        self._wait_for(r"(Wardgate is ready)", timeout_s)
        assert httpx.get(f"{self.url}/readyz").status_code == 200

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)

    def _wait_for(self, pattern: str, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.stderr)):
            assert self.process.poll() is None, self.stderr
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.05)
        return found[1]


@contextmanager
def serve(*arguments: str, **variables: str) -> Iterator[Served]:
    """A service from start to SIGTERM."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Served(process)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
