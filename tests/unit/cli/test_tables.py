"""What `pgenrm score` prints beside the scores: why a criterion matters, and which choices that cites."""

from __future__ import annotations

import pytest

from pgenrm_agent import PGenRM, PreferencePair, Scaling, UserSignals
from pgenrm_agent.cli.tables import print_evaluation
from pgenrm_agent.schema import Evaluation, EvaluationChain

CHOICES = tuple(
    PreferencePair(
        id=name,
        query="How?",
        chosen="- Rinse it.\n- Boil it.\n- Let it rest.",
        rejected="Rinse it and boil it, and then let it rest.",
    )
    for name in ("egg", "kettle", "knife")
)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    with PGenRM(scaling=Scaling(individual=2, prototype=0, seed=3)) as rm:
        known = UserSignals(user_id="ada", history=CHOICES)
        return rm.score(
            "ada", "How do I dry herbs?", ["Hang them up.", "- Hang.\n- Wait."], signals=known
        )


def _printed(evaluation: Evaluation, capsys: pytest.CaptureFixture[str]) -> str:
    print_evaluation(evaluation)
    return " ".join(capsys.readouterr().out.split())


def _with_reason(evaluation: Evaluation, reason: str, **update: object) -> Evaluation:
    """The evaluation with one chain whose first criterion has another reason."""
    chain = evaluation.chains[0]
    assert chain.rubric is not None
    first, *rest = chain.rubric.criteria
    criteria = (first.model_copy(update={"reason": reason}), *rest[:0])
    rubric = chain.rubric.model_copy(update={"criteria": criteria})
    changed = {"rubric": rubric, "marks": {name: row[:1] for name, row in chain.marks.items()}}
    chains: tuple[EvaluationChain, ...] = (chain.model_copy(update={**changed, **update}),)
    return evaluation.model_copy(update={"chains": chains})


def test_choices_are_numbered_in_the_order_they_were_given(evaluation: Evaluation) -> None:
    assert evaluation.evidence.choice_ids == ("egg", "kettle", "knife")


@pytest.mark.parametrize(
    ("reason", "meant"),
    [
        (
            "You can see it in choices 1 and 3: the chosen answer was shorter.",
            "choice 1 is egg, 3 is knife",
        ),
        ("There is a slight sign of it in choice 2.", "choice 2 is kettle"),
        ("In choices 1, 2 and 3.", "choice 1 is egg, 2 is kettle, 3 is knife"),
        ("In choices 1, 2, and 3.", "choice 1 is egg, 2 is kettle, 3 is knife"),
        ("In choice 3, and a little in choice 1.", "choice 1 is egg, 3 is knife"),
        ("In choice 7, which no prompt showed.", ""),
        (f"In choice 0, and in choice {'9' * 5000}.", ""),
        ("They asked for 3 lines.", ""),
    ],
)
def test_reasons_are_printed_with_the_choices_that_they_cite(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str], reason: str, meant: str
) -> None:
    printed = _printed(_with_reason(evaluation, reason), capsys)
    assert reason[:60] in printed
    assert meant in printed
    assert meant or "choice 1 is" not in printed


def test_the_choices_of_a_similar_user_have_no_names(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = _with_reason(evaluation, "In choice 1.", level="prototype")
    assert " is egg" not in _printed(theirs, capsys)
