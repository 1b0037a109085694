"""A newcomer's machine: the tutorial is followed from `make demo` to its end in an empty environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from needs import needs

from studies.printed.pages import blocks_of
from studies.printed.rules import same_shape
from studies.printed.run import outputs

ROOT = Path(__file__).parents[2]
OURS = ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV")
NO_PACKAGES = "packages for an empty environment, from an index or from folders of pip's settings"


@pytest.fixture
def clone() -> Iterator[Path]:
    """The files that git knows, as a clone has them, in a folder that does not stay: it gets large."""
    needs((ROOT / ".git").exists(), "a clone of the repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with TemporaryDirectory(prefix="clone-") as folder:
        for name in listed.stdout.split("\0"):
            if (ROOT / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, Path(folder) / name)
        yield Path(folder)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_newcomer_follows_the_tutorial_from_an_empty_machine_to_its_end(clone: Path) -> None:
    page = (clone / "docs" / "tutorial.md").read_text(encoding="utf-8")
    install = next(block for block in blocks_of(page) if block.language == "sh")
    assert install.text.startswith("make demo\n")
    env = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run(
        ["bash", "-ec", f"{install.text}\npgenrm --version\npip list"],
        cwd=clone,
        env={**env, "PYTHON": sys._base_executable, "PGENRM_HOME": str(clone / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    needs("No matching distribution" not in done.stderr, NO_PACKAGES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "P(best)" in done.stdout
    assert "\npytest " not in done.stdout, "the environment is not a newcomer's"

    blocks = {block.start: block for block in blocks_of(page)}
    told = outputs(page, python=clone / ".venv-run" / "bin" / "python")
    assert len(told.texts) >= 5
    for start, printed in told.texts.items():
        assert same_shape(blocks[start].text, printed), f"line {blocks[start].line}:\n{printed}"
