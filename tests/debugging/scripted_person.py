"""A scripted model whose marks depend on the persona and the rubric it continues, and requests for it."""

from __future__ import annotations

import re

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.schema import Candidate, EvaluationRequest, PreferencePair, Scaling
from pgenrm_agent.testing import write_chain

PAIR = PreferencePair(query="Tea or coffee?", chosen="Tea, plainly.", rejected="It depends a lot.")
REQUEST = EvaluationRequest(
    user_id="ada",
    query="Which colour?",
    candidates=(Candidate(id="red", text="Red."), Candidate(id="green", text="Green.")),
)
SCALING = Scaling(individual=4, prototype=0, seed=5)


def reply(prompt: Prompt, sample: int) -> str:
    """Green wins, unless the persona loves red or the rubric asks for warmth."""
    shown = re.findall(r"Start of Response \d+\]\s*(\w+)", prompt.messages[-1].content)
    warm = "loves red" in prompt.partial or "Warmth" in prompt.partial
    marks = {"Red": 9 if warm else 3, "Green": 8 - sample % 2, "Blue": 10}
    named = "Warmth" if "loves red" in prompt.partial or "Warmth" in prompt.partial else "Fit"
    whole = write_chain(
        [marks[one] for one in shown], criteria=[(named, 100)], persona="Wants short answers."
    )
    if not prompt.partial:
        return whole
    part = "### Criteria" if "## Part 2" not in prompt.partial else "## Part 2: Scoring"
    return prompt.partial + whole.partition(f"{part}\n")[2]


def begin(session: DebugSession, run: str = "one") -> str:
    return session.start(REQUEST, scaling=SCALING, history=[PAIR], run=run)
