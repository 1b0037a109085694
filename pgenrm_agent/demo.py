"""The main job on the bundled model: three answers scored for three people, from their choices."""

from __future__ import annotations

import asyncio
import json
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Candidate, Evaluation, PreferencePair, Scaling

__all__ = ["DemoData", "DemoPerson", "demo_data", "run_demo"]

Style = Literal["short", "thorough", "friendly"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answers(_Section):
    query: str
    short: str
    thorough: str
    friendly: str


class DemoPerson(_Section):
    """One person of the demonstration. choices: (question, preferred style, other style)."""

    id: str
    about: str
    choices: tuple[tuple[str, Style, Style], ...]


class DemoData(_Section):
    """Short texts written for this project."""

    answers: dict[str, _Answers]
    people: tuple[DemoPerson, ...]
    query: str
    candidates: dict[str, str]

    def pairs(self, person: DemoPerson) -> list[PreferencePair]:
        """The person's past choices; the same ids every time, so that remembering is repeatable."""
        return [
            PreferencePair(
                id=f"demo-{person.id}-{name}",
                query=self.answers[name].query,
                chosen=getattr(self.answers[name], chosen),
                rejected=getattr(self.answers[name], rejected),
            )
            for name, chosen, rejected in person.choices
        ]


def demo_data() -> DemoData:
    """The bundled texts."""
    text = (resources.files("pgenrm_agent") / "demo.json").read_text(encoding="utf-8")
    return DemoData.model_validate(json.loads(text))


def run_demo(memory: Path, *, scaling: Scaling) -> dict[str, Evaluation]:
    """Remember everyone's choices in `memory`, then score the same three answers for each person.

    The evaluations run at the same time, so that they share the engine's batches.
    """
    return asyncio.run(_run_demo(memory, scaling))


async def _run_demo(memory: Path, scaling: Scaling) -> dict[str, Evaluation]:
    data = demo_data()
    candidates = [Candidate(id=name, text=text) for name, text in data.candidates.items()]
    async with PGenRM(memory=memory, scaling=scaling) as model:
        for person in data.people:
            for pair in data.pairs(person):
                await model.aremember(person.id, pair)
        evaluations = await asyncio.gather(
            *(model.ascore(person.id, data.query, candidates) for person in data.people)
        )
    return {person.id: one for person, one in zip(data.people, evaluations, strict=True)}
