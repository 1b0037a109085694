"""What a chain of the teacher's form could reach in the simulated world, and what its form costs.

The teacher tallies by theme what was chosen over what, and weighs candidates with the tally: a bilinear
rule over past and asked differences. A Bradley-Terry fit finds the best weights of such rules from many
simulated users, so that each row says what a policy could learn without changing what it writes:

    tally, themes weighted     sum_t a_t tally_t d_t           (which themes' tallies can be trusted)
    + shared tastes            + sum_t b_t d_t                 (what most users like)
    + kind of query            + sum_t c_(kind, t) d_t         (how tastes shift with the query)
    twelve attributes          sum_(i, j) w_ij s_i d_j + sum_j b_j d_j, s summed over the past choices

with d the asked answers' difference, by theme or, in the last row, by attribute. Readings are exact here;
a model's are not. The last row needs chains that name attributes instead of themes.

How hard it is to notice is told, too: after how many drawn choices, each answered by both, a rule's lead over
the teacher is two standard errors. Reinforcement, paid 1 or 0 by what a user chose, needs more than that,
since its chains differ in much else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pgenrm_agent.chain.signs import CAPS, THEMES, read
from pgenrm_agent.evaluation.bradley_terry import fit_bradley_terry
from pgenrm_agent.evaluation.metrics import Accuracy, credit
from pgenrm_agent.fields import Model
from pgenrm_agent.training.bundled.attributes import KINDS
from pgenrm_agent.training.bundled.simulation import CLIP, Answers, Comparison, World
from pgenrm_agent.training.bundled.teacher import tally_of
from studies.bundled.evaluate import (
    Case,
    baseline_margins,
    chance,
    draw_cases,
    expected_accuracy,
)

TRAINING_USERS = 16_000
PENALTY = 0.05
"""Of `fit_bradley_terry`, for features with unit variance."""

FloatArray = npt.NDArray[np.float64]


class RuleLimit(Model):
    """How often a rule is right, and how soon one would notice."""

    accuracy: Accuracy
    choices_to_tell: int | None = Field(
        description="drawn choices until its lead over the teacher is two standard errors; null: no lead"
    )


def rule_limits(
    world: World,
    training: Answers,
    test: Answers,
    *,
    users: int,
    history: int,
    seed: int,
    training_users: int = TRAINING_USERS,
) -> dict[str, RuleLimit]:
    """Return by rule, the teacher first, `expected_accuracy` and what it takes to see the difference.

    Fitted on users and queries of `training`, measured on `users` others over `test`.
    """
    fitted = draw_cases(
        world, training, split="rules", count=training_users, history=history, seed=seed
    )
    asked = draw_cases(world, test, split="test", count=users, history=history, seed=seed)
    teacher = baseline_margins(world, training, test, asked, seed)["teacher"]

    def limit(margins: Sequence[float]) -> RuleLimit:
        return RuleLimit(
            accuracy=expected_accuracy(test, asked, [credit(margin) for margin in margins]),
            choices_to_tell=_choices_to_tell(test, asked, margins, teacher),
        )

    limits = {"teacher": limit(teacher)}
    known, unknown = _features(training, fitted), _features(test, asked)
    for name, parts in {
        "tally, themes weighted": ("tally",),
        "+ shared tastes": ("tally", "shared"),
        "+ kind of query": ("tally", "shared", "kind"),
        "twelve attributes": ("attributes",),
    }.items():
        margins = _fit_and_apply(
            np.hstack([known[part] for part in parts]),
            np.hstack([unknown[part] for part in parts]),
        )
        limits[name] = limit(margins.tolist())
    return limits


def _choices_to_tell(
    answers: Answers,
    cases: Sequence[Case],
    margins: Sequence[float],
    teacher: Sequence[float],
) -> int | None:
    """Return n with n E[d] = 2 sqrt(n E[d^2]), d a drawn choice's credit beyond the teacher's.

    Strict, as accuracy is: a tie earns nothing, whichever answer is drawn.
    """
    likely = np.array([chance(case, answers) for case in cases])
    signs, teachers = np.sign(margins), np.sign(teacher)
    if_chosen = (signs > 0) * 1.0 - (teachers > 0)
    if_not = (signs < 0) * 1.0 - (teachers < 0)
    lead = float(np.mean(likely * if_chosen + (1 - likely) * if_not))
    noise = float(np.mean(likely * if_chosen**2 + (1 - likely) * if_not**2))
    return math.ceil(4 * noise / lead**2) if lead > 0 else None


def _features(answers: Answers, cases: Sequence[Case]) -> dict[str, FloatArray]:
    """(cases, features) each, all odd in the order of the asked answers."""
    rows: dict[str, list[FloatArray]] = {"tally": [], "shared": [], "kind": [], "attributes": []}
    values = read(answers.texts)
    for case in cases:
        pairs = [(values[past.chosen], values[past.rejected]) for past in case.shown]
        tally = tally_of(pairs, np.zeros(len(THEMES), dtype=np.int64))
        asked = case.asked
        themes = (values[asked.chosen] - values[asked.rejected]) / CAPS
        kind = np.zeros((len(KINDS), len(themes)))
        kind[answers.kinds[asked.query]] = themes
        past = sum((_by_attribute(answers, choice) for choice in case.shown), np.zeros(1))
        now = _by_attribute(answers, asked)
        rows["tally"].append(tally / max(1, np.abs(tally).sum()) * themes)
        rows["shared"].append(themes)
        rows["kind"].append(kind.ravel())
        rows["attributes"].append(np.concatenate([np.outer(past, now).ravel(), now]))
    return {name: np.array(features) for name, features in rows.items()}


def _by_attribute(answers: Answers, pair: Comparison) -> FloatArray:
    """(12,): how much more of each attribute the chosen answer has."""
    return np.asarray(np.clip(answers.x[pair.chosen] - answers.x[pair.rejected], -CLIP, CLIP))


def _fit_and_apply(known: FloatArray, unknown: FloatArray) -> FloatArray:
    """Return margins of `unknown`, by Bradley-Terry over `known`, whose chosen answers stand first."""
    spread = known.std(0)
    spread[spread == 0] = 1.0
    weights = fit_bradley_terry(known / spread, penalty=PENALTY)
    return np.asarray(unknown / spread @ weights)
