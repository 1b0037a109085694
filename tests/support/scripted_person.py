"""A scripted model whose marks depend on the persona and the rubric it continues, and requests for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from pgenrm_agent.chain import read_criteria
from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.engines import load_engine
from pgenrm_agent.engines.protocol import Completion, Engine, Prompt, SamplingParams
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.schema import Candidate, EvaluationRequest, PreferencePair, Scaling, UserSignals
from pgenrm_agent.testing import ScriptedEngine, write_chain

PAIR = PreferencePair(query="Tea or coffee?", chosen="Tea, plainly.", rejected="It depends a lot.")
REQUEST = EvaluationRequest(
    user_id="ada",
    query="Which color?",
    candidates=(Candidate(id="red", text="Red."), Candidate(id="green", text="Green.")),
)
SIGNALS = UserSignals(user_id="ada", history=(PAIR,))
SCALING = Scaling(individual=4, prototype=0, seed=5)


def shown_in(prompt: Prompt) -> list[str]:
    """The first words of the candidates, in the order shown."""
    return re.findall(r"Start of Response \d+\]\s*(\w+)", prompt.messages[-1].content)


def going_on(prompt: Prompt, whole: str) -> str:
    """A chain from where the prompt has begun it."""
    if not prompt.partial:
        return whole
    part = "### Criteria" if "## Part 2" not in prompt.partial else "## Part 2: Scoring"
    return prompt.partial + whole.partition(f"{part}\n")[2]


def reply(prompt: Prompt, sample: int) -> str:
    """Green wins, unless the persona loves red or the rubric asks for warmth."""
    shown = shown_in(prompt)
    warm = "loves red" in prompt.partial or "Warmth" in prompt.partial
    marks = {"Red": 9 if warm else 3, "Green": 8 - sample % 2, "Blue": 10}
    named = "Warmth" if "loves red" in prompt.partial or "Warmth" in prompt.partial else "Fit"
    begun = [(criterion.name, criterion.weight) for criterion in read_criteria(prompt.partial)]
    whole = write_chain(
        [marks[text] for text in shown],
        criteria=begun or [(named, 100)],
        persona="Wants short answers.",
    )
    return going_on(prompt, whole)


def begin(session: DebugSession, run: str = "one") -> str:
    return session.start(REQUEST, scaling=SCALING, signals=SIGNALS, run=run)


class CountingEngine:
    """Another engine, with the tokens of each of its calls told.

    hang_in: of which call (from 0) nothing ever comes back.
    """

    def __init__(
        self, engine: Engine, tell: Callable[[int | str], None], *, hang_in: int | None = None
    ) -> None:
        self.name = engine.name
        self.capabilities = engine.capabilities
        self._engine = engine
        self._tell = tell
        self._calls = 0
        self._hang_in = hang_in

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        if self._calls == self._hang_in:
            self._tell("hanging")
            await asyncio.sleep(600)
        self._calls += 1
        answers = await self._engine.sample(prompts, params)
        self._tell(sum(completion.tokens for answer in answers for completion in answer))
        return answers

    async def aclose(self) -> None:
        await self._engine.aclose()


def counted_session(
    engine: str, store: str, tell: Callable[[int | str], None], hang_in: int | None = None
) -> DebugSession:
    """A session whose engine tells the tokens of its calls; engine: "scripted" or "bundled"."""
    if engine == "scripted":
        return DebugSession(
            store, engine=CountingEngine(ScriptedEngine(reply), tell, hang_in=hang_in)
        )
    model = load_engine("transformers", bundled_model())
    return DebugSession(
        store,
        engine=CountingEngine(model, tell, hang_in=hang_in),
        chain_format=format_of(bundled_model()),
    )
