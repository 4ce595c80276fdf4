"""Progress on stderr: a bar on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

LINE_EVERY_S = 30.0
"""Seconds between two lines where there is no terminal: enough for a log, not a flood."""


class RecordProgress:
    """Shows what is being done, then records done, their rate and the time left."""

    def __init__(self, console: Console) -> None:
        """`console` writes to stderr, so that stdout holds results only."""
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._begun: tuple[float, int] | None = None
        self._next_line_at = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed_text]}"),
                console=self._console,
                transient=True,
                # else results printed while the bar runs would go to the terminal, whatever
                # stdout was redirected to
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("starting", total=None, speed_text="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def report(self, what: str) -> None:
        """Says in a few words what is being done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what)
        else:
            self._print(what)

    def update(self, done: int, total: int | None) -> None:
        """`done` of `total` records are scored; the first call says where this process began.

        `total` is None where records come from a pipe.
        """
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, done)
            if done:
                self._console.print(f"going on after {done} of {total} records", style="dim")
        speed = self._speed(now, done, total)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, description="scoring", completed=done, total=total, speed_text=speed
            )
        elif now >= self._next_line_at or done == total:
            self._next_line_at = now + LINE_EVERY_S
            of = "" if total is None else f"/{total}"
            self._print(f"{done}{of} records{', ' if speed else ''}{speed}")

    def _speed(self, now: float, done: int, total: int | None) -> str:
        assert self._begun is not None
        began_at, began_with = self._begun
        if done == began_with or now <= began_at:
            return ""
        rate = (done - began_with) / (now - began_at)  # of this process only
        if total is None:
            return f"{rate:.2f} records/s"
        left_s = round((total - done) / rate)
        return f"{rate:.2f} records/s, {left_s // 60}:{left_s % 60:02d} min left"

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows how many of `total` pieces are done, on a terminal; yields what to call after each."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
