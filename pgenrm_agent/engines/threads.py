"""How many threads a model computes with on a CPU: as many as make it faster, and no more.

Threads that wait for one another spin. For a small model a second thread saves no time and doubles
the CPU time; on a busy machine each step then waits until both threads get a core, and takes ten
times as long.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pgenrm_agent.errors import ConfigurationError

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
LARGE = 300_000_000
"""Parameters from which a model is taken to use all threads well: to measure it takes too long."""
GAIN = 0.25
"""Least speed-up by twice the threads that is worth them; in proportion for other steps."""
TRIES = 5
HOPELESS = 3.0
"""How many times slower a first try is than the best so far that needs no second one."""


class Threads(NamedTuple):
    """number: of threads that a model computes with. why: how that came about."""

    number: int
    why: str


def choose_threads(wanted: int | None, parameters: int, step: Callable[[], object]) -> Threads:
    """Settle on a number of threads, by measurement where nobody has settled it.

    wanted: a number that was asked for; None where none was.
    parameters: of the model. step: does a little of the work that is to be done fast.

    Raises ConfigurationError when `wanted` is less than 1.
    """
    if wanted is not None:
        if wanted < 1:
            raise ConfigurationError(f"threads is {wanted}: pass at least 1")
        return Threads(wanted, f"threads={wanted} was passed")
    most = _torch_threads()
    for name in VARIABLES:
        if os.environ.get(name):
            return Threads(most, f"{name} is {os.environ[name]}")
    if _was_set(most):
        return Threads(most, f"torch.set_num_threads({most}) was called")
    if most == 1:
        return Threads(1, "there is one core")
    if parameters > LARGE:
        return Threads(most, f"all, as the model has {parameters / 1e9:.1f} billion parameters")
    return _measured(most, step)


def _measured(most: int, step: Callable[[], object]) -> Threads:
    """Double the threads as long as that pays."""
    count = 1
    with computing_with(1):
        step()  # the first call of all also loads libraries
        best = _seconds(step, TRIES)
    measured = [f"{best * 1e3:.1f} ms on 1"]
    while count < most:
        more = min(2 * count, most)
        with computing_with(more):
            seconds = _seconds(step, TRIES, hopeless=HOPELESS * best)
        measured.append(f"{seconds * 1e3:.1f} ms on {more}")
        if best / seconds < 1 + GAIN * (more / count - 1):
            break
        count, best = more, seconds
    return Threads(count, f"of {most}, measured at loading: {', '.join(measured)}")


def _seconds(step: Callable[[], object], tries: int, hopeless: float = float("inf")) -> float:
    """The shortest of several tries: what else runs on the machine can only make one longer."""
    best = float("inf")
    for _ in range(tries):
        started = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - started)
        if best > hopeless:
            break
    return best


_lock = threading.Lock()
_using = 0
_before = 0


@contextmanager
def computing_with(count: int) -> Iterator[None]:
    """Let torch use `count` threads, and afterwards as many as before.

    torch has one number for the process, and copies of it by thread. So what other threads compute
    meanwhile may be computed with `count` threads, too.
    """
    import torch

    global _using, _before
    with _lock:
        if _using == 0:
            _before = torch.get_num_threads()
        _using += 1
        torch.set_num_threads(count)
    try:
        yield
    finally:
        with _lock:
            _using -= 1
            torch.set_num_threads(_before)


def _torch_threads() -> int:
    import torch

    with _lock:
        return _before if _using else torch.get_num_threads()


def _was_set(count: int) -> bool:
    """Whether torch's number is not the one that it takes by itself: all cores, or all hyperthreads.

    Where the system does not tell which they are, nobody is taken to have set it.
    """
    if not hasattr(os, "sched_getaffinity"):
        return False
    usable = os.sched_getaffinity(0)
    siblings = [
        Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        for number in usable
    ]
    try:
        cores = len({file.read_text() for file in siblings})
    except OSError:
        return False
    return count not in (cores, len(usable))
