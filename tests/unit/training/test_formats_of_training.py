"""The chain format that is trained in: asked for whole, told by the chains' folder and by the model's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.chain.document import write_document
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams, SchemaRefused
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.rows import Example
from pgenrm_agent.model_files import FORMAT_FILE, named_format
from pgenrm_agent.schema import PreferencePair
from pgenrm_agent.testing import ScriptedEngine, write_chain
from pgenrm_agent.training.chain_dataset import (
    DATASET,
    REPORT,
    dataset_format,
    read_dataset,
    sample_chains,
)
from pgenrm_agent.training.curriculum import measure_hardness
from pgenrm_agent.training.format_files import place_told, write_format
from pgenrm_agent.training.grpo import train_grpo
from pgenrm_agent.training.recipe import CurriculumRecipe, GrpoRecipe, SftRecipe
from pgenrm_agent.training.sft import train_sft

PUBLISHED, STRUCTURED, COMPACT = map(ChainFormat.load, ("published", "structured-1", "compact-2"))
ASKS = "Answer with one JSON object"
CHOICE = Example(
    user_id="ada",
    history=(PreferencePair(query="before", chosen="liked", rejected="disliked"),),
    asked=PreferencePair(query="ask", chosen="THE-GOOD one", rejected="the bad one"),
)
SMALL = GrpoRecipe(
    name="small",
    seed=3,
    choices=1,
    steps=1,
    choices_per_step=1,
    samples=2,
    rows_at_once=2,
    learning_rate=1e-4,
    max_tokens=9000,
    save_every=1,
    curriculum=CurriculumRecipe(chains=2),
)


def marked(prompt: Prompt, number: int) -> str:
    """A JSON chain that prefers the chosen answer, wherever it stands."""
    shown = prompt.messages[-1].content
    marks = (9, 2) if shown.index("THE-GOOD") < shown.index("the bad") else (2, 9)
    return write_document(
        {
            "persona": "Somebody who wants it good.",
            "criteria": [
                {"name": name, "weight": weight, "reason": "They chose so."}
                for name, weight in (("Quality", 60), ("Use", 30), ("Length", 10))
            ],
            "scores": {
                f"response_{place}": {"why": "As they like it.", "marks": [mark] * 3}
                for place, mark in enumerate(marks, 1)
            },
        }
    )


def own_format(folder: Path, **changes: Any) -> Path:
    """A format of one's own: the published one with other words, and another name if told one."""
    with resources.as_file(resources.files("pgenrm_agent.chain") / "formats" / "published") as own:
        shutil.copytree(own, folder)
    settings = json.loads((folder / "format.json").read_text())
    (folder / "format.json").write_text(json.dumps(settings | changes))
    system = folder / "system.j2"
    system.write_text(system.read_text() + "\nBe brief.")
    return folder


