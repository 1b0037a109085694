"""The reinforcement stages: what a reward function is given, the schedule, and real small runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml
from killed_training import train_killed
from safetensors.torch import load_file
from typer.testing import CliRunner

from pgenrm_agent import PGenRM, Scaling
from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.cli.train import app
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.rows import Example
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.schema import PreferencePair, StatedPreference, UserSignals
from pgenrm_agent.testing import ScriptedEngine, write_chain
from pgenrm_agent.training.curriculum import (
    measure_hardness,
    measure_missing,
    read_hardness,
    scheduled,
)
from pgenrm_agent.training.grpo import ChainReward, train_grpo
from pgenrm_agent.training.recipe import CurriculumRecipe, GrpoRecipe
from pgenrm_agent.training.rewards import RatingTask, RuleRater

BRIEF = StatedPreference(text="Please keep it short.")
SMALL = GrpoRecipe(
    name="small",
    seed=3,
    choices=4,
    steps=3,
    choices_per_step=1,
    samples=2,
    rows_at_once=2,
    learning_rate=1e-4,
    max_tokens=500,
    save_every=1,
    curriculum=CurriculumRecipe(chains=2),
)


def choice(number: int) -> Example:
    pair = PreferencePair(
        query=f"What is {number} plus one?",
        chosen=f"{number + 1}.",
        rejected=f"Well, let me think about it! I believe that it could be {number + 1}, perhaps.",
    )
    past = pair.model_copy(update={"query": "What is ten minus one?", "id": f"past-{number}"})
    return Example(user_id="ada", history=(past,), stated=(BRIEF,), asked=pair)


CHOICES = [choice(number) for number in range(4)]


def test_the_reward_function_pays_by_chain_and_logs_the_parts() -> None:
    good = write_chain([9, 2], criteria=(("Brevity", 100),))
    logged: dict[str, float] = {}
    reward = ChainReward(RuleRater(), alpha=0.5, beta=1.0)
    stated = json.dumps([BRIEF.model_dump()])
    paid = reward(
        completions=[[{"role": "assistant", "content": good}], good, "not a chain"],
        chosen_first=[True, False, True],
        stated=[stated] * 3,
        log_metric=logged.__setitem__,
        prompts=["x"] * 3,
    )
    assert paid == [1.5, 0.5, -0.1]
    assert logged == {
        "chain/outcome": pytest.approx(1 / 3),
        "chain/format_errors": pytest.approx(1 / 3),
        "chain/process": 1.0,
    }


def test_a_chain_without_a_rating_earns_the_mean_of_its_prompt_s_others() -> None:
    good = write_chain([9, 2], criteria=(("Brevity", 100),))

    class HalfSilentRater:
        name = "half-silent"

        def can_rate(self, stated: Sequence[StatedPreference]) -> bool:
            return True

        def rate(self, tasks: Sequence[RatingTask]) -> list[float | None]:
            return [0.2, None, 0.8, None, 1.0][: len(tasks)]

    paid = ChainReward(HalfSilentRater(), alpha=0.5, beta=0.0)(
        completions=[good] * 5,
        chosen_first=[True] * 5,
        stated=["[]"] * 5,
        prompts=["x", "x", "x", "y", "z"],
    )
    assert paid == [0.1, 0.25, 0.4, 0.0, 0.5]


async def test_hardness_is_what_the_model_shows() -> None:
    def reply(prompt: Prompt, _: int) -> str:
        asked = prompt.messages[-1].content
        if "What is 3" in asked:
            return "nonsense"
        first_is_short = asked.index("Well, let") > asked.index("[The Start of Response 2]")
        likes_short = "What is 0" in asked or "What is 1" in asked
        return write_chain([8, 3] if first_is_short == likes_short else [3, 8])

    engine = ScriptedEngine(reply)
    recipe = SMALL.model_copy(update={"curriculum": CurriculumRecipe(chains=4)})
    numbered = list(enumerate(CHOICES))
    margins = await measure_hardness(engine, numbered, ChainFormat.load("published"), recipe)
    assert margins == [5.0, 5.0, -5.0, None]
    (call,) = engine.calls
    assert [prompt.n for prompt in call[0]] == [2] * 8
    assert "Please keep it short" not in str(call[0])


def test_a_killed_measurement_of_hardness_goes_on_and_processes_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain_format = format_of(bundled_model())

    def measure(folder: Path) -> None:
        measure_missing(SMALL, bundled_model(), CHOICES, chain_format, folder)

    measure(tmp_path / "alone")
    alone = read_hardness(tmp_path / "alone", 4)
    file = tmp_path / "alone" / "hardness-0.jsonl"
    first, rest = file.read_text().split("\n", 1)
    file.write_text(first + "\n" + rest[:9])  # killed while it wrote the second line
    measure(tmp_path / "alone")
    assert read_hardness(tmp_path / "alone", 4) == alone
    assert file.read_text().startswith(first)

    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        measure(tmp_path / "two" / rank)
        file = tmp_path / "two" / rank / f"hardness-{rank}.jsonl"
        assert [json.loads(line)["choice"] for line in file.read_text().splitlines()] == [
            int(rank),
            int(rank) + 2,
        ]
        file.rename(tmp_path / "two" / file.name)
    assert read_hardness(tmp_path / "two", 4) == alone


def test_the_share_of_hard_choices_grows_and_each_comes_before_any_comes_again() -> None:
    margins: list[float | None] = [3.0, -1.0, 0.2, None, 2.0, 4.0, 5.0]
    hard = {1, 2, 3}
    recipe = SMALL.model_copy(update={"steps": 50, "choices_per_step": 10})
    order = scheduled(margins, recipe)
    shares = [sum(i in hard for i in order[at : at + 10]) / 10 for at in range(0, 500, 10)]
    assert shares[0] == 0.2
    assert shares[-1] == 0.8
    assert shares == sorted(shares)
    first = [i for i in order if i in hard]
    assert set(first[:3]) == set(first[3:6]) == hard
    assert set(scheduled([9.0, 9.0], recipe)) == {0, 1}


def curve(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`pgenrm train cre` on the choices above, without the folder to write to."""
    folder = tmp_path_factory.mktemp("recipe")
    rows = [
        {
            "user_id": choice.user_id,
            "query": choice.asked.query,
            "chosen": choice.asked.chosen,
            "rejected": choice.asked.rejected,
            "stated": [BRIEF.text],
            "split": "train",
        }
        for choice in CHOICES
    ]
    (folder / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL.model_dump(mode="json")))
    return [
        *("cre", "--data", str(folder / "choices.jsonl"), "--recipe", str(folder / "small.yaml")),
        *("--model", str(bundled_model()), "--json", "--out"),
    ]


