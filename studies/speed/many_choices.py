"""Recall of a user with very many choices, in milliseconds and megabytes.

    python -m studies.speed.many_choices fill FOLDER 100000
    python -m studies.speed.many_choices measure FOLDER

Filling and measuring are processes of their own: what a store keeps of its writing would hide a cold start.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pgenrm_agent.memory import UserMemory
from studies.speed.memory import FILL_AT_ONCE, _pair, _peak_rss_mb, _query

MANY, FEW = "ada", "bob"
REPEATS = 200
WRITES = 30


def fill(folder: Path, count: int) -> None:
    """Remember `count` choices of one user, and a single one of another."""
    draw = random.Random(0)
    with UserMemory(folder) as memory:
        for start in range(0, count, FILL_AT_ONCE):
            memory.import_(
                [
                    json.dumps(
                        {
                            "record": "preference_pair",
                            "user_id": MANY,
                            "pair": _pair(number, draw).model_dump(mode="json"),
                        }
                    )
                    for number in range(start, min(count, start + FILL_AT_ONCE))
                ]
            )
        memory.remember(FEW, _pair(count, draw))


def measure(folder: Path) -> dict[str, float]:
    """Return for each selection milliseconds of the first recall and the 99th percentile of the others.

    Also the 90th percentile of recalls that follow a new choice, and how many megabytes all of it takes.
    """
    draw = random.Random(1)
    told: dict[str, float] = {}
    with UserMemory(folder) as memory:
        memory.recall(FEW, limit=3, query="How?", selection="similar")
        before = _peak_rss_mb()

        for how in ("similar", "random", "recent"):
            recall = partial(
                lambda selection: memory.recall(
                    MANY,
                    query=_query(draw),
                    limit=3,
                    selection=selection,
                    seed=draw.randrange(2**31),
                ),
                how,
            )
            told[f"{how}, first"] = _timed(recall)
            times = [_timed(recall) for _ in range(REPEATS)]
            told[f"{how}, p99"] = float(np.quantile(times, 0.99))
        after_writes = []
        for number in range(WRITES):
            memory.remember(MANY, _pair(10**7 + number, draw))
            after_writes.append(_timed(recall))
        told["recent after a new choice, p90"] = float(np.quantile(after_writes, 0.9))
        told["megabytes"] = _peak_rss_mb() - before
    return told


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print(json.dumps(measure(Path(sys.argv[2])), indent=2))
