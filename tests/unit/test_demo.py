"""The main job, for real: the bundled model, Chroma, the graph, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pgenrm_command import pgenrm

from pgenrm_agent.demo import demo_data


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    done = pgenrm(
        "demo", "--json", "--individual", 4, "--memory", tmp_path_factory.mktemp("memory")
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def _people(demo: dict[str, object]) -> dict[str, dict[str, object]]:
    people = demo["people"]
    assert isinstance(people, dict)
    return people


def test_every_person_gets_a_ranking_of_the_scored_answers(demo: dict[str, object]) -> None:
    for person in _people(demo).values():
        scores = {score["candidate_id"]: score for score in person["scores"]}  # type: ignore[attr-defined]
        assert set(scores) == {"chat", "plain", "plan"}
        ranking = person["ranking"]
        assert isinstance(ranking, list)
        assert {score["outcome"] for score in scores.values()} == {"scored"}
        assert set(ranking) == set(scores)
        means = [scores[one]["mean"] for one in ranking]
        assert means == sorted(means, reverse=True)


def test_people_with_other_choices_like_other_answers(demo: dict[str, object]) -> None:
    people = _people(demo)
    # Who always chose the short answer, and who always chose the thorough one.
    assert people["mara"]["ranking"][0] == "plain"  # type: ignore[index]
    assert people["edwin"]["ranking"][0] == "plan"  # type: ignore[index]


def test_every_score_has_a_mean_and_a_standard_error_or_a_reason(demo: dict[str, object]) -> None:
    for person in _people(demo).values():
        for score in person["scores"]:  # type: ignore[attr-defined]
            if score["outcome"] == "not_scored":
                assert score["reason"]
            else:
                assert 1 <= score["mean"] <= 10
                # Chains with marks of their own never agree to the last digit.
                assert (score["standard_error"] or 0) > 0 or score["chains"] < 2
                assert score["mean"] == score["individual_mean"]
        chances = [score["probability_best"] for score in person["scores"]]  # type: ignore[attr-defined]
        assert sum(chances) == pytest.approx(1)


def test_persona_rubric_and_marks_stand_behind_the_scores(demo: dict[str, object]) -> None:
    for person in _people(demo).values():
        rubric = person["rubric"]
        assert isinstance(rubric, list)
        assert person["persona"]
        assert sum(criterion["weight"] for criterion in rubric) == pytest.approx(100)
        marks = person["marks"]
        assert isinstance(marks, dict)
        for row in marks.values():
            assert len(row) == len(rubric)
            assert all(mark is None or 1 <= mark <= 10 for mark in row)


def test_the_demonstration_brings_enough_choices_for_a_taste() -> None:
    data = demo_data()
    for person in data.people:
        pairs = data.pairs(person)
        assert 6 <= len(pairs) <= 8
        assert len({pair.id for pair in pairs}) == len(pairs)
        assert len({chosen for _, chosen, _ in person.choices}) == 1
        assert len({rejected for _, _, rejected in person.choices}) == 2
    for answers in data.answers.values():
        for text in (answers.short, answers.thorough, answers.friendly):
            # What the bundled model's format shows of an answer.
            assert 50 <= len(text) <= 480


def test_the_same_seed_gives_the_same_demo_and_another_one_does_not(tmp_path: Path) -> None:
    first, again, changed = (
        pgenrm("demo", "--json", "--individual", 1, "--seed", seed, "--memory", tmp_path / folder)
        for folder, seed in (("first", 7), ("again", 7), ("changed", 8))
    )
    assert json.loads(first.stdout) == json.loads(again.stdout)
    assert json.loads(first.stdout)["people"] != json.loads(changed.stdout)["people"]