@pytest.fixture(scope="module")
def trained(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of CRE from start to end."""
    out = tmp_path_factory.mktemp("cre")
    done = CliRunner().invoke(app, [*command, str(out)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert json.loads(done.stdout)["steps"] == SMALL.steps
    return out


def test_a_run_shows_its_curves_and_is_not_repeated(trained: Path, command: list[str]) -> None:
    rows = curve(trained)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all({"reward", "chain/outcome", "chain/format_errors"} <= set(row) for row in rows)
    assert (trained / "curve.png").read_bytes().startswith(b"\x89PNG")
    before = (trained / "model" / "model.safetensors").stat().st_mtime_ns
    assert CliRunner().invoke(app, [*command, str(trained)]).exit_code == 0
    assert (trained / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_refuses_another_run(trained: Path) -> None:
    faster = SMALL.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(ConfigurationError, match="holds a run with recipe"):
        train_grpo("cre", faster, bundled_model(), CHOICES, trained)
    with pytest.raises(ConfigurationError, match="holds a run with stage = 'cre'"):
        train_grpo("curriculum", SMALL, bundled_model(), CHOICES, trained)


@pytest.mark.long
def test_two_processes_share_a_step(
    command: list[str],
    launch_two: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "two.yaml"
    two = SMALL.model_copy(update={"steps": 2, "choices_per_step": 2})
    recipe.write_text(yaml.safe_dump(two.model_dump(mode="json")))
    out = tmp_path / "out"
    own = ["curriculum", *command[1:-1], "--recipe", str(recipe), "--out", str(out)]
    done = launch_two(*own)
    assert done.returncode == 0, done.stderr[-4000:]
    (summary,) = done.stdout.strip().splitlines()  # of both together
    assert json.loads(summary)["steps"] == 2
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    assert [row["step"] for row in curve(out)] == [1, 2]
    assert sorted(file.name for file in out.glob("hardness-*.jsonl")) == [
        "hardness-0.jsonl",
        "hardness-1.jsonl",
    ]
    assert TransformersEngine(out / "model", device="cpu").name


@pytest.mark.long
def test_a_run_that_is_killed_ends_with_the_same_steps_and_rewards(
    trained: Path, command: list[str], tmp_path: Path
) -> None:
    train_killed(3, tmp_path, *command, str(tmp_path))
    whole, continued = curve(trained), curve(tmp_path)
    assert [row["step"] for row in continued] == [row["step"] for row in whole]
    # The same choices and, from the state kept in the checkpoint, the same chains.
    for key in ("reward", "loss", "completions/mean_length"):
        assert [row[key] for row in continued] == pytest.approx(
            [row[key] for row in whole], abs=1e-3
        )


def test_what_was_trained_scores_answers(trained: Path) -> None:
    with PGenRM(trained / "model", scaling=Scaling(individual=2, prototype=0, seed=1)) as rm:
        evaluation = rm.score(
            "ada", "What is 2 plus 2?", ["4.", "Four, I guess!"], signals=UserSignals(user_id="ada")
        )
    assert len(evaluation.chains) + len(evaluation.failures) >= 2
    assert {score.outcome for score in evaluation.scores} == {"scored"}
    before, after = (
        load_file(model / "model.safetensors") for model in (bundled_model(), trained / "model")
    )
    assert any((before[name] != after[name]).any() for name in before)


def test_the_curriculum_follows_and_keeps_what_it_measured(trained: Path, tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"steps": 1, "kl": 0.1})
    result = train_grpo("curriculum", recipe, trained / "model", CHOICES, tmp_path)
    assert result.steps == 1
    assert len((tmp_path / "hardness-0.jsonl").read_text().splitlines()) == 4
    (row,) = curve(tmp_path)
    assert "chain/process" not in row
    assert "kl" in row


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no choices"):
        train_grpo("cre", SMALL, bundled_model(), [], tmp_path)
    odd = SMALL.model_copy(update={"rows_at_once": 3})
    with pytest.raises(ConfigurationError, match="not divisible"):
        train_grpo("cre", odd, bundled_model(), CHOICES, tmp_path)
    # A rater that knows none of the wishes would pay nothing for the process, and nobody would see it.
    strange = (StatedPreference(text="I collect stamps."),)
    unknown = [choice.model_copy(update={"stated": strange}) for choice in CHOICES]
    with pytest.raises(ConfigurationError, match="rater rule can rate none of the choices"):
        train_grpo("cre", SMALL, bundled_model(), unknown, tmp_path, rater=RuleRater())
    sharded = SMALL.model_copy(update={"shard": True})
    with pytest.raises(ConfigurationError, match="shard needs GPUs"):
        train_grpo("cre", sharded, bundled_model(), CHOICES, tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_weights_are_trained_in_float32_whatever_the_precision(tmp_path: Path) -> None:
    """Steps of 1e-6 are lost on bfloat16 weights: nothing would be learned, and nobody would see it."""
    recipe = SMALL.model_copy(
        update={"steps": 1, "learning_rate": 1e-6, "warmup_steps": 0, "precision": "bfloat16"}
    )
    train_grpo("cre", recipe, bundled_model(), CHOICES, tmp_path / "out", rater=RuleRater())
    before = load_file(bundled_model() / "model.safetensors")
    after = load_file(tmp_path / "out" / "model" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert after[name].dtype == torch.float32
    moved = (after[name] - before[name].float()).abs()
    assert 0 < moved.max() < 1e-5


def test_bundled_recipes_are_valid_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    for name in ("tiny-cpu", "tiny-cpu-people", "tiny-gpu", "llama-8b", "llama-70b-lora"):
        recipe = GrpoRecipe.load(name)
        assert recipe.name == name
        assert recipe.choices_per_step * recipe.samples % recipe.rows_at_once == 0
    with pytest.raises(ConfigurationError, match="bundled are: llama-70b-lora"):
        GrpoRecipe.load("huge")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump({**SMALL.model_dump(mode="json"), "seed": -1}))
    with pytest.raises(ConfigurationError, match="field seed"):
        GrpoRecipe.load(wrong)


def test_a_dry_run_tells_what_would_be_done(tmp_path: Path) -> None:
    rows = [
        {"user_id": "a", "query": f"q{n}", "chosen": "yes", "rejected": "no", "split": "train"}
        for n in range(5)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["cre", "--dry-run", "--json", "--data", str(data), "--model", str(bundled_model())]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, (done.output, done.exception)
    told = json.loads(done.stdout)
    assert told["choices"] == 5
    recipe = GrpoRecipe.load("tiny-cpu")
    assert told["chains_to_sample"] == recipe.steps * recipe.choices_per_step * recipe.samples
    assert told["estimated_memory_GiB"] > 0
    assert not (tmp_path / "out").exists()
