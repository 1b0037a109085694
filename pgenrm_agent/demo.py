"""The main job on the bundled model: three answers scored for three users, from their choices."""

from __future__ import annotations

import asyncio
import json
from importlib import resources
from pathlib import Path
from typing import Literal

from pgenrm_agent.fields import Model
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Candidate, Evaluation, PreferencePair, Scaling

Style = Literal["short", "thorough", "friendly"]


class _Answers(Model):
    query: str
    short: str
    thorough: str
    friendly: str


class DemoUser(Model):
    """A user of the demonstration. choices: (question, preferred style, other style)."""

    id: str
    about: str
    choices: tuple[tuple[str, Style, Style], ...]


class DemoData(Model):
    """Short texts written for this project."""

    answers: dict[str, _Answers]
    users: tuple[DemoUser, ...]
    query: str
    candidates: dict[str, str]

    def pairs(self, user: DemoUser) -> list[PreferencePair]:
        """Return the user's past choices; the same ids every time, so that remembering is repeatable."""
        return [
            PreferencePair(
                id=f"demo-{user.id}-{name}",
                query=self.answers[name].query,
                chosen=getattr(self.answers[name], chosen),
                rejected=getattr(self.answers[name], rejected),
            )
            for name, chosen, rejected in user.choices
        ]


class DemoEvaluation(Model):
    """What was found for a user of the demonstration."""

    id: str
    about: str
    evaluation: Evaluation


class DemoResult(Model):
    """The same candidates, evaluated for every user of the demonstration."""

    query: str
    users: tuple[DemoEvaluation, ...]


def demo_data() -> DemoData:
    """Return the bundled texts."""
    text = (resources.files("pgenrm_agent") / "demo.json").read_text(encoding="utf-8")
    return DemoData.model_validate(json.loads(text))


def run_demo(memory: Path, *, scaling: Scaling) -> DemoResult:
    """Remember everyone's choices in `memory`, then score the same three answers for each user.

    The evaluations run at the same time, so that they share the engine's batches.
    """
    return asyncio.run(_run_demo(memory, scaling))


async def _run_demo(memory: Path, scaling: Scaling) -> DemoResult:
    data = demo_data()
    candidates = [Candidate(id=name, text=text) for name, text in data.candidates.items()]
    async with PGenRM(memory=memory, scaling=scaling) as model:
        for user in data.users:
            for pair in data.pairs(user):
                await model.aremember(user.id, pair)
        evaluations = await asyncio.gather(
            *(model.ascore(user.id, data.query, candidates) for user in data.users)
        )
    return DemoResult(
        query=data.query,
        users=tuple(
            DemoEvaluation(id=user.id, about=user.about, evaluation=evaluation)
            for user, evaluation in zip(data.users, evaluations, strict=True)
        ),
    )
