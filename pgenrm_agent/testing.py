"""For your own tests: an engine that answers from a script, and a builder of well-formed chains.

    from pgenrm_agent import PGenRM
    from pgenrm_agent.testing import ScriptedEngine, write_chain

    engine = ScriptedEngine(write_chain([8, 3]))
    with PGenRM(engine=engine, memory=tmp_path) as rm:
        evaluation = rm.score("ada", "How do I start?", ["Slowly.", "At once."])

No model is loaded. Note that the answer order varies between chains, so a fixed text that prefers
"response 1" prefers each candidate equally often; reply with a function of the prompt to prefer one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.errors import EngineTimeout

__all__ = ["ScriptedEngine", "write_chain"]


class ScriptedEngine:
    """An engine without a model. Tokens are words.

    Args:
        reply: A whole answer; or several, given in turn and from the start again; or a function of
            the prompt and the sample's number, for answers that depend on what is asked.
        continues: Whether it extends a begun answer. A reply that starts with `Prompt.partial` is
            continued from there; any other reply is taken as the continuation itself.
        json_schema: Whether it is taken to hold its answers to `Prompt.json_schema`. It does not
            look at the schema: the replies have to fit it.
        grammar: The same for `Prompt.grammar`.
        latency_s: Seconds that every call takes.
        fail_times: How many of the first calls raise EngineTimeout.

    Attributes:
        calls: The (prompts, params) of every call so far.
        closed: Whether `aclose` was called.
    """

    def __init__(
        self,
        reply: str | Sequence[str] | Callable[[Prompt, int], str],
        *,
        continues: bool = True,
        json_schema: bool = False,
        grammar: bool = False,
        latency_s: float = 0.0,
        fail_times: int = 0,
    ) -> None:
        self._reply = reply
        self._capabilities = Capabilities(
            continues=continues, seeds="exact", json_schema=json_schema, grammar=grammar
        )
        self._latency_s = latency_s
        self._failures_left = fail_times
        self._given = 0
        self.calls: list[tuple[tuple[Prompt, ...], SamplingParams]] = []
        self.closed = False

    @property
    def name(self) -> str:
        """Return "scripted"."""
        return "scripted"

    @property
    def capabilities(self) -> Capabilities:
        """What it was told to be able to do; its seeds are exact."""
        return self._capabilities

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Answer from the script; stop strings and max_tokens act as on a real engine."""
        self.calls.append((tuple(prompts), params))
        await asyncio.sleep(self._latency_s)
        if self._failures_left > 0:
            self._failures_left -= 1
            raise EngineTimeout("the scripted engine was told to time out")
        return [
            [self._complete(prompt, number, params) for number in range(prompt.n)]
            for prompt in prompts
        ]

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def _complete(self, prompt: Prompt, number: int, params: SamplingParams) -> Completion:
        text = self._next(prompt, number).removeprefix(prompt.partial)
        ends = [place for stop in params.stop if (place := text.find(stop)) >= 0]
        text = text[: min(ends)] if ends else text
        words = text.split()
        # The samples of a prompt share one reading of it.
        read = 0 if number else sum(len(message.content.split()) for message in prompt.messages)
        if len(words) > params.max_tokens:
            return Completion(
                text=" ".join(words[: params.max_tokens]),
                tokens=params.max_tokens,
                prompt_tokens=read,
                finish_reason="length",
            )
        return Completion(text=text, tokens=len(words), prompt_tokens=read)

    def _next(self, prompt: Prompt, number: int) -> str:
        if callable(self._reply):
            return self._reply(prompt, number)
        if isinstance(self._reply, str):
            return self._reply
        self._given += 1
        return self._reply[(self._given - 1) % len(self._reply)]


def write_chain(
    marks: Sequence[float] | Sequence[Sequence[float]],
    *,
    criteria: Sequence[tuple[str, float]] = (("Usefulness", 100),),
    persona: str = "This person wants a useful answer.",
) -> str:
    """Write the text of an evaluation chain, as `pgenrm_agent.chain.parse_chain` reads it.

    Args:
        marks: For each response in shown order, one mark per criterion (1-10), or a single number
            to be given on every criterion.
        criteria: Names and weights in percent.
        persona: What the chain says of the user.

    Raises:
        ValueError: A response has not one mark per criterion.
    """
    rows = [
        [float(row)] * len(criteria)
        if isinstance(row, int | float)
        else [float(mark) for mark in row]
        for row in marks
    ]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(criteria):
            raise ValueError(f"response {number} has {len(row)} marks for {len(criteria)} criteria")
    weights = [weight for _, weight in criteria]
    totals = {
        f"response_{number}": round(
            sum(w * m for w, m in zip(weights, row, strict=True)) / sum(weights), 2
        )
        for number, row in enumerate(rows, start=1)
    }
    named = ", ".join(f"{name} {weight:g}%" for name, weight in criteria)
    given = " ".join(
        f"Response {number}: "
        + ", ".join(f"{name} {mark:g}" for (name, _), mark in zip(criteria, row, strict=True))
        + "."
        for number, row in enumerate(rows, start=1)
    )
    body = json.dumps({"rationale": f"A. {named}. B. {given}", "better_response": totals})
    listed = [
        f"{number}. {name} ({weight:g}%): as they chose before"
        for number, (name, weight) in enumerate(criteria, start=1)
    ]
    return "\n".join(
        [
            "## Part 1: Analysis",
            "### Persona",
            persona,
            "### Criteria",
            *listed,
            "## Part 2: Scoring",
            "<JSON_START>",
            body,
            "<JSON_END>",
        ]
    )
