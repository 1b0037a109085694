"""Progress of a long command on standard error: how many, how fast, how much longer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["counting"]

LINE_EVERY_S = 30.0
"""How often progress is told where standard error is no terminal."""


@contextmanager
def counting(what: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar where somebody watches; now and then a line where standard error is a file.

    Gives a function to be told how many are done, of how many. Those of the first call were done
    by an earlier start, and count for no rate. shown: whether anything is; of several processes, one.
    """
    if not shown:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeRemaining

    console = Console(stderr=True)
    started = told = time.monotonic()
    first: int | None = None
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemaining(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, rate="")

        def tell(done: int, total: int) -> None:
            nonlocal first, told
            first = done if first is None else first
            now = time.monotonic()
            rate = (done - first) / max(1e-9, now - started)
            bar.update(task, completed=done, total=total, rate=f"{rate:.2f} a second")
            if not console.is_terminal and rate and now - told >= LINE_EVERY_S:
                told = now
                print(
                    f"{done} of {total} {what}, {rate:.2f} a second,"
                    f" {(total - done) / rate:.0f} s left",
                    file=sys.stderr,
                )

        yield tell