def without_format(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    (folder / FORMAT_FILE).unlink()
    return folder


# --- what is asked ---


async def test_a_teacher_is_asked_as_inference_asks(tmp_path: Path) -> None:
    able = ScriptedEngine(marked, json_schema=True)
    report = await sample_chains(able, STRUCTURED, [CHOICE], tmp_path / "a", chains=2, seed=1)
    assert report.outcomes == {"kept": 2}
    ((prompts, _),) = able.calls
    for prompt in prompts:
        assert ASKS in prompt.messages[-1].content
        assert prompt.json_schema is not None
    for row in read_dataset(tmp_path / "a"):
        assert ASKS in row.prompt[-1].content
    unable = ScriptedEngine(marked)
    await sample_chains(unable, STRUCTURED, [CHOICE], tmp_path / "b", chains=2, seed=1)
    ((prompts, _),) = unable.calls
    assert [prompt.json_schema for prompt in prompts] == [None, None]
    held = ScriptedEngine("no chain", grammar=True)
    await sample_chains(held, COMPACT, [CHOICE], tmp_path / "c", chains=2, seed=1)
    ((prompts, params),) = held.calls
    assert all(prompt.grammar for prompt in prompts)
    turn = COMPACT.turn("scores", query="q", candidates=["a", "b"])
    assert params.stop == turn.stop


async def test_hardness_is_asked_as_inference_asks() -> None:
    engine = ScriptedEngine(marked, json_schema=True)
    assert await measure_hardness(engine, [(0, CHOICE)], STRUCTURED, SMALL) == [7.0]
    ((prompts, _),) = engine.calls
    for prompt in prompts:
        assert ASKS in prompt.messages[-1].content
        assert prompt.json_schema is not None


class Refusing(ScriptedEngine):
    """A server that has no way to hold an answer to a schema."""

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        raise SchemaRefused("the server cannot hold an answer to a JSON schema")


async def test_a_server_without_schemas_is_no_fault_of_the_choices(tmp_path: Path) -> None:
    engine = Refusing(marked, json_schema=True)
    with pytest.raises(SchemaRefused):
        await sample_chains(engine, STRUCTURED, [CHOICE], tmp_path, chains=2, seed=1)
    assert not (tmp_path / REPORT).exists()


class Captured(Exception):
    """What the trainer was to be made of."""


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise Captured(options["train_dataset"])

    monkeypatch.setattr("pgenrm_agent.training.shared_prompt.SharedPromptTrainer", refuse)


def records(model: Path, out: Path) -> list[dict[str, Any]]:
    with pytest.raises(Captured) as caught:
        train_grpo("cre", SMALL, model, [CHOICE], out)
    return list(caught.value.args[0])


@pytest.mark.usefixtures("captured")
def test_a_policy_is_asked_as_inference_asks(minute_model: Path, tmp_path: Path) -> None:
    model = without_format(minute_model, tmp_path / "model")
    write_format(model, "structured-1")
    (record,) = records(model, tmp_path / "out")
    assert ASKS in record["prompt"][-1]["content"]


DROPS = (
    "{% for message in messages %}{% if message.role != 'system' %}<|{{ message.role }}|>"
    "{{ message.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REFUSES = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
)


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("template", [DROPS, REFUSES], ids=["drops", "refuses"])
def test_a_policy_reads_the_system_text_whatever_its_template(
    template: str, minute_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    model = tmp_path / "model"
    shutil.copytree(minute_model, model)
    (kept,) = records(model, tmp_path / "kept")
    assert [message["role"] for message in kept["prompt"]] == ["system", "user"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(model)
    (record,) = records(model, tmp_path / "out")
    shown = tokenizer.apply_chat_template(record["prompt"], tokenize=False)
    for message in kept["prompt"]:
        assert message["content"] in shown


# --- what is told of it ---


async def test_chains_tell_their_format(tmp_path: Path) -> None:
    own = own_format(tmp_path / "mine", name="mine")
    mine = ChainFormat.load(own)
    engine = ScriptedEngine(write_chain([9, 2]))
    with pytest.raises(ConfigurationError, match=r"mine is not at 'mine'.*format_place"):
        await sample_chains(engine, mine, [CHOICE], tmp_path / "out", chains=2, seed=1)
    for chain_format, place in ((PUBLISHED, None), (mine, own), (mine, str(own))):
        out = tmp_path / f"out-{chain_format.name}"
        await sample_chains(
            engine, chain_format, [CHOICE], out, chains=2, seed=1, format_place=place
        )
        assert json.loads((out / REPORT).read_text())["chain_format"] == chain_format.name
    shutil.rmtree(own)
    for out, digest in (("published", PUBLISHED.digest), ("mine", mine.digest)):
        told = named_format(tmp_path / f"out-{out}")
        assert told is not None
        assert told.digest == digest


async def test_chains_of_two_formats_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    engine = ScriptedEngine(write_chain([9, 2]))
    await sample_chains(engine, PUBLISHED, [CHOICE], tmp_path / "out", chains=2, seed=1)
    own = own_format(tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="holds chains with chain_format_digest"):
        await sample_chains(
            engine,
            ChainFormat.load(own),
            [CHOICE],
            tmp_path / "out",
            chains=2,
            seed=1,
            format_place=own,
        )


def test_what_was_trained_tells_the_format_of_its_chains(
    minute_model: Path, chain_dataset: Path, tmp_path: Path
) -> None:
    recipe = SftRecipe(
        name="test",
        seed=3,
        rows_per_step=16,
        rows_at_once=4,
        max_tokens=2048,
        learning_rate=0.01,
        save_every=3,
    )
    unknown = without_format(minute_model, tmp_path / "unknown")
    data = tmp_path / "data"
    shutil.copytree(chain_dataset, data)

    def told(model: Path, out: str) -> str:
        result = train_sft(recipe, model, data, tmp_path / out)
        chain_format = named_format(result.folder)
        assert chain_format is not None
        return chain_format.digest

    assert told(unknown, "nothing") == PUBLISHED.digest
    # The dataset's counts, whatever the model was trained on before.
    own = own_format(tmp_path / "mine", name="mine")
    write_format(data, own)
    assert told(minute_model, "own") == ChainFormat.load(own).digest


def test_older_chains_tell_their_format_by_name(minute_model: Path, tmp_path: Path) -> None:
    data = tmp_path / DATASET
    assert dataset_format(data, minute_model) == place_told(minute_model) == "compact-2"
    (tmp_path / REPORT).write_text('{"chain_format": "published"}')
    assert dataset_format(data, minute_model) == "published"
    (tmp_path / REPORT).write_text('{"chain_format": "mine"}')
    with pytest.raises(ConfigurationError, match=r"holds chains in format 'mine', .*not bundled"):
        dataset_format(tmp_path, minute_model)
