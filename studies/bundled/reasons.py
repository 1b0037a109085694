"""Whether the reasons of the bundled model's chains are true: cited choices, properties, tastes.

A reason such as "You can see it in choices 1 and 3: the chosen answer was shorter." claims something
that can be counted: of each cited choice, that the chosen text has less of the theme than the
rejected one (`chain.signs`). The grammar of the chains' format keeps to the same counts, so that here is
measured whether it does. A persona names a taste first: the right pole of a theme, and perhaps the
strongest one, by the tally that the rule-based teacher makes of the same choices.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from pgenrm_agent.chain.signs import read
from pgenrm_agent.fields import Model
from pgenrm_agent.schema import EvaluationChain, PreferencePair
from pgenrm_agent.training.bundled.teacher import THEMES, tally_of

_CITED = re.compile(r"in choices? ([\d, and]+?)(?:: the chosen answer was (.+?))?\.$")
_POLES = {theme.wants(sign): (at, sign) for at, theme in enumerate(THEMES) for sign in (1, -1)}
_WANTS = re.compile(r"want (.+?)(?:, and .+)?\.$")
_NAMED = {theme.name(sign): (at, sign) for at, theme in enumerate(THEMES) for sign in (1, -1)}


class ReasonCheck(Model):
    """Counts over chains, and the shares that hold."""

    cited: int = Field(description="choices cited as showing a property")
    cited_true: int = Field(description="of these, where the property holds by count")
    personas: int = Field(description="chains over choices from which a taste follows")
    personas_true: int = Field(
        description="of these, whose persona names the strongest taste first"
    )
    poles_true: int = Field(
        description="of these, whose persona first names a taste that the choices show on the whole"
    )

    @property
    def cited_share(self) -> float | None:
        """Share of cited choices and properties that hold, 0-1; None where nothing was cited."""
        return self.cited_true / self.cited if self.cited else None

    @property
    def persona_share(self) -> float | None:
        """Share of personas that name the strongest taste first, 0-1."""
        return self.personas_true / self.personas if self.personas else None

    @property
    def pole_share(self) -> float | None:
        """Share of personas that first name a taste which the choices show on the whole, 0-1."""
        return self.poles_true / self.personas if self.personas else None

    def __add__(self, more: ReasonCheck) -> ReasonCheck:
        fields = type(self).model_fields
        return ReasonCheck(**{name: getattr(self, name) + getattr(more, name) for name in fields})


def check_reasons(
    chains: Sequence[EvaluationChain], history: Sequence[PreferencePair]
) -> ReasonCheck:
    """Check the chains of one evaluation against the past choices that it was shown, oldest first.

    For somebody who stated nothing, and texts in English.
    """
    values = read([text for pair in history for text in (pair.chosen, pair.rejected)])
    differences = values[0::2] - values[1::2]
    tally = tally_of(
        list(zip(values[0::2], values[1::2], strict=True)), np.zeros(len(THEMES), dtype=np.int64)
    )
    strongest = {
        THEMES[at].wants(int(np.sign(tally[at])))
        for at in np.flatnonzero(np.abs(tally) == np.abs(tally).max())
        if tally[at]
    }
    cited = true = personas = right = poles = 0
    for chain in chains:
        for criterion in chain.rubric.criteria if chain.rubric else ():
            match = _CITED.search(criterion.reason)
            if match is None or criterion.name not in _NAMED:
                continue
            at, sign = _NAMED[criterion.name]
            numbers = [int(number) for number in re.findall(r"\d+", match[1])]
            said = match[2] is None or match[2] == THEMES[at].shows(sign)
            cited += len(numbers)
            true += sum(
                said and number <= len(differences) and differences[number - 1][at] * sign > 0
                for number in numbers
            )
        if strongest:
            personas += 1
            wanted = _WANTS.search(chain.persona.text)
            right += bool(wanted and wanted[1] in strongest)
            at, sign = _POLES.get(wanted[1] if wanted else "", (0, 0))
            poles += bool(tally[at] * sign > 0)
    return ReasonCheck(
        cited=cited,
        cited_true=int(true),
        personas=personas,
        personas_true=right,
        poles_true=poles,
    )
