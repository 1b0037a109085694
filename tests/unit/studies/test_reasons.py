"""A reason is checked by counting."""

from __future__ import annotations

import pytest

from pgenrm_agent.schema import Criterion, EvaluationChain, Persona, PreferencePair, Rubric
from studies.bundled.reasons import check_reasons

HISTORY = [
    PreferencePair(
        query="When?",
        chosen="At five.",
        rejected="It begins at about five in the afternoon, in the big hall on the second floor.",
    ),
    PreferencePair(
        query="Where?",
        chosen="In the hall on the second floor, which you find behind the stairs to the left.",
        rejected="In the hall.",
    ),
    PreferencePair(
        query="Who?",
        chosen="Ann.",
        rejected="Ann, who has been here for years and knows more or less everybody in town.",
    ),
]


def _chain(persona: str, reason: str, name: str = "Brevity") -> EvaluationChain:
    return EvaluationChain(
        signals_of="u",
        order=(0,),
        persona=Persona(text=persona),
        rubric=Rubric.normalized((Criterion(name=name, weight=1, reason=reason),)),
        marks={},
        reported={},
        totals={},
        text="",
        tokens=1,
        seed=0,
    )


@pytest.mark.parametrize(
    ("reason", "cited", "true"),
    [
        ("You can see it in choices 1 and 3: the chosen answer was shorter.", 2, 2),
        ("You can see it in choices 1, 2 and 3: the chosen answer was shorter.", 3, 2),
        ("You can see it in choices 1 and 3: the chosen answer was friendlier.", 2, 0),
        ("They asked for it, and there is a slight sign of it in choice 2.", 1, 0),
        ("You can see it in choice 4: the chosen answer was shorter.", 1, 0),
        ("They asked for it.", 0, 0),
    ],
)
def test_cited_choices_are_counted_with_what_they_show(reason: str, cited: int, true: int) -> None:
    check = check_reasons([_chain("They want short answers.", reason)], HISTORY)
    assert (check.cited, check.cited_true) == (cited, true)


def test_the_taste_named_first_is_the_strongest() -> None:
    chains = [
        _chain("They want short answers, and a formal tone.", ""),
        _chain("They clearly want short answers.", ""),
        _chain("They want a formal tone, and short answers.", ""),
    ]
    check = check_reasons(chains, HISTORY)
    assert (check.personas, check.personas_true) == (3, 2)
    assert check.persona_share == pytest.approx(2 / 3)
    assert (check.poles_true, check.pole_share) == (2, pytest.approx(2 / 3))
    assert (check + check).personas == 6
    nothing = check_reasons(chains, [])
    assert (nothing.personas, nothing.cited_share, nothing.persona_share) == (0, None, None)
    assert nothing.pole_share is None
