"""How the user memory does with many interactions: `python -m studies.speed.memory`.

Runs in a process of its own, so that its memory is the store's and not an engine's.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.schema import PreferencePair

PAIRS_A_USER = 50
FILL_AT_ONCE = 5000
SUBJECTS = ("bread", "a bicycle", "tax forms", "the garden", "old photographs", "a long walk")
VERBS = ("repair", "explain", "choose", "plan", "clean", "photograph", "describe", "sell")


class Quantiles(Model):
    """Milliseconds."""

    p50: float
    p99: float


class MemoryMeasurements(Model):
    """A store of `interactions` past choices. Disk is of the whole folder; RSS is the peak."""

    interactions: int
    users: int
    filled_per_second: float
    remember: Quantiles
    recall_random: Quantiles
    recall_similar: Quantiles
    disk_mb: float
    rss_mb: float


def measure_memory(interactions: int, directory: Path, *, repeats: int) -> MemoryMeasurements:
    """Fill a new memory in `directory` in a process of its own and measure it there.

    Raises ConfigurationError with what that process said when it failed.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "studies.speed.memory",
        str(interactions),
        str(directory),
        str(repeats),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ConfigurationError(f"the memory could not be measured: {last[0]}")
    return MemoryMeasurements.model_validate_json(done.stdout)


def fill_and_measure(interactions: int, directory: Path, *, repeats: int) -> MemoryMeasurements:
    """The measurement itself, in this process. `repeats`: calls of each kind."""
    draw = random.Random(0)
    users = max(1, interactions // PAIRS_A_USER)
    started = time.perf_counter()
    _fill(directory, interactions, users)
    filled = time.perf_counter() - started
    with UserMemory(directory) as memory:

        def somebody() -> str:
            return f"user-{draw.randrange(users)}"

        counter = iter(range(interactions, interactions + repeats))
        remember = _milliseconds(
            lambda: memory.remember(somebody(), _pair(next(counter), draw)), repeats
        )
        recall_random = _milliseconds(
            lambda: memory.recall(somebody(), limit=3, seed=draw.randrange(2**31)), repeats
        )
        recall_similar = _milliseconds(
            lambda: memory.recall(somebody(), query=_query(draw), limit=3, selection="similar"),
            repeats,
        )
    return MemoryMeasurements(
        interactions=interactions,
        users=users,
        filled_per_second=interactions / filled,
        remember=remember,
        recall_random=recall_random,
        recall_similar=recall_similar,
        disk_mb=sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6,
        rss_mb=_peak_rss_mb(),
    )


def _fill(directory: Path, interactions: int, users: int) -> None:
    """Through the import, as an operator would: many users' choices in one write.

    Opened anew each time it has doubled, because how often the vector index is saved is settled then.
    """
    begin = 0
    while begin < interactions:
        end = min(interactions, max(FILL_AT_ONCE, 2 * begin))
        with UserMemory(directory) as memory:
            for start in range(begin, end, FILL_AT_ONCE):
                rows = (
                    {"record": "preference_pair", **_row(number, users)}
                    for number in range(start, min(end, start + FILL_AT_ONCE))
                )
                memory.import_([json.dumps(row) for row in rows])
        begin = end


def _milliseconds(call: Callable[[], object], repeats: int) -> Quantiles:
    call()  # the first call opens what is opened once
    times = []
    for _ in range(repeats - 1):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return Quantiles(p50=float(p50), p99=float(p99))


def _query(draw: random.Random) -> str:
    return f"How do I {draw.choice(VERBS)} {draw.choice(SUBJECTS)} number {draw.randrange(10**6)}?"


def _pair(number: int, draw: random.Random) -> PreferencePair:
    return PreferencePair(
        id=f"pair-{number}",
        query=_query(draw),
        chosen=f"First look at it from all sides, then take the time you need ({number}). " * 4,
        rejected=f"Oh, that is a lovely thing to do, and it always turns out well ({number})! " * 4,
    )


def _row(number: int, users: int) -> dict[str, object]:
    pair = _pair(number, random.Random(number))
    return {"user_id": f"user-{number % users}", "pair": pair.model_dump(mode="json")}


def _peak_rss_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    count, folder, repeated = sys.argv[1:]
    print(fill_and_measure(int(count), Path(folder), repeats=int(repeated)).model_dump_json())
