"""`pgenrm prototypes` as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from command_line import Done, pgenrm

from pgenrm_agent.memory import UserMemory
from pgenrm_agent.schema import PreferencePair

PAIR = PreferencePair(
    query="How do I boil an egg?", chosen="Eight minutes.", rejected="It depends!"
)


def prototypes(home: Path, *arguments: object) -> Done:
    return pgenrm("prototypes", *arguments, env={"PGENRM_HOME": str(home)})


def test_build_status_and_plot(tmp_path: Path) -> None:
    before = prototypes(tmp_path, "status")
    assert "no prototypes yet" in before.stdout
    nobody = prototypes(tmp_path, "build")
    assert nobody.returncode == 1
    assert "users consent" in nobody.stderr
    with UserMemory(tmp_path / "memory") as memory:
        for user in ("ann", "bob", "cid"):
            memory.remember(user, PAIR.model_copy(update={"id": user}))
            memory.set_consent(user, True)
    built = prototypes(tmp_path, "build", "-k", "1", "--queries", "1", "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["prototypes"] == 1
    status = json.loads(prototypes(tmp_path, "status", "--json").stdout)
    assert status["users"] == json.loads(built.stdout)["users"]
    picture = tmp_path / "map.png"
    drawn = prototypes(tmp_path, "plot", str(picture))
    assert drawn.returncode == 0, drawn.stderr
    assert picture.stat().st_size > 5000
    page = tmp_path / "map.html"
    assert prototypes(tmp_path, "plot", str(page)).returncode == 0
    html = page.read_text()
    assert html.count("<svg") == html.count("</svg>") == 1
    assert f"1 prototype of {status['users']} users" in html
    assert not {"ann", "bob", "cid"} & set(re.findall(r"\w+", html))
    assert prototypes(tmp_path, "plot", "map.txt").returncode == 2
