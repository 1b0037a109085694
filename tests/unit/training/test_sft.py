"""Stage 1 on TRL: what is learned, where a run goes on, one process or two, all weights or LoRA."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from killed_training import train_killed
from transformers import AutoTokenizer
from typer.testing import CliRunner

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.cli.train import app
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.people import place_of
from pgenrm_agent.model_files import FORMAT_FILE
from pgenrm_agent.training.chain_dataset import DATASET, read_dataset
from pgenrm_agent.training.recipe import SftRecipe
from pgenrm_agent.training.run import last_checkpoint, passes_per_step
from pgenrm_agent.training.sft import encode_row, plan_sft, train_sft

RECIPE = SftRecipe(
    name="test",
    seed=3,
    epochs=12,
    rows_per_step=8,
    rows_at_once=4,
    max_tokens=2048,
    learning_rate=0.01,
    save_every=3,
)
STEPS = 24


def curve(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in curve(out) if "loss" in row]


def changed(**fields: object) -> SftRecipe:
    return RECIPE.model_copy(update=fields)


def write_recipe(recipe: SftRecipe, path: Path) -> Path:
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return path


def command(model: Path, data: Path, out: Path, recipe: Path) -> list[str]:
    options = ("--data", data, "--model", model, "--out", out, "--recipe", recipe, "--json")
    return ["sft", *map(str, options)]


@pytest.fixture(scope="module")
def trained(
    minute_model: Path, chain_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("sft")
    assert train_sft(RECIPE, minute_model, chain_dataset, out).steps == STEPS
    return out


def test_the_chain_alone_is_learned_from_the_prompt_of_inference(
    minute_model: Path, chain_dataset: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minute_model)
    engine = TransformersEngine(minute_model, device="cpu")
    for row in read_dataset(chain_dataset):
        encoded = encode_row(row, tokenizer)
        learned = [label for label in encoded["labels"] if label != -100]
        assert tokenizer.decode(learned) == row.completion[0].content + "<|end|>"
        assert (
            encoded["input_ids"]
            == engine._encoder.encode(Prompt(messages=row.prompt)).ids + learned
        )


def test_a_run_learns_and_shows_it(trained: Path) -> None:
    learned = losses(trained)
    assert len(learned) == STEPS
    assert learned[0] > 8  # of 4,096 tokens, none is likelier than another
    assert learned[-1] < 0.6 * learned[0]
    assert (trained / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert {"mean_token_accuracy", "learning_rate"} <= set(curve(trained)[0])
    model = trained / "model"
    assert (model / FORMAT_FILE).is_file()
    assert not (model / "training_args.bin").exists()
    assert TransformersEngine(model, device="cpu").name == "transformers:model"


def test_a_run_that_has_ended_is_not_repeated(
    trained: Path, minute_model: Path, chain_dataset: Path
) -> None:
    before = (trained / "model" / "model.safetensors").stat().st_mtime_ns
    again = train_sft(RECIPE, minute_model, chain_dataset, trained)
    assert (again.steps, again.folder) == (STEPS, trained / "model")
    assert (trained / "model" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.long
def test_a_run_that_is_killed_ends_as_if_nothing_had_happened(
    trained: Path, minute_model: Path, chain_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recipe = write_recipe(RECIPE, tmp_path / "test.yaml")
    train_killed(3, out, *command(minute_model, chain_dataset, out, recipe))
    assert losses(out) == pytest.approx(losses(trained), rel=1e-3)


@pytest.mark.long
def test_two_processes_learn_what_one_does(
    trained: Path,
    minute_model: Path,
    chain_dataset: Path,
    launch_two: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    recipe = write_recipe(RECIPE, tmp_path / "test.yaml")
    done = launch_two(*command(minute_model, chain_dataset, out, recipe))
    assert done.returncode == 0, done.stderr[-4000:]
    (summary,) = done.stdout.strip().splitlines()  # of both together
    told = json.loads(summary)
    assert told["steps"] == STEPS
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    assert losses(out) == pytest.approx(losses(trained), rel=1e-3)
    assert TransformersEngine(Path(told["folder"]), device="cpu").name


def test_what_a_killed_run_left_half_written_does_not_count(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    torn = tmp_path / "checkpoints" / "checkpoint-999"
    torn.mkdir()
    newest = str(tmp_path / "checkpoints" / f"checkpoint-{STEPS}")
    assert last_checkpoint(tmp_path) == newest
    (torn / "trainer_state.json").write_text('{"global_step": 99')
    assert last_checkpoint(tmp_path) == newest
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_held_out_people_only_watch(
    minute_model: Path, chain_dataset: Path, tmp_path: Path
) -> None:
    recipe = changed(held_out=0.5, epochs=1)
    plan = plan_sft(recipe, minute_model, chain_dataset)
    assert plan.rows + plan.held_out == 16
    assert plan.held_out % 4 == 0 < plan.held_out  # whole people
    train_sft(recipe.model_copy(update={"save_every": 1}), minute_model, chain_dataset, tmp_path)
    assert any("eval_loss" in row for row in curve(tmp_path))


def test_people_are_held_out_of_any_split_of_people(
    minute_model: Path, chain_dataset: Path, tmp_path: Path
) -> None:
    """Those to train on of `people` splits stand at 0.3 and above in the order that splits go by."""
    row = read_dataset(chain_dataset)[0]
    users = [f"user-{n}" for n in range(300) if place_of(f"user-{n}") >= 0.3]
    rows = [row.model_copy(update={"user_id": user}) for user in users]
    (tmp_path / DATASET).write_text("".join(f"{row.model_dump_json()}\n" for row in rows))
    plan = plan_sft(changed(held_out=0.1), minute_model, tmp_path)
    assert 0.05 * len(users) < plan.held_out < 0.15 * len(users)


def test_the_plan_counts_the_steps_of_whole_epochs(
    minute_model: Path, chain_dataset: Path, tmp_path: Path
) -> None:
    recipe = changed(rows_per_step=12, epochs=3)
    assert plan_sft(recipe, minute_model, chain_dataset).steps == 6
    assert plan_sft(changed(epochs=0.1), minute_model, chain_dataset).steps == 1
    assert train_sft(recipe, minute_model, chain_dataset, tmp_path).steps == 6
    assert curve(tmp_path)[-1]["epoch"] == pytest.approx(3)


def test_a_row_that_is_too_long_is_left_out_whole(minute_model: Path, chain_dataset: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minute_model)
    sizes = sorted(
        len(encode_row(row, tokenizer)["input_ids"]) for row in read_dataset(chain_dataset)
    )
    recipe = changed(max_tokens=sizes[-1] - 1)
    plan = plan_sft(recipe, minute_model, chain_dataset)
    assert plan.too_long == sizes.count(sizes[-1])
    assert plan.tokens == sum(size for size in sizes if size < sizes[-1])


def test_what_cannot_be_trained_is_refused(
    trained: Path, minute_model: Path, chain_dataset: Path, tmp_path: Path
) -> None:
    def refused(recipe: SftRecipe, message: str, out: Path = tmp_path) -> None:
        with pytest.raises(ConfigurationError, match=message):
            train_sft(recipe, minute_model, chain_dataset, out)

    refused(changed(rows_at_once=3), "not divisible into passes of rows_at_once = 3 on 1 process")
    refused(changed(shard=True), "shard needs GPUs")
    refused(changed(max_tokens=5), "16 have more than max_tokens = 5")
    refused(changed(seed=4), "holds a run with recipe = ", out=trained)
    (tmp_path / DATASET).write_text("{}\n")
    with pytest.raises(ConfigurationError, match="line 1, field user_id"):
        train_sft(RECIPE, minute_model, tmp_path, tmp_path / "out")


def test_the_rows_of_a_step_are_shared_out_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes_per_step("r", 16, 2) == 8
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert passes_per_step("r", 16, 2) == 2
    with pytest.raises(ConfigurationError, match=r"the 12 rows of a step .* on 4 processes"):
        passes_per_step("r", 12, 2)


def test_bundled_recipes_are_valid() -> None:
    for name in ("tiny-cpu", "tiny-gpu", "llama-8b", "llama-70b-lora"):
        recipe = SftRecipe.load(name)
        assert recipe.name == name
        processes = 8 if recipe.shard else 1
        assert recipe.rows_per_step % (recipe.rows_at_once * processes) == 0


def test_a_dry_run_tells_what_would_be_done(
    minute_model: Path, chain_dataset: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        app,
        [
            *("sft", "--data", str(chain_dataset), "--model", str(minute_model), "--dry-run"),
            *("--out", str(tmp_path / "out"), "--json"),
        ],
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["rows"], told["steps"], told["too_long"]) == (16, 1, 0)
    assert told["parameters_M"] == told["trained_M"] == pytest.approx(0.07, abs=0.02)
    assert told["estimated_memory_GiB"] > 0
    assert not (tmp_path / "out").exists()


def test_the_chains_to_learn_are_ones_that_the_library_reads(chain_dataset: Path) -> None:
    for row in read_dataset(chain_dataset):
        parse_chain(row.completion[0].content, ("1", "2"))
