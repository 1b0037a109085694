"""What engines tell of the model they ask: caches and chain formats go by it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from chat_openai import FakeChatOpenAI, chat_openai
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import SimpleChatModel
from langchain_core.messages import BaseMessage
from pydantic import SecretStr
from transformers import AutoModelForCausalLM, AutoTokenizer

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.chat import ChatModelEngine
from pgenrm_agent.engines.identity import identity
from pgenrm_agent.engines.openai import OpenAIEngine
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.engines.transformers_loading import opened_from
from pgenrm_agent.evaluation_run import model_identity
from pgenrm_agent.graphs.state import default_format
from pgenrm_agent.model_files import FORMAT_FILE, named_format
from pgenrm_agent.opening import format_for

URL = "http://me:hunter2hunter2@host:1/v1"
KEY = "sk-do-not-show-this"


class Settled(SimpleChatModel):
    """A chat model with settings as integrations have them; which of them name the model varies."""

    endpoint_url: str = "http://host"
    client: Any = None
    api_key: SecretStr = SecretStr("one")
    reasoning: dict[str, Any] | None = None
    temperature: float | None = None

    @property
    def _llm_type(self) -> str:
        return "settled"

    def _call(self, messages: list[BaseMessage], *_: object, **__: object) -> str:
        return "an answer"


class Named(Settled):
    model: str = "m"


class Deployed(Settled):
    """As AzureChatOpenAI, whose deployment decides."""

    model_name: str | None = None
    deployment_name: str = "first"


def source_of(chat_model: BaseChatModel, **options: Any) -> str:
    return ChatModelEngine(chat_model, **options).source


def test_the_source_of_a_chat_model_names_it_and_shows_no_password() -> None:
    chat_model = chat_openai(URL, KEY)
    source = source_of(chat_model)
    assert source.startswith(f"{type(chat_model).__name__} m http://host:1/v1 ")
    assert source == source_of(chat_openai(URL, KEY))
    assert "hunter2" not in source


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Deployed(), Deployed(deployment_name="second")),
        (Deployed(), Deployed(model_name="first")),
        (Named(), Named(reasoning={"effort": "low"})),
        (Named(), Named(temperature=0.0)),
        (Named(temperature=0.0), Named(temperature=0.5)),
        (Named(), Named(endpoint_url="http://host?version=2")),
        (Named(), Named(endpoint_url="http://other")),
        (FakeChatOpenAI(model="a", base_url=URL, api_key=SecretStr(KEY)), Named(model="a")),
    ],
)
def test_chat_models_that_answer_otherwise_have_other_sources(
    first: BaseChatModel, second: BaseChatModel
) -> None:
    assert source_of(first) != source_of(second)
    assert source_of(first) == source_of(first.model_copy())


@pytest.mark.parametrize(
    "same",
    [
        {"api_key": SecretStr("another")},
        {"client": object()},
        {"tags": ["a run's"], "metadata": {"run": 7}, "verbose": True},
    ],
)
def test_keys_clients_and_labels_of_runs_make_no_other_model(same: dict[str, Any]) -> None:
    assert source_of(Named()) == source_of(Named(**same))


def test_a_chat_model_that_nothing_names_has_no_source() -> None:
    engine = ChatModelEngine(Settled())
    assert (engine.source, engine.models, engine.name) == ("", (), "chat:Settled")
    assert ChatModelEngine(Deployed()).name == "chat:first"


def test_the_token_limit_of_an_engine_is_part_of_its_source() -> None:
    for limited in (
        lambda **limit: ChatModelEngine(Named(), **limit).source,
        lambda **limit: OpenAIEngine("m", base_url=URL, api_key=KEY, **limit).source,
    ):
        assert len({limited(), limited(max_tokens=300), limited(max_tokens=3000)}) == 3


def test_the_source_tells_servers_and_their_fields_apart_and_shows_no_password() -> None:
    def source(model: str = "m", url: str = URL, **options: Any) -> str:
        return OpenAIEngine(model, base_url=url, api_key=KEY, **options).source

    assert source() == "http://host:1/v1 m"
    think = {"b": 1, "a": {"think": 0}}
    others = [
        source(extra_body=think),
        source(extra_body={"a": {"think": 1}, "b": 1}),
        source(headers={"X-Route": "canary"}),
        source("n"),
        source(url="http://host:2/v1"),
    ]
    assert len({source(), *others}) == 6
    # A token that is renewed every hour makes no other model.
    assert source(headers={"Authorization": "Bearer 1"}) == source()
    assert source(extra_body=think) == source(extra_body={"a": {"think": 0}, "b": 1})


@dataclass(slots=True)
class Slotted:
    number: int


def test_what_is_no_data_leaves_an_identity_as_it_is() -> None:
    assert identity("a", "", "b", x=None, y={}, z=object()) == "a b"
    assert identity("a", x=0) != identity("a", x=1) != identity("a", x=True)
    within: dict[str, object] = {"y": 1}
    within["itself"] = within
    assert identity("a", x=within) == identity("a", x=within) != identity("a", x={"y": 1})
    assert identity("a", x=Slotted(1)) != identity("a", x=Slotted(2))
    assert identity("a", x={"\ud83d"}, y=Path("b")) != identity("a", x=["\ud83d"])


def test_the_source_is_where_the_model_and_its_adapter_lie(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_llama.parent)
    beside = TransformersEngine(f"./{tiny_llama.name}", device="cpu", threads=1)
    assert beside.models == (str(tiny_llama.resolve()),)
    assert beside.source == f"{tiny_llama.resolve()} torch.float32"
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    loaded = TransformersEngine(
        model, tokenizer=AutoTokenizer.from_pretrained(tiny_llama), device="cpu", threads=1
    )
    assert loaded.models == ()
    assert loaded.source == "", "what is in its memory may be no folder's"
    assert opened_from("org/model", None) == ("org/model",)
    assert opened_from("org/model", Path("adapter")) == (
        "org/model",
        str(Path("adapter").resolve()),
    )


def running(*models: str | Path, **more: Any) -> Engine:
    """An engine, as far as it tells what it runs."""
    able = SimpleNamespace(json_schema=True)
    return cast("Engine", SimpleNamespace(name="x", models=models, capabilities=able, **more))


@pytest.mark.parametrize("place", ["base", "adapter"])
def test_a_folder_whose_files_changed_is_another_model(tmp_path: Path, place: str) -> None:
    folders = [tmp_path / name for name in ("base", "adapter")]
    for folder in folders:
        folder.mkdir()
        (folder / "weights").write_bytes(b"1")
    before = model_identity(running(*folders, source="same"))
    assert before == model_identity(running(*folders, source="same"))
    weights = tmp_path / place / "weights"
    later = weights.stat().st_mtime_ns + 1_000_000_000
    os.utime(weights, ns=(later, later))
    assert model_identity(running(*folders, source="same")) != before


def test_an_engine_that_tells_nothing_is_known_by_its_name() -> None:
    assert model_identity(cast("Engine", SimpleNamespace(name="mine"))) == ["mine", ""]
    assert model_identity(None) == []


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (OpenAIEngine("gpt-4o", base_url=URL, extra_body={"user": "pgenrm"}), "structured-1"),
        (OpenAIEngine("gpt-4o", base_url="http://gw/pgenrm"), "structured-1"),
        (OpenAIEngine("org/P-GenRM-8B", base_url=URL, extra_body={"a": "b/c"}), "published"),
        (OpenAIEngine("pgenrm", base_url=URL), "published"),
        (ChatModelEngine(Named(endpoint_url="http://pgenrm-ollama:11434")), "structured-1"),
        (ChatModelEngine(Named(endpoint_url="https://gw.corp/pgenrm")), "structured-1"),
        (ChatModelEngine(Named(model="p-genrm-8b")), "published"),
        (running("org/P-GenRM-8B", "org/adapter"), "published"),
        (running("org/llama", "org/adapter", source="http://host/pgenrm"), "structured-1"),
        (running(), "structured-1"),
    ],
)
def test_the_format_goes_by_the_models_name_alone(engine: Engine, told: str) -> None:
    if isinstance(engine, OpenAIEngine):
        engine._is_vllm = False  # No server is asked.
    if isinstance(engine, ChatModelEngine):
        engine._asking.adopt("it", "holds to schemas", schema_ways=("json_schema",))
    assert default_format(engine).name == told


def says(folder: Path, name: str) -> Path:
    folder.mkdir()
    (folder / FORMAT_FILE).write_text(json.dumps({"format": name}))
    return folder


def test_an_adapter_keeps_the_format_of_its_base_and_may_name_its_own(tmp_path: Path) -> None:
    base, silent = says(tmp_path / "base", "compact-2"), tmp_path / "p-genrm-adapter"
    silent.mkdir()
    trained = says(tmp_path / "trained", "structured-1")

    def told(*models: Path) -> str:
        named = named_format(*models)
        assert named is not None
        return named.name

    assert told(base, silent) == default_format(running(base, silent)).name == "compact-2"
    assert told(base, trained) == "structured-1"
    assert told(silent) == "published"
    opened = format_for(base, "transformers", None, trained)
    assert isinstance(opened, ChainFormat)
    assert opened.name == "structured-1"
    assert format_for(None, "transformers", None) is not None
