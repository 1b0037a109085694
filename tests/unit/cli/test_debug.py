"""`pgenrm debug` as somebody uses it: in a real terminal, with an editor, and from scripts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
from command_line import pgenrm
from scripted_person import reply

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.testing import ScriptedEngine

HERE = Path(__file__).parents[2] / "support"
# The command line over the scripted model of these tests.
MAIN = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from scripted_person import reply
from pgenrm_agent.cli.debug import app
from pgenrm_agent.testing import ScriptedEngine
try:
    app(obj=ScriptedEngine(reply))
except PGenRMError as error:
    print(f"error: {{error}}", file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    choice = {"query": "Tea?", "chosen": "Tea, plainly.", "rejected": "It depends."}
    (tmp_path / "signals.json").write_text(json.dumps({"history": [choice]}))
    (tmp_path / "debug.py").write_text(MAIN)
    return {
        **os.environ,
        "PGENRM_HOME": str(tmp_path),
        "PGENRM_RUNS": str(tmp_path / "runs.sqlite"),
        "TERM": "xterm",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }


def debug(environment: dict[str, str], *arguments: str, code: int = 0) -> str:
    """What `pgenrm debug` prints over the scripted model; with a code, what it complains of."""
    done = pgenrm("debug", *arguments, env=environment, obj=ScriptedEngine(reply))
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.complaint


def begin(tmp_path: Path) -> list[str]:
    return [
        *("start", "-u", "ada", "-q", "Which color?", "--run", "one", "--individual", "4"),
        *("--seed", "5", "--signals", str(tmp_path / "signals.json"), "Red.", "Green."),
    ]


@pytest.mark.long
def test_somebody_edits_a_persona_in_a_terminal_and_sees_the_score_change(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\necho "Someone who loves red." > "$1"\n')
    editor.chmod(0o755)
    terminal = pexpect.spawn(
        "/bin/sh",
        env={**environment, "EDITOR": str(editor), "PS1": "READY> "},
        encoding="utf-8",
        timeout=500,
        dimensions=(50, 120),
    )
    program = f"{sys.executable} -P {tmp_path / 'debug.py'}"

    def type_(command: str, *expected: str) -> None:
        terminal.expect_exact("READY> ")
        terminal.sendline(f"{program} {command}")
        for text in expected:
            terminal.expect_exact(text)

    quoted = " ".join(f"'{argument}'" for argument in begin(tmp_path))
    type_(quoted, "run one", "next: recall")
    type_("resume one -b after:derive_persona", "stopped: after:derive_persona")
    type_("show one", "Wants short answers.")
    type_("edit one persona", "edited persona", "next: ")
    type_("resume one", "stopped: finished", "9.00  answer-1", "answer-2")
    type_("list", "ada", "Which color?", "end")
    terminal.expect_exact("READY> ")
    terminal.sendline("exit")
    terminal.expect(pexpect.EOF)


def test_every_action_can_be_scripted(tmp_path: Path, environment: dict[str, str]) -> None:
    def run(*arguments: str) -> Any:
        return json.loads(debug(environment, *arguments, "--json"))

    begun = run(*begin(tmp_path))
    assert begun["next"] == ["recall"]
    assert run("step", "one")["node"] == "recall"
    first = run("resume", "one")
    assert first["reason"] == "finished"
    assert run("fork", "one", "--name", "two")["run"] == "two"
    edited = run("edit", "two", "rubric", "--text", "3 Warmth: they said so\n1 Length")
    assert edited["edit"] == "rubric"
    assert run("resume", "two")["checkpoint"]["means"]["answer-1"] == 9
    compared = run("compare", "one", "two")
    assert compared["changes"]["answer-1"] == 6
    assert compared["right"]["rubric"][0][:2] == ["Warmth", 75.0]
    assert run("rewind", "two", "--steps", "1")["source"] == "fork"
    points = run("timeline", "two")
    assert [point["current"] for point in points].count(True) == 1
    assert run("diff", "two", points[3]["id"]) != []
    exported = tmp_path / "two.json"
    exported.write_text(debug(environment, "export", "two"))
    assert run("import", str(exported), "--run", "three")["run"] == "three"
    assert run("replay", "one")["same"] is True
    assert {row["run"] for row in run("list")} == {"one", "two", "three"}


@pytest.mark.parametrize(
    ("what", "shown", "written", "kept"),
    [
        ("persona", "Wants short answers.", "Wants long answers.", "Wants long answers.\n### Crit"),
        ("rubric", "100% Fit", "30% Warmth\n90% Fit", "1. Warmth (25%)\n2. Fit (75%)"),
        ("history", "Tea, plainly.", "Cocoa.", "Cocoa."),
        ("candidates", "Green.", "Blue.", "Blue."),
    ],
)
def test_what_can_be_edited_opens_in_the_editor(
    tmp_path: Path,
    environment: dict[str, str],
    what: str,
    shown: str,
    written: str,
    kept: str,
) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1])\n"
        f"text = file.read_text(); assert {shown!r} in text, text\n"
        f"file.write_text(text.replace({shown!r}, {written!r}))\n"
    )
    editing = {**environment, "EDITOR": f"{sys.executable} {editor}"}
    for command in (begin(tmp_path), ["resume", "one"], ["edit", "one", what]):
        printed = debug(editing, *command)
    assert f"edited {what}" in printed
    with DebugSession(environment["PGENRM_RUNS"], engine=ScriptedEngine(reply)) as session:
        state = session.state("one")
    where = {
        "history": json.dumps(state["signals"]),
        "candidates": json.dumps(state["request"]),
    }
    assert kept in where.get(what, (state["chains"] or [{"text": ""}])[0]["text"])


def test_a_wrong_call_gets_one_clear_error(tmp_path: Path, environment: dict[str, str]) -> None:
    assert "nowhere" in debug(environment, "step", "nowhere", code=1)
    debug(environment, *begin(tmp_path))
    said = debug(environment, "resume", "one", "-b", "before:lunch", code=1)
    assert "derive_persona" in said
    debug(environment, "resume", "one")
    said = debug(environment, "edit", "one", "rubric", "--text", "Clarity", code=1)
    assert "40% Clarity: why" in said
    broken = {**environment, "EDITOR": "false"}
    assert "nothing was changed" in debug(broken, "edit", "one", "persona", code=1)


def test_a_run_from_elsewhere_opens_nothing_that_it_names(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    named = tmp_path / "named"
    debug(environment, *begin(tmp_path), "--memory", str(named))
    elsewhere = {**environment, "PGENRM_HOME": str(tmp_path / "another home")}
    for command in (("step",), ("resume",), ("edit", "one", "persona", "--text", "Somebody.")):
        arguments = command if len(command) > 1 else (*command, "one")
        said = debug(elsewhere, *arguments, code=1)
        assert "was not started here" in said
        assert f"memory '{named}'" in said
    assert debug(elsewhere, "show", "one").startswith("run one")
    assert not named.exists()
    assert "next: derive_persona" in debug(elsewhere, "step", "one", "--trust")
    # At home nothing has to be said.
    assert "stopped: finished" in debug(environment, "resume", "one")


def test_a_seal_holds_for_what_it_was_made_for_alone(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    debug(environment, *begin(tmp_path), "--memory", str(tmp_path / "mine"))
    exported = json.loads(debug(environment, "export", "one"))
    for kept in exported["checkpoints"]:
        assert kept["metadata"]["label_seal"]
        kept["metadata"]["label_memory"] = "/theirs"
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(exported))
    debug(environment, "import", str(forged), "--run", "forged")
    assert "memory '/theirs'" in debug(environment, "resume", "forged", code=1)
    # A copy of one's own run is one's own.
    debug(environment, "fork", "one", "--name", "two")
    assert "stopped: finished" in debug(environment, "resume", "two")


@pytest.mark.parametrize(
    ("signals", "complaint"),
    [
        ('{"user_id": "ben"}', "those of user 'ben'"),
        ('{"histroy": []}', "these signals cannot be used"),
        ("[]", "a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_signals_that_cannot_be_used_are_refused(
    tmp_path: Path, environment: dict[str, str], signals: str, complaint: str
) -> None:
    (tmp_path / "signals.json").write_text(signals)
    assert complaint in debug(environment, *begin(tmp_path), code=1)
