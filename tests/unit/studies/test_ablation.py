"""The whole table from an empty folder, at a minute size; and again, without doing anything twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.model_files import bundled_model
from pgenrm_agent.training.bundled.simulation import World, load_answers
from studies.ablation.__main__ import app
from studies.ablation.recipe import AblationRecipe
from studies.ablation.study import ALL, BEST, COMPARED, STAGES, held_out_cases

STAGE = {
    "name": "stage",
    "seed": 1,
    "choices": 2,
    "steps": 1,
    "choices_per_step": 1,
    "samples": 2,
    "rows_at_once": 2,
    "learning_rate": 1e-5,
    "max_tokens": 64,
    "save_every": 1,
    "curriculum": {"chains": 2},
}
RECIPE: dict[str, Any] = {
    "name": "minute",
    "seeds": [1],
    "training_users": 2,
    "users": 2,
    "chains": 1,
    "psi_chains": 4,
    "psi": {
        "name": "psi",
        "seed": 1,
        "rows_per_step": 4,
        "rows_at_once": 4,
        "max_tokens": 3072,
        "learning_rate": 1e-5,
        "save_every": 1,
    },
    "cre": STAGE,
    "curriculum": STAGE,
}


@pytest.mark.long
def test_the_table_comes_from_one_command_that_never_works_twice(
    few_answers: Path, tmp_path: Path
) -> None:
    recipe, out = tmp_path / "minute.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(RECIPE))

    command = [
        *("--data", str(few_answers), "--base", str(bundled_model())),
        *("--recipe", str(recipe), "--out", str(out)),
    ]

    def run() -> dict[str, Any]:
        done = CliRunner().invoke(app, [*command, "--json"])
        assert done.exit_code == 0, (done.output, done.exception)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    # One of several processes works on its seeds; what it did is not done again for the report.
    alone = CliRunner().invoke(app, [*command, "--seed", "1"])
    assert alone.exit_code == 0, (alone.output, alone.exception)
    assert not (out / "report.json").exists()
    none = CliRunner().invoke(app, [*command, "--seed", "7"])
    assert "seed 7 is none of recipe minute: 1" in str(none.exception)
    trained = (out / "seed-1" / "cre" / "run.json").stat().st_mtime_ns
    report = run()
    assert (out / "seed-1" / "cre" / "run.json").stat().st_mtime_ns == trained
    assert list(report["stages"]) == list(STAGES)
    assert list(report["compared"]) == list(COMPARED)
    for name, accuracy in (report["stages"] | report["compared"]).items():
        assert accuracy["comparisons"] == 2
        assert report["by_seed"][name] == [accuracy["strict"]["mean"]]
    # Whoever knows the world always says something.
    assert report["compared"][BEST]["coverage"] == 1
    assert json.loads((out / "report.json").read_text()) == report
    table = (out / "report.md").read_text()
    gain = report["gains"][ALL]["mean"]
    (all_three,), (psi,) = (report["by_seed"][name] for name in (ALL, "PSI"))
    assert gain == all_three - psi
    alone, together = (report[of][ALL]["strict"]["mean"] for of in ("one_sample", "stages"))
    alone_gain = report["one_sample_gains"][ALL]["mean"]
    scored = report["stages"][ALL]["accuracy"]
    assert (
        f"| {ALL} | {100 * alone:.1f} | {100 * alone_gain:+.1f} | {100 * together:.1f} |" in table
    )
    assert scored is None or f"| {100 * scored['mean']:.1f} |" in table
    assert f"| {100 * report['unreadable'][ALL]['mean']:.1f} |\n" in table
    assert f"| {BEST} |" in table
    written = {
        path: path.stat().st_mtime_ns
        for path in out.rglob("*")
        if path.name.endswith((".safetensors", ".jsonl", "run.json"))
    }
    assert sum(path.name == "model.safetensors" for path in written) >= 5
    assert run() == report
    assert {path: path.stat().st_mtime_ns for path in written} == written

    # More users are asked without any training; another training is another ablation.
    recipe.write_text(yaml.safe_dump(RECIPE | {"users": 3}))
    assert run()["recipe"]["users"] == 3
    models = [path for path in written if path.suffix == ".safetensors"]
    assert all(path.stat().st_mtime_ns == written[path] for path in models)
    recipe.write_text(yaml.safe_dump(RECIPE | {"psi_chains": 5}))
    refused = CliRunner().invoke(app, command)
    assert "holds an ablation with recipe" in str(refused.exception)
    # The halves of the reward are what their names say.
    weights = {}
    for name in ("cre", "cre-alpha-0", "cre-beta-0", "curriculum"):
        done = json.loads((out / "seed-1" / name / "run.json").read_text())
        weights[name] = (done["stage"], done["recipe"]["alpha"], done["recipe"]["beta"])
    assert weights == {
        "cre": ("cre", 0.5, 1.0),
        "cre-alpha-0": ("cre", 0.0, 1.0),
        "cre-beta-0": ("cre", 0.5, 0.0),
        "curriculum": ("curriculum", 0.5, 1.0),
    }
    recipe.write_text(yaml.safe_dump({**RECIPE, "chains": 2}))
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, ConfigurationError)
    assert "holds an ablation with recipe" in str(refused.exception)


def test_a_missing_model_is_told_before_anything_is_trained(
    few_answers: Path, tmp_path: Path
) -> None:
    recipe, out = tmp_path / "minute.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(RECIPE))
    command = ["--data", str(few_answers), "--recipe", str(recipe), "--out", str(out)]
    known, missing = str(bundled_model()), str(tmp_path / "missing")
    for models in (["--base", missing], ["--base", known, "--psi", missing]):
        refused = CliRunner().invoke(app, [*command, *models])
        assert isinstance(refused.exception, ConfigurationError)
        assert f"{missing} holds no model" in str(refused.exception)
    assert not out.exists()


def test_every_seed_has_users_of_its_own(few_answers: Path) -> None:
    """Else the error over the seeds would leave out by how much users differ."""
    answers = load_answers(few_answers / "val.jsonl.gz")
    tastes = {
        tuple(case.user.taste)
        for seed in (1, 2)
        for case in held_out_cases(World(), answers, seed, users=5, history=1)
    }
    assert len(tastes) == 10
    again = held_out_cases(World(), answers, 1, users=5, history=1)
    assert {tuple(case.user.taste) for case in again} <= tastes


def test_bundled_recipes_are_valid_and_adapters_are_refused() -> None:
    for name in ("tiny-cpu", "tiny-gpu"):
        recipe = AblationRecipe.load(name)
        assert recipe.name == name
        assert len(recipe.seeds) == 5
        assert recipe.cre.choices <= 7 * recipe.training_users
    with pytest.raises(ValueError, match="no adapter"):
        AblationRecipe.model_validate({**RECIPE, "psi": {**RECIPE["psi"], "adapter": {}}})
