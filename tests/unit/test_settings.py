"""Settings: where they come from, which of them counts, and what is said of a wrong one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import pgenrm
from typer.main import get_command

from pgenrm_agent.cli.app import app
from pgenrm_agent.cli.diagnosis import examine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory import UserMemory, default_directory
from pgenrm_agent.settings import (
    Settings,
    data_folder,
    read_settings,
    settings_sources,
    unknown_variables,
)

SAMPLING = (
    "demo",
    "score",
    "rerank",
    "serve",
    "mcp",
    "studio",
    "debug start",
    "prototypes build",
    "eval",
    "score-dataset",
    "train chains",
)


def defaults(command: str) -> dict[str, Any]:
    """The options of a command that have settings behind them, with what they are if not given."""
    named: Any = get_command(app)
    for word in command.split():
        named = named.commands[word]
    return {
        option.name: option.default()
        for option in named.params
        if option.name in ("seed", "individual", "prototype") and callable(option.default)
    }


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, no file; the user's configuration folder is empty."""
    for name in [name for name in os.environ if name.startswith("PGENRM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    """The file in the user's configuration folder."""
    file = tmp_path / "config" / "pgenrm-agent" / "pgenrm.toml"
    file.parent.mkdir(parents=True)
    return file


def test_variable_then_nearest_file_then_users_file_then_default(
    users_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users_file.write_text('memory = "users"\nindividual = 2\nprototype = 2\nserve_port = 2\n')
    (tmp_path / "pgenrm.toml").write_text("individual = 3\nprototype = 3\n")
    monkeypatch.setenv("PGENRM_PROTOTYPE", "5")
    settings = read_settings()
    assert (settings.prototype, settings.individual, settings.memory) == (5, 3, "users")
    assert (settings.serve_port, settings.mcp_port) == (2, 8001)
    sources = settings_sources()
    assert sources["prototype"] == "PGENRM_PROTOTYPE"
    assert sources["individual"] == "pgenrm.toml"
    assert sources["memory"] == str(users_file)
    assert sources["mcp_port"] == "default"


def test_a_named_file_takes_the_place_of_the_one_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pgenrm.toml").write_text("individual = 3\nprototype = 3\n")
    named = tmp_path / "named.toml"
    named.write_text("individual = 4\n")
    monkeypatch.setenv("PGENRM_CONFIG", str(named))
    assert (read_settings().individual, read_settings().prototype) == (4, 4)


def test_an_empty_variable_sets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGENRM_HOME", "")
    monkeypatch.setenv("PGENRM_INDIVIDUAL", "")
    assert (read_settings().home, read_settings().individual) == (None, 8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGENRM_INDIVIDUAL", "many"),
        ("PGENRM_PROTOTYPE", "5000"),
        ("PGENRM_STOP_WHEN_SURE", "0.5"),
        ("PGENRM_SERVE_PORT", "-1"),
        ("PGENRM_ENGINE", "abacus"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name} = '{re.escape(value)}': "):
        read_settings()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('individual = "many"', "pgenrm.toml, individual = 'many': "),
        ("memory = 3", "pgenrm.toml, memory = 3: "),
        ("indvidual = 3", "pgenrm.toml, indvidual: no such setting; did you mean individual?"),
        ("[serve]\nport = 3", "pgenrm.toml, serve: no such setting; did you mean serve_"),
        ("individual =", "pgenrm.toml cannot be read as TOML: "),
    ],
)
def test_a_wrong_file_is_named_with_its_field(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "pgenrm.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        read_settings()


def test_a_wrong_value_is_blamed_on_the_source_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pgenrm.toml").write_text("individual = 3")
    monkeypatch.setenv("PGENRM_INDIVIDUAL", "many")
    with pytest.raises(ConfigurationError, match="PGENRM_INDIVIDUAL = 'many'"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PGENRM_INDIVIDAUL", "PGENRM_INDIVIDUAL"),
        ("PGENRM_PROTOTYPES", "PGENRM_PROTOTYPE"),
        ("PGENRM_SERVER_PORT", "PGENRM_SERVE_PORT"),
        ("pgenrm_seeds", "PGENRM_SEED"),
    ],
)
def test_a_misspelled_variable_is_named_with_what_was_meant(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")
    with pytest.raises(ConfigurationError, match=f"{name}: no such setting; did you mean {meant}"):
        read_settings()


def test_other_variables_stay_unread_and_doctor_shows_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGENRM_KEY", "of a client")
    monkeypatch.setenv("PGENRM_API_KEY", "that --api-key-env may name")
    monkeypatch.setenv("PGENRM_DATA_DIRECTORY", "/data")
    assert read_settings() == Settings()
    assert unknown_variables() == ["PGENRM_API_KEY", "PGENRM_DATA_DIRECTORY"]
    rows = {row.name: row for row in examine().settings}
    assert rows["PGENRM_DATA_DIRECTORY"].source == "set, and no setting"
    assert "PGENRM_KEY" not in rows


def test_a_home_folder_is_found_wherever_a_path_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    names = ("home", "memory", "model", "embedder", "runs", "keys", "responses")
    (tmp_path / "pgenrm.toml").write_text("".join(f'{name} = "~/{name}"\n' for name in names))
    settings = read_settings()
    for name in names:
        assert str(getattr(settings, name)) == str(tmp_path / "me" / name)
    assert pgenrm("users", "state", "ada", "Short answers.").returncode == 0
    assert (tmp_path / "me" / "memory").is_dir()
    assert not (tmp_path / "~").exists()


def test_the_seed_and_the_number_of_chains_are_the_settings_in_every_command(
    tmp_path: Path,
) -> None:
    (tmp_path / "pgenrm.toml").write_text("seed = 11\nindividual = 3\nprototype = 2\n")
    took = {command: defaults(command) for command in SAMPLING}
    assert {options["seed"] for options in took.values()} == {11}
    assert {options["individual"] for options in took.values() if "individual" in options} == {3}
    # `eval` takes none: the users of a data set are in no memory unless one is named.
    having = {command for command, options in took.items() if options.get("prototype") == 2}
    assert having == set(SAMPLING) - {
        "demo",
        "eval",
        "prototypes build",
        "train chains",
    }


def test_a_named_file_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGENRM_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigurationError, match=r"PGENRM_CONFIG=nowhere\.toml: there is no such"):
        read_settings()


def test_data_is_kept_where_home_says(tmp_path: Path) -> None:
    assert data_folder().name == "pgenrm-agent"
    (tmp_path / "pgenrm.toml").write_text(f'home = "{tmp_path / "data"}"')
    assert default_directory() == tmp_path / "data" / "memory"


def test_commands_take_settings_and_options_count_more(tmp_path: Path) -> None:
    (tmp_path / "pgenrm.toml").write_text('memory = "named"')
    assert pgenrm("users", "state", "ada", "Short answers.").returncode == 0
    assert pgenrm("users", "state", "bob", "Long ones.", "--memory", "given").returncode == 0
    for folder, user in (("named", "ada"), ("given", "bob")):
        with UserMemory(tmp_path / folder) as memory:
            assert [summary.user_id for summary in memory.users()] == [user]


def test_a_wrong_setting_ends_a_command_with_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGENRM_INDIVIDUAL", "many")
    done = pgenrm("score", "-u", "ada", "-q", "How?", "So.", "Like this.")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: PGENRM_INDIVIDUAL = 'many': ")


def test_the_help_needs_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGENRM_INDIVIDUAL", "many")
    done = pgenrm("score", "--help")
    assert done.returncode == 0
    assert "PGENRM_INDIVIDUAL" in done.stdout


def test_the_documentation_tells_of_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text(
        encoding="utf-8"
    )
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        assert f"| `{name}` | {default} | {field.description} |" in page


def test_doctor_shows_what_is_in_force_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pgenrm.toml").write_text("individual = 3")
    monkeypatch.setenv("PGENRM_RUNS", "postgresql://me:secret@db/runs")
    done = pgenrm("doctor", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["settings"]}
    assert set(rows) == set(Settings.model_fields)
    assert (rows["individual"]["value"], rows["individual"]["source"]) == ("3", "pgenrm.toml")
    assert rows["runs"]["value"] == "postgresql://me:***@db/runs"
    assert rows["runs"]["source"] == "PGENRM_RUNS"
    assert "secret" not in done.stdout


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_as_windows_programs_write_it_is_read(encoding: str, tmp_path: Path) -> None:
    Path("pgenrm.toml").write_text('model = "M"\n', encoding=encoding)
    assert read_settings().model == "M"


def test_a_misspelled_field_of_a_file_is_told_what_was_meant_and_no_more() -> None:
    Path("pgenrm.toml").write_text('engin = "openai"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"engin: no such setting; did you mean engine\?$"):
        read_settings()
