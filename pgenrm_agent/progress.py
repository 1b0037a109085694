"""Progress of a long command on standard error: how many, how fast, how much longer."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 30.0
"""How often progress is told where standard error is no terminal."""


@contextmanager
def counting(what: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a bar where somebody watches; now and then a line where standard error is a file.

    Gives a function to be told how many are done, of how many. Those of the first call were done
    by an earlier start, and count for no rate. shown: whether anything is; of several processes, one.
    """
    with _display(shown) as display:
        display.begin(what)
        yield partial(display.tell, what)


@contextmanager
def counting_tasks() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar, or lines, for each of several tasks; see `counting`.

    Gives a function to be told of which task how many are done, of how many. A task begins when
    it is named first.
    """
    with _display(shown=True) as display:
        yield display.tell


@contextmanager
def waiting(what: str, *, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """Show a spinner and the time where somebody watches; now and then a line where nobody does.

    For what has no count. Gives a function that changes the text beside it. shown: as for `counting`.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = SpinnerColumn(), TextColumn("{task.description} ..."), TimeElapsedColumn()
        # Whoever prints results meanwhile prints them on standard output.
        with Progress(
            *columns, console=console, transient=True, redirect_stdout=False, disable=not shown
        ) as bars:
            bar = bars.add_task(what, total=None)
            yield lambda text: bars.update(bar, description=text)
        return
    reminder = _Reminder(what)
    if shown:
        reminder.start()
    try:
        yield reminder.change
    finally:
        reminder.over.set()


class _Reminder(threading.Thread):
    """Says every LINE_EVERY_S what is still going on."""

    def __init__(self, what: str) -> None:
        super().__init__(name="progress", daemon=True)
        self.over = threading.Event()
        self._what = what

    def change(self, text: str) -> None:
        self._what = text

    def run(self) -> None:
        started = time.monotonic()
        while not self.over.wait(LINE_EVERY_S):
            print(f"{self._what}, for {time.monotonic() - started:.0f} s", file=sys.stderr)


@contextmanager
def _display(shown: bool) -> Iterator[_Display]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    disabled = not (shown and console.is_terminal)
    with Progress(*columns, console=console, disable=disabled) as bars:
        yield _Display(bars, lines=shown and not console.is_terminal)


@dataclass
class _Task:
    """When a task was begun and told of last, and how much an earlier start had done."""

    bar: TaskID
    started: float
    told: float
    first: int | None = None


@dataclass
class _Display:
    """Bars of several tasks; with `lines`, lines instead."""

    bars: Progress
    lines: bool
    tasks: dict[str, _Task] = field(default_factory=dict)

    def begin(self, what: str) -> _Task:
        now = time.monotonic()
        task = _Task(self.bars.add_task(what, total=None, rate=""), started=now, told=now)
        self.tasks[what] = task
        return task

    def tell(self, what: str, done: int, total: int) -> None:
        task = self.tasks.get(what) or self.begin(what)
        task.first = done if task.first is None else task.first
        now = time.monotonic()
        rate = (done - task.first) / max(1e-9, now - task.started)
        self.bars.update(task.bar, completed=done, total=total, rate=f"{rate:.2f} a second")
        if self.lines and rate and now - task.told >= LINE_EVERY_S:
            task.told = now
            print(
                f"{done} of {total} {what}, {rate:.2f} a second, {(total - done) / rate:.0f} s left",
                file=sys.stderr,
            )
