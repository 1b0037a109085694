"""`pgenrm prototypes` as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pgenrm_command import pgenrm

from pgenrm_agent.memory import UserMemory
from pgenrm_agent.schema import PreferencePair

PAIR = PreferencePair(
    query="How do I boil an egg?", chosen="Eight minutes.", rejected="It depends!"
)


def test_build_status_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    before = pgenrm("prototypes", "status")
    assert "no prototypes yet" in before.stdout
    nobody = pgenrm("prototypes", "build")
    assert nobody.returncode == 1
    assert "users consent" in nobody.stderr
    with UserMemory(tmp_path / "memory") as memory:
        for user in ("ann", "bob", "cid"):
            memory.remember(user, PAIR.model_copy(update={"id": user}))
            memory.set_consent(user, True)
    built = pgenrm("prototypes", "build", "-k", "1", "--queries", "1", "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["prototypes"] == 1
    status = json.loads(pgenrm("prototypes", "status", "--json").stdout)
    assert status["people"] == json.loads(built.stdout)["people"]
    picture = tmp_path / "map.png"
    drawn = pgenrm("prototypes", "plot", picture)
    assert drawn.returncode == 0, drawn.stderr
    assert picture.stat().st_size > 5000
    page = tmp_path / "map.html"
    assert pgenrm("prototypes", "plot", page).returncode == 0
    html = page.read_text()
    assert html.count("<svg") == html.count("</svg>") == 1
    assert f"1 prototype of {status['people']} people" in html
    assert not {"ann", "bob", "cid"} & set(re.findall(r"\w+", html))
    wrong = pgenrm("prototypes", "plot", "map.txt")
    assert wrong.returncode == 2
