"""The main job, for real: the bundled model, Chroma, the graph, through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import pgenrm

from pgenrm_agent.aggregation import typical_chain
from pgenrm_agent.demo import DemoResult, demo_data
from pgenrm_agent.schema import Evaluation


def run(memory: Path, *options: object) -> DemoResult:
    done = pgenrm("demo", "--json", "--memory", memory, *options)
    assert done.returncode == 0, done.stderr
    return DemoResult.model_validate_json(done.stdout)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return run(tmp_path_factory.mktemp("memory"), "--individual", 8)


def evaluations(demo: DemoResult) -> dict[str, Evaluation]:
    return {user.id: user.evaluation for user in demo.users}


def test_every_user_gets_a_ranking_of_the_scored_answers(demo: DemoResult) -> None:
    for evaluation in evaluations(demo).values():
        scores = {score.candidate_id: score for score in evaluation.scores}
        assert set(scores) == {"chat", "plain", "plan"}
        assert {score.outcome for score in evaluation.scores} == {"scored"}
        assert set(evaluation.ranking) == set(scores)
        means = [scores[name].mean for name in evaluation.ranking]
        assert means == sorted(means, key=lambda mean: -(mean or 0.0))


def test_users_with_other_choices_like_other_answers(demo: DemoResult) -> None:
    # Who always chose the short answer, the one with steps, and the friendly one.
    assert evaluations(demo)["mara"].ranking[0] == "plain"
    assert evaluations(demo)["edwin"].ranking[0] == "plan"
    assert evaluations(demo)["joana"].ranking[0] == "chat"


def test_every_score_has_a_mean_and_a_standard_error(demo: DemoResult) -> None:
    for evaluation in evaluations(demo).values():
        for score in evaluation.scores:
            assert score.mean is not None
            assert 1 <= score.mean <= 10
            assert score.chains >= 2
            assert score.standard_error is not None
            assert score.standard_error > 0


def test_persona_rubric_and_marks_stand_behind_the_scores(demo: DemoResult) -> None:
    for evaluation in evaluations(demo).values():
        chain = typical_chain(evaluation)
        assert chain.persona.text
        assert chain.rubric is not None
        criteria = chain.rubric.criteria
        assert sum(criterion.weight for criterion in criteria) == pytest.approx(100)
        for row in chain.marks.values():
            assert len(row) == len(criteria)
            assert all(mark is None or 1 <= mark <= 10 for mark in row)


def test_the_demonstration_brings_enough_choices_for_a_taste() -> None:
    data = demo_data()
    for user in data.users:
        pairs = data.pairs(user)
        assert 6 <= len(pairs) <= 8
        assert len({pair.id for pair in pairs}) == len(pairs)
        assert len({chosen for _, chosen, _ in user.choices}) == 1
        assert len({rejected for _, _, rejected in user.choices}) == 2
    for answers in data.answers.values():
        for text in (answers.short, answers.thorough, answers.friendly):
            # What the bundled model's format shows of an answer.
            assert 50 <= len(text) <= 480
