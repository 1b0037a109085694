"""Users whose every word is recognized wherever it turns up, and a chat model that repeats them.

python canary.py MEMORY RUNS LOG DIES_AFTER   # an evaluation, killed after so many samples
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from pgenrm_agent import PGenRM, Scaling
from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, Neighbors
from pgenrm_agent.schema import EvaluationRequest, PreferencePair, StatedPreference
from pgenrm_agent.testing import ScriptedEngine, write_chain

CANARY = "kestrel"
"""In every word of the similar users, their ids included."""
OWN = "petrel"
"""In the words of the user who asks: it is in traces, or a trace would prove nothing."""
EMBEDDER = HashingEmbedder()
SCALING = Scaling(individual=2, prototype=3, seed=4)
REQUEST = EvaluationRequest.model_validate(
    {
        "user_id": "ann",
        "query": "A question",
        "candidates": [{"id": text, "text": text} for text in ("short", "chatty")],
    }
)
logger = logging.getLogger("a.chatty.integration")


def fill(memory: UserMemory) -> Neighbors:
    """The user who asks, three who are similar to her and agreed, and the prototype they are in."""
    users = ["ann", *(f"{name}-{CANARY}" for name in ("bob", "cid", "dee"))]
    for user in users:
        word = OWN if user == "ann" else f"{CANARY}-of-{user}"
        pair = PreferencePair(query=f"{word}?", chosen=f"I like {word}", rejected=f"no {word}")
        memory.remember(user, pair)
        memory.state(user, StatedPreference(text=f"More {word}"))
        memory.set_consent(user, True)
    neighbors = Neighbors(memory, EMBEDDER, joining=False)
    centroid = EMBEDDER.embed(["Somebody."])
    members = [Member(user, 0, centroid[0]) for user in users[1:]]
    neighbors.store.replace(centroid, members, embedder=EMBEDDER.name)
    return neighbors


def repeat(prompt: str, first: bool) -> str:
    """A chain that repeats every word of note; the first one of a similar user is none at all."""
    words = " ".join(sorted(set(re.findall(rf"\S*(?:{CANARY}|{OWN})\S*", prompt))))
    if first and CANARY in prompt:
        return f"I would rather talk about {words}."
    criteria = [(f"Like {words[:40]}", 100.0)]
    return write_chain([4, 8], persona=f"Somebody. {words}", criteria=criteria)


class Gossip(BaseChatModel):
    """Repeats what it reads, and logs it, too. fails: with an error that quotes the request."""

    seen: list[str] = []  # noqa: RUF012
    fails: bool = False

    @property
    def _llm_type(self) -> str:
        return "gossip"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        prompt = "\n".join(str(message.content) for message in messages)
        logger.debug("Request options: %s", messages)
        logging.getLogger(f"a.logger.made.by.request.{len(self.seen)}").warning("asked %s", prompt)
        if self.fails:
            raise ValueError(f"cannot answer {prompt!r}")
        text = repeat(prompt, first=prompt not in self.seen)
        self.seen.append(prompt)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        await asyncio.sleep(0)
        return self._generate(messages, stop)


def judging_by(model: BaseChatModel, memory: UserMemory) -> PGenRM:
    return PGenRM(model, memory=memory, persona_embedder=EMBEDDER, scaling=SCALING)


class Mortal(ScriptedEngine):
    """Notes each sample in a file, and is killed instead of giving the one after the last."""

    def __init__(self, log: Path, dies_after: int) -> None:
        super().__init__(self._written)
        self._log = log
        self._left = dies_after

    def _written(self, prompt: Prompt, _: int) -> str:
        text = "\n".join(message.content for message in prompt.messages)
        return repeat(text, first=False)

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        answers = await super().sample(prompts, params)
        with self._log.open("a") as log:
            for prompt in prompts:
                print(prompt.n, prompt.seed, CANARY in str(prompt.messages), file=log)
        return answers


def main(folder: Path, runs: Path, log: Path, dies_after: int) -> None:
    with (
        UserMemory(folder) as memory,
        DebugSession(
            runs,
            engine=Mortal(log, dies_after),
            memory=memory,
            neighbors=Neighbors(memory, EMBEDDER, joining=False),
        ) as session,
    ):
        if not session.runs():
            session.start(REQUEST, scaling=SCALING, run="r")
        session.resume("r")
        print(json.dumps(session.state("r")["evaluation"]))


if __name__ == "__main__":
    main(*(Path(path) for path in sys.argv[1:4]), int(sys.argv[4]))  # type: ignore[misc]
