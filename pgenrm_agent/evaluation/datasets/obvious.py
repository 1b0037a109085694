"""Obvious cases: of which two strangers who see the past choices would name the same candidate.

They ship with the package (`obvious.jsonl` beside this module) and answer whether a judge is fit at
all, before anybody asks how good it is. They were written by hand before the bundled model's second
version was trained, and are not edited afterwards. All candidates of a case answer the query; they
differ in manner.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.jsonl import read_models
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.fields import Identifier, Model, NonBlank
from pgenrm_agent.schema import Candidate, PreferencePair

Group = Literal["long", "short", "pages"]
Taste = Literal[
    "brief", "thorough", "structured", "flowing", "friendly", "formal", "careful", "confident"
]

PARTS: dict[str, tuple[Group, ...]] = {
    "": ("long", "short"),
    "long": ("long",),
    "short": ("short",),
    "pages": ("pages",),
}
"""What may follow `obvious:`, and the groups that are read then; nothing reads the written cases."""


class PastChoice(Model):
    """A choice that the person made before."""

    query: NonBlank
    chosen: NonBlank
    rejected: NonBlank


class ObviousCase(Model):
    """One query, and which candidate anybody would say this person prefers.

    group: "long" for texts of 30 to 500 characters, "short" for 3 to 70, "pages" for the examples of
        the documentation, whose `pages` print them.
    taste: what all past choices have in common.
    preferred: id of the one candidate in this taste.
    """

    id: Identifier
    group: Group
    taste: Taste
    query: NonBlank
    history: Annotated[tuple[PastChoice, ...], Field(min_length=1)]
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=2)]
    preferred: Identifier
    pages: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_a_candidate(self) -> Self:
        if self.preferred not in {candidate.id for candidate in self.candidates}:
            raise ValueError(
                f"the preferred candidate {self.preferred!r} is none of the candidates"
            )
        return self

    @property
    def question(self) -> Question:
        """The case as a question of an evaluation, to a user of its own."""
        return Question(
            id=self.id,
            user_id=self.id,
            query=self.query,
            candidates=self.candidates,
            grades=tuple(float(each.id == self.preferred) for each in self.candidates),
            history=tuple(
                # Ids that stay, so that a seed shows the same choices in every process.
                PreferencePair(
                    id=f"{self.id}-{number}",
                    query=choice.query,
                    chosen=choice.chosen,
                    rejected=choice.rejected,
                )
                for number, choice in enumerate(self.history, start=1)
            ),
            group=self.taste,
        )


def read_obvious(part: str = "") -> list[ObviousCase]:
    """Return the cases of a part, ordered so that the first few are of many tastes and kinds.

    part: "long", "short", "pages", or "" for the long and the short ones.

    Raises ConfigurationError for any other part.
    """
    if part not in PARTS:
        known = ", ".join(f"obvious:{name}" for name in PARTS if name)
        raise ConfigurationError(f"data source 'obvious:{part}' is unknown: use obvious or {known}")
    file = resources.files("pgenrm_agent.evaluation.datasets") / "obvious.jsonl"
    kinds: dict[tuple[str, str], list[ObviousCase]] = {}
    for case in read_models(Path(str(file)), ObviousCase):
        if case.group in PARTS[part]:
            kinds.setdefault((case.taste, case.group), []).append(case)
    # A case of each kind in turn. Another place in each, for places go with the number of choices.
    rounds = max(map(len, kinds.values()))
    return [
        own[(turn + place) % len(own)]
        for turn in range(rounds)
        for place, own in enumerate(kinds.values())
        if turn < len(own)
    ]
