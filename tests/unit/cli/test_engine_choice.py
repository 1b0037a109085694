"""`--engine` and the options of a server, on every command that has them."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
from command_line import pgenrm
from scripted_server import ScriptedServer, completion
from typer.main import get_command

from pgenrm_agent.cli.app import app
from pgenrm_agent.cli.debug_session import RESOURCES, labels_of
from pgenrm_agent.cli.engine_choice import EngineChoice
from pgenrm_agent.cli.resources import figures_follow_from
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, PrototypeStore
from pgenrm_agent.schema import PreferencePair
from pgenrm_agent.testing import write_chain

SERVER_OPTIONS = {"--base-url", "--api-key-env", "--max-tokens", "--requests-per-minute"}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PGENRM_CONFIG")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    server.script = lambda body, _: completion(*[write_chain([8, 3])] * body.get("n", 1))
    yield server
    server.close()


def options_of(command: object, name: str = "") -> Iterator[tuple[str, set[str]]]:
    for word, inner in getattr(command, "commands", {}).items():
        yield from options_of(inner, f"{name} {word}")
    yield name, {word for parameter in command.params for word in parameter.opts}  # type: ignore[attr-defined]


def test_every_command_with_an_engine_takes_a_server() -> None:
    with_engine = {
        name: words for name, words in options_of(get_command(app)) if "--engine" in words
    }
    assert {name for name, words in with_engine.items() if not words >= SERVER_OPTIONS} == set()
    assert {" score", " serve", " eval", " debug start", " train chains"} <= set(with_engine)


def score(*more: str) -> tuple[int, str]:
    result = pgenrm(
        *("score", "--user", "ada", "--query", "How?", "--individual", "1", "--seed", "7"),
        *("Slowly.", "At once.", "--memory", "memory", "--json"),
        *more,
    )
    return result.returncode, f"{result.stdout}{result.complaint}"


def test_a_server_is_asked_with_the_key_of_the_variable(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-of-mine")
    code, output = score(
        *("--model", "m", "--base-url", server.url, "--api-key-env", "MY_KEY"),
        *("--max-tokens", "77", "--requests-per-minute", "6000"),
    )
    assert code == 0, output
    assert server.headers[0]["authorization"] == "Bearer sk-of-mine"
    assert {body["max_tokens"] for body in server.requests} == {77}


def test_a_settings_file_says_the_same(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-of-mine")
    (tmp_path / "pgenrm.toml").write_text(
        f'model = "m"\nbase_url = "{server.url}"\napi_key_env = "MY_KEY"\nmax_tokens = 78\n'
    )
    code, output = score()
    assert code == 0, output
    assert server.headers[0]["authorization"] == "Bearer sk-of-mine"
    assert {body["max_tokens"] for body in server.requests} == {78}


@pytest.mark.parametrize("way", ["option", "setting"])
def test_chains_are_asked_for_in_the_format_that_is_named(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    mine = tmp_path / "mine"
    with as_file(files("pgenrm_agent.chain") / "formats" / "published") as bundled:
        shutil.copytree(bundled, mine)
    with (mine / "system.j2").open("a", encoding="utf-8") as system:
        system.write("\nWrite as the marmot judges.\n")
    named = ["--chain-format", str(mine)] if way == "option" else []
    if way == "setting":
        monkeypatch.setenv("PGENRM_CHAIN_FORMAT", str(mine))
    code, output = score(*("--model", "m", "--base-url", server.url), *named)
    assert code == 0, output
    assert "as the marmot judges" in str(server.requests[0]["messages"])


def test_a_format_that_is_not_there_is_one_clear_error(server: ScriptedServer) -> None:
    code, output = score("--model", "m", "--base-url", server.url, "--chain-format", "marmot")
    assert code == 1
    assert "marmot" in output
    assert "published" in output
    assert not server.requests


def test_an_option_of_a_server_is_refused_for_an_engine_without_one() -> None:
    code, output = score("--engine", "transformers", "--base-url", "http://localhost:1/v1")
    assert code == 2
    assert "--base-url is about a server" in output
    code, output = score("--max-tokens", "5")
    assert code == 2


def test_a_servers_setting_does_not_disturb_another_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGENRM_BASE_URL", "http://127.0.0.1:9/v1")
    code, output = score("--engine", "transformers")
    assert code == 0, output


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    code, output = score(
        *("--model", "m", "--base-url", "http://127.0.0.1:9/v1"), *("--api-key-env", "NO_SUCH_KEY")
    )
    assert code == 1
    assert "NO_SUCH_KEY" in output


def test_a_run_keeps_its_server_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-of-mine")
    choice = EngineChoice("openai", "http://localhost:8000/v1", "MY_KEY", 99, 7.5, "structured-1")
    labels = {name: value for name, value in choice.labels.items() if value is not None}
    assert "sk-of-mine" not in labels.values()
    assert EngineChoice.from_labels(labels) == choice
    assert pickle.loads(pickle.dumps(choice)) == choice
    assert set(labels) <= set(RESOURCES), "else the run goes on without it"
    secret = EngineChoice("openai", "http://me:hunter2@host:1/v1?version=2").labels
    assert secret["base_url"] == "http://host:1/v1?version=2"


def test_a_run_finds_its_folders_again_from_anywhere(tmp_path: Path) -> None:
    labels = labels_of(memory="people", chain_format="./mine")
    assert labels["memory"] == str(tmp_path / "people")
    assert labels["chain_format"] == str(tmp_path / "mine")
    assert labels_of(chain_format="published")["chain_format"] == "published"
    assert labels_of(memory="http://host:1")["memory"] == "http://host:1"


@pytest.mark.parametrize("user", ["me:hunter2@", "hunter2@", ":hunter2@"])
def test_a_password_in_the_address_is_refused_and_not_shown(user: str) -> None:
    code, output = score("--model", "m", "--base-url", f"http://{user}127.0.0.1:9/v1")
    assert code == 2
    assert "http://127.0.0.1:9/v1" in output
    assert "hunter2" not in output


def test_figures_follow_from_prompts_servers_and_similar_users(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with as_file(files("pgenrm_agent.chain") / "formats" / "published") as bundled:
        shutil.copytree(bundled, mine)
    choice = EngineChoice("openai", "http://a:1/v1", max_tokens=9, chain_format=str(mine))
    before = figures_follow_from(choice, "m", None, similar=False)
    (mine / "system.j2").write_text("Judge.")
    edited = figures_follow_from(choice, "m", None, similar=False)
    assert {name for name in before if before[name] != edited[name]} == {"chain_format"}
    for changed, name in (
        ({"base_url": "http://b:1/v1"}, "base_url"),
        ({"max_tokens": 8}, "max_tokens"),
    ):
        told = figures_follow_from(replace(choice, **changed), "m", None, similar=False)
        assert {key for key in told if told[key] != edited[key]} == {name}

    with UserMemory(tmp_path / "memory") as memory:
        memory.remember("ann", PreferencePair(query="q", chosen="a", rejected="b"))
        vector = np.ones((1, 1), dtype=np.float32)

        def asked(*, similar: bool) -> str | None:
            told = figures_follow_from(choice, "m", str(tmp_path / "memory"), similar=similar)
            return told["prototypes"]

        versions = {asked(similar=True)}
        for _ in range(2):
            PrototypeStore(memory).replace(vector, [Member("ann", 0, vector[0])], embedder="e")
            versions.add(asked(similar=True))
        assert len(versions) == 3
        assert asked(similar=False) is None
    nowhere = tmp_path / "nowhere"
    assert figures_follow_from(choice, "m", str(nowhere), similar=True)["prototypes"] is None
    assert not nowhere.exists(), "a memory is not made to be asked about"


def test_options_without_a_server_are_no_options() -> None:
    assert EngineChoice("vllm", base_url="http://localhost:8000/v1", max_tokens=5).options == {}
    with pytest.raises(ConfigurationError, match="NO_SUCH_KEY"):
        EngineChoice("openai", api_key_env="NO_SUCH_KEY").open("m")


def test_the_command_line_shows_where_a_default_comes_from() -> None:
    assert "PGENRM_BASE_URL" in pgenrm("score", "--help").stdout
