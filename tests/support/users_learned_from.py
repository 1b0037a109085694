"""Users of two tastes, for processes that are killed or that score while others build.

python users_learned_from.py learn MEMORY KEEP LOG DIES_AFTER   # killed after so many calls
python users_learned_from.py score URL                          # until a line comes on stdin
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pgenrm_agent import PGenRM, Scaling
from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams
from pgenrm_agent.graphs.prototype_learning import LearningContext, learn_prototypes
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import PrototypeStore
from pgenrm_agent.prototypes.matching import opaque
from pgenrm_agent.schema import PreferencePair
from pgenrm_agent.testing import ScriptedEngine, write_chain

PERSONAS = {"plain": "Wants plain short answers.", "warm": "Wants warm friendly chatter."}


def describe(prompt: Prompt, _: int) -> str:
    """Reads the taste from the history in the prompt."""
    match = re.search(r"very (plain|warm)", prompt.messages[0].content)
    return write_chain([5, 5], persona=PERSONAS[match[1]] if match else "Somebody.")


def fill(memory: UserMemory, users: int = 12, agreed: int = 10) -> None:
    """Users of two tastes with three choices each; those after the first `agreed` have not agreed."""
    for number in range(users):
        taste = list(PERSONAS)[number % 2]
        memory.remember_many(
            f"u{number}",
            [
                PreferencePair(
                    query=f"Question {n} of {number}", chosen=f"very {taste}", rejected="or not"
                )
                for n in range(3)
            ],
        )
        memory.set_consent(f"u{number}", number < agreed)


def context(memory: UserMemory, engine: ScriptedEngine, **options: object) -> LearningContext:
    return LearningContext(
        engine,
        ChainFormat.load("published"),
        memory,
        HashingEmbedder(),
        **{"queries": 2, "batch": 5, "k": 2, **options},  # type: ignore[arg-type]
    )


def names_in_force(memory: UserMemory) -> frozenset[str]:
    """What results call the users of the version that counts; other versions have other names."""
    version = PrototypeStore(memory).current()
    assert version is not None
    return frozenset(opaque(version.salt, user) for user in version.homes)


def scoring(memory: UserMemory) -> PGenRM:
    return PGenRM(
        engine=ScriptedEngine(describe),
        memory=memory,
        chain_format=ChainFormat.load("published"),
        persona_embedder=HashingEmbedder(),
        scaling=Scaling(individual=1, prototype=4, seed=1),
    )


class Mortal(ScriptedEngine):
    """Writes each call's number of prompts to a file, and is killed instead of answering the last."""

    def __init__(self, log: Path, dies_after: int) -> None:
        super().__init__(describe)
        self._log = log
        self._left = dies_after

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        with self._log.open("a") as log:
            print(len(prompts), file=log)
        return await super().sample(prompts, params)


def main() -> None:
    if sys.argv[1] == "learn":
        folder, keep, log = (Path(path) for path in sys.argv[2:5])
        with UserMemory(folder) as memory:
            engine = Mortal(log, int(sys.argv[5]))
            learned = asyncio.run(learn_prototypes(context(memory, engine, batch=2), keep=keep))
            print(learned.model_dump_json())
        return
    with UserMemory(url=sys.argv[2]) as memory, scoring(memory) as rm:
        print("scoring", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            evaluation = rm.score("u11", "A question", ["short", "chatty"])
            print(" ".join(evaluation.neighbors), flush=True)


if __name__ == "__main__":
    main()
