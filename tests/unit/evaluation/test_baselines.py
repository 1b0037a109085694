"""What asks no model: lengths, the crowd, fits on embeddings, and the user's own words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from pgenrm_agent.embedding import HashingEmbedder, Vectors
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.baselines import CrowdJudge, LengthJudge
from pgenrm_agent.evaluation.bradley_terry import fit_bradley_terry
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow
from pgenrm_agent.evaluation.embedding_judges import BradleyTerryJudge, Fits, OwnWordsJudge
from pgenrm_agent.evaluation.judges import Judge
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.schema import Candidate, PreferencePair, StatedPreference


def chosen(user: str, better: str, worse: str, *, said: str | None = None) -> PreferenceRow:
    return PreferenceRow(
        user_id=user,
        pair=PreferencePair(query="?", chosen=better, rejected=worse),
        split="train",
        stated=[StatedPreference(kind="self_description", text=said)] if said else [],
    )


def asked(
    first: str,
    second: str,
    *,
    user: str = "ada",
    past: Iterable[tuple[str, str]] = (),
    stated: Sequence[StatedPreference] = (),
) -> Question:
    return Question(
        id="1",
        user_id=user,
        query="?",
        candidates=(Candidate(id="a", text=first), Candidate(id="b", text=second)),
        grades=(1.0, 0.0),
        history=tuple(PreferencePair(query="?", chosen=a, rejected=b) for a, b in past),
        stated=tuple(stated),
    )


async def scores(judge: Judge, question: Question) -> tuple[float | None, ...]:
    return (await judge.judge(question, seed=1, run_seed=1)).scores


async def margin(judge: Judge, question: Question) -> float:
    first, second = await scores(judge, question)
    assert first is not None
    assert second is not None
    return first - second


class Axes:
    """Words as axes, so that a text is the sum of what it says."""

    name = "axes"
    words = ("sweet", "sour", "hot", "cold", "tea", "soup")
    dimension = len(words)

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.array([[float(word in text) for word in self.words] for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


async def test_the_longest_and_the_shortest_answer_are_baselines_of_their_own() -> None:
    question = asked("Short.", "Somewhat longer.")
    longest = await LengthJudge("longest").judge(question, seed=1, run_seed=1)
    shortest = await LengthJudge("shortest").judge(question, seed=1, run_seed=1)
    assert longest.scores == (6, 16)
    assert shortest.scores == (-6, -16)
    assert longest.probability_best == shortest.probability_best == ()


async def test_the_crowd_is_everybody_but_the_user() -> None:
    choices = [chosen("ada", "tea", "soup"), chosen("ada", "tea", "stew")]
    # Of what only they chose, nobody else says anything.
    verdict = await CrowdJudge(choices).judge(asked("tea", "soup"), seed=1, run_seed=1)
    assert verdict.scores == (None, None)
    assert verdict.reason == "nobody else chose between these answers"
    choices += [chosen(user, "soup", "stew") for user in ("bo", "cy")]
    judge = CrowdJudge(choices)
    assert await scores(judge, asked("tea", "soup")) == (0.5, 0.75)
    # For somebody else, Ada is among the crowd: soup won two of three, tea two of two.
    assert await scores(judge, asked("tea", "soup", user="di")) == (0.75, 0.6)
    # The same words to another query are another text.
    elsewhere = asked("tea", "soup").model_copy(update={"query": "And to drink?"})
    assert await scores(judge, elsewhere) == (None, None)
    with pytest.raises(ConfigurationError, match="no choices of other people"):
        CrowdJudge([])


def test_a_fit_finds_the_weights_that_choices_were_drawn_with() -> None:
    draw = np.random.default_rng(4)
    weights = np.array([1.5, -0.5, 0.0])
    gaps = draw.normal(size=(20_000, 3))
    chosen_first = draw.random(len(gaps)) < 1 / (1 + np.exp(-gaps @ weights))
    gaps[~chosen_first] *= -1
    assert fit_bradley_terry(gaps) == pytest.approx(weights, abs=0.06)
    # A single choice is enough to fit on, and a strong penalty leaves little of it.
    (weight,) = fit_bradley_terry(np.array([[1.0]]))
    (little,) = fit_bradley_terry(np.array([[1.0]]), penalty=0.01)
    assert 0 < little < weight


def test_a_fit_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    gaps = np.random.default_rng(5).normal(size=(300, 8)) + 0.2
    reference = LogisticRegression(C=0.3, fit_intercept=False, max_iter=1000, tol=1e-8)
    reference.fit(np.concatenate([gaps, -gaps]), np.repeat([1, 0], len(gaps)))
    assert fit_bradley_terry(gaps, penalty=0.3) == pytest.approx(reference.coef_[0], abs=1e-3)


def test_few_choices_stay_near_the_prior_and_many_leave_it() -> None:
    prior = np.array([1.0, 1.0])
    gap = np.array([[-1.0, 0.0]])
    nothing = fit_bradley_terry(np.zeros((0, 2)), prior=prior)
    some = fit_bradley_terry(gap, penalty=0.1, prior=prior)
    many = fit_bradley_terry(np.repeat(gap, 100, axis=0), penalty=0.1, prior=prior)
    assert nothing == pytest.approx(prior)
    assert many[0] < 0 < some[0] < prior[0]
    assert some[1] == many[1] == prior[1]  # of which the choices say nothing


async def test_bradley_terry_learns_what_everybody_likes(questions: list[Question]) -> None:
    choices = [chosen(f"user {n}", f"A good answer {n}.", f"A bad answer {n}.") for n in range(20)]
    judge = BradleyTerryJudge(Fits(choices, HashingEmbedder()))
    for question in questions:
        assert (await margin(judge, question) > 0) == (question.grades[0] > question.grades[1])
    with pytest.raises(ConfigurationError, match="no training choices"):
        Fits([], HashingEmbedder())


@pytest.mark.parametrize("personal", [False, True])
async def test_where_nobody_else_is_known_there_is_nothing_to_learn_from(
    questions: list[Question], personal: bool
) -> None:
    choices = [chosen("user", f"A good answer {n}.", f"A bad answer {n}.") for n in range(12)]
    judge = BradleyTerryJudge(Fits(choices, HashingEmbedder()), personal=personal)
    mine = questions[0].model_copy(update={"user_id": "user"})
    verdict = await judge.judge(mine, seed=1, run_seed=1)
    assert set(verdict.scores) == {None}
    assert "nobody else" in (verdict.reason or "")
    stranger = questions[0].model_copy(update={"user_id": "another"})
    assert None not in (await judge.judge(stranger, seed=1, run_seed=1)).scores


def two_camps() -> list[PreferenceRow]:
    """All like tea more than soup; one half likes what is sweet, and the other half what is sour."""
    rows = []
    for number in range(24):
        liked, disliked = ("sweet", "sour") if number % 2 else ("sour", "sweet")
        for heat in ("hot", "cold") * 3:
            rows += [
                chosen(f"user {number}", f"{liked} {heat}", f"{disliked} {heat}"),
                chosen(f"user {number}", f"{heat} tea", f"{heat} soup"),
            ]
    return rows


async def test_past_choices_move_the_weights_from_where_the_crowd_has_them() -> None:
    fits = Fits(two_camps(), Axes())
    everybody, personal = BradleyTerryJudge(fits), BradleyTerryJudge(fits, personal=True)
    past = [("sweet hot", "sour hot"), ("sweet cold", "sour cold")]
    sweet, tea = (
        asked("sweet tea", "sour tea", past=past),
        asked("cold tea", "cold soup", past=past),
    )
    assert abs(await margin(everybody, sweet)) < 0.01 < await margin(personal, sweet)
    contrary = asked("sweet tea", "sour tea", past=[(b, a) for a, b in past])
    assert await margin(personal, contrary) < -0.01
    # What all agree on stays, and without a past nothing is personal.
    assert await margin(personal, tea) > 0.5
    unknown = asked("sweet tea", "sour tea")
    assert await margin(personal, unknown) == pytest.approx(await margin(everybody, unknown))


async def test_what_a_user_wrote_counts_where_it_told_others_choices() -> None:
    rows = [
        row.model_copy(
            update={"stated": [StatedPreference(kind="self_description", text=f"I like {taste}.")]}
        )
        for row in two_camps()
        for taste in ["sweet" if int(row.user_id.split()[1]) % 2 else "sour"]
    ]
    judge = BradleyTerryJudge(Fits(rows, Axes()), personal=True)
    words = [StatedPreference(kind="self_description", text="Something sour, please.")]
    assert await margin(judge, asked("sour tea", "sweet tea", stated=words)) > 0.2
    unsaid = asked("sour tea", "sweet tea")
    assert abs(await margin(judge, unsaid)) < 0.01
    # Who somebody is, is not what they wrote.
    about = [StatedPreference(kind="demographics", text="Lives in: sour.")]
    assert abs(await margin(judge, asked("sour tea", "sweet tea", stated=about))) < 0.01


async def test_own_words_are_near_or_there_are_none() -> None:
    judge = OwnWordsJudge(Axes())
    words = [
        StatedPreference(kind="self_description", text="Give me hot soup."),
        StatedPreference(kind="demographics", text="Lives in: cold."),
    ]
    assert await margin(judge, asked("hot tea", "cold tea", stated=words)) > 0.1
    assert await scores(judge, asked("hot tea", "cold tea", stated=words[1:])) == (None, None)


@pytest.mark.parametrize("personal", [False, True])
async def test_nothing_is_learned_from_the_user_who_is_asked_about(personal: bool) -> None:
    """As where few people are held out in turn: each is learned from, for the others."""
    rows = [chosen(f"user {n}", "tea", "soup") for n in range(9)]
    rows += [chosen("ada", "soup", "tea") for _ in range(500)]
    judge = BradleyTerryJudge(Fits(rows, Axes()), personal=personal)
    assert await margin(judge, asked("tea", "soup", user="ada")) > 0
    assert await margin(judge, asked("tea", "soup", user="user 5")) < 0
