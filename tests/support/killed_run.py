"""An evaluation to be killed: `python killed_run.py OUT`. Ends with code 0 when it is complete."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.evaluation.judges import PromptJudge
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.evaluation.running import RunDescription, evaluate
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import Candidate
from pgenrm_agent.testing import ScriptedEngine

QUESTIONS = 80


def noisy(prompt: Prompt, sample: int) -> str:
    """Scores that depend on what is asked and on the seed, as a model's do."""
    first, second = (1 + derive_seed(prompt.seed, sample, place) % 10 for place in (1, 2))
    return f'{{"response_1": {first}, "response_2": {second}}}'


def questions() -> list[Question]:
    return [
        Question(
            id=f"q{number}",
            user_id=f"user-{number % 50}",
            query="?",
            candidates=(Candidate(id="a", text=f"a{number}"), Candidate(id="b", text=f"b{number}")),
            grades=(1.0, 0.0),
        )
        for number in range(QUESTIONS)
    ]


def run(out: Path, latency_s: float) -> None:
    engine = ScriptedEngine(noisy, latency_s=latency_s)
    description = RunDescription(
        source="test",
        questions=QUESTIONS,
        engine="scripted",
        model="noisy",
        seed=3,
        machine="test",
    )
    asyncio.run(
        evaluate(
            questions(),
            [PromptJudge("judge", engine, samples=3)],
            out,
            description,
            runs=2,
            concurrency=4,
        )
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), latency_s=0.02)
