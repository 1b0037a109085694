"""An adapter trained here: the engine that applies it and the merged model are the same model."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgenrm_agent import PGenRM, Scaling
from pgenrm_agent.cli.train import app
from pgenrm_agent.engines.protocol import Prompt, SamplingParams
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.schema import UserSignals
from pgenrm_agent.training.chain_dataset import read_dataset
from pgenrm_agent.training.format_files import write_format
from pgenrm_agent.training.merge import merge_adapter
from pgenrm_agent.training.recipe import Adapter, SftRecipe
from pgenrm_agent.training.sft import train_sft

RECIPE = SftRecipe(
    name="lora",
    seed=1,
    epochs=6,
    rows_per_step=8,
    rows_at_once=8,
    max_tokens=2048,
    learning_rate=0.005,
    save_every=100,
    adapter=Adapter(rank=8, alpha=16),
)


@pytest.fixture(scope="module")
def adapter(chain_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = train_sft(RECIPE, bundled_model(), chain_dataset, tmp_path_factory.mktemp("lora"))
    assert result.folder.name == "adapter"
    return result.folder


@pytest.fixture(scope="module")
def merged(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "model"
    done = CliRunner().invoke(
        app,
        [
            *("merge", "--adapter", str(adapter), "--out", str(out)),
            *("--precision", "float32", "--json"),
        ],
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["base"] == str(bundled_model())
    return out


async def test_both_write_the_same_texts_and_the_base_writes_others(
    adapter: Path, merged: Path, chain_dataset: Path
) -> None:
    prompts = [Prompt(messages=row.prompt) for row in read_dataset(chain_dataset)[:3]]
    params = SamplingParams(temperature=0, max_tokens=120)
    texts = []
    for engine in (
        TransformersEngine(bundled_model(), adapter=adapter, device="cpu"),
        TransformersEngine(merged, device="cpu"),
        TransformersEngine(bundled_model(), device="cpu"),
    ):
        texts.append([sample.text for [sample] in await engine.sample(prompts, params)])
        await engine.aclose()
    applied, plain, base = texts
    assert applied == plain
    assert all(adapted != plain for adapted, plain in zip(applied, base, strict=True))


def test_both_give_the_same_scores(adapter: Path, merged: Path) -> None:
    assert format_of(adapter).name == format_of(merged).name == format_of(bundled_model()).name
    scaling = Scaling(individual=4, prototype=0, seed=5)

    def totals(engine: TransformersEngine) -> list[dict[str, float]]:
        with PGenRM(engine=engine, chain_format=format_of(merged), scaling=scaling) as rm:
            evaluation = rm.score(
                "ada",
                "What is 7 plus one?",
                ["8.", "Well, it is 8!"],
                signals=UserSignals(user_id="ada"),
            )
        return [chain.totals for chain in evaluation.chains]

    applied = totals(TransformersEngine(bundled_model(), adapter=adapter, device="cpu"))
    plain = totals(TransformersEngine(merged, device="cpu"))
    # Not the means: what so little training leaves may mark too few candidates for those.
    assert any(applied)
    assert applied == plain  # the same draws, and the same weights up to rounding


def test_the_checkpoint_is_as_wide_as_its_base(adapter: Path, tmp_path: Path) -> None:
    merge_adapter(adapter, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["dtype"] == "bfloat16"
    assert not (tmp_path / "new" / "adapter_config.json").exists()


def test_a_format_of_ones_own_goes_along(adapter: Path, tmp_path: Path) -> None:
    own, trained = tmp_path / "mine", tmp_path / "adapter"
    with resources.as_file(resources.files("pgenrm_agent.chain") / "formats" / "compact-2") as like:
        shutil.copytree(like, own)
    settings = json.loads((own / "format.json").read_text())
    (own / "format.json").write_text(json.dumps(settings | {"name": "mine"}))
    shutil.copytree(adapter, trained)
    write_format(trained, own)
    merge_adapter(trained, tmp_path / "new")
    shutil.rmtree(trained)
    assert format_of(tmp_path / "new").name == "mine"


def test_what_cannot_be_merged_is_refused(
    adapter: Path, minute_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="holds no adapter"):
        merge_adapter(bundled_model(), tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="not empty"):
        merge_adapter(adapter, tmp_path)
    with pytest.raises(ConfigurationError, match="'int8' is unknown"):
        merge_adapter(adapter, tmp_path / "out", precision="int8")
    with pytest.raises(ConfigurationError, match=r"cannot be added to .*minute.*--model"):
        merge_adapter(adapter, tmp_path / "out", model=minute_model)
