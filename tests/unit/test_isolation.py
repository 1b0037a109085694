"""No test sees the memory or the settings of who runs the tests, nor does a process that it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pgenrm_agent.memory import default_directory
from pgenrm_agent.settings import DEFAULT, settings_sources

WHERE = """
from platformdirs import user_config_path, user_data_path
from pgenrm_agent.graphs.run_store import default_store
from pgenrm_agent.memory import default_directory
from pgenrm_agent.settings import config_files
places = [default_directory(), default_store(), *config_files()]
places += [folder("pgenrm-agent") for folder in (user_config_path, user_data_path)]
print(*places, sep="\\n")
"""


def test_what_a_test_starts_has_a_memory_and_settings_of_the_tests_own() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", WHERE], capture_output=True, text=True, check=True
    )
    places = done.stdout.split()
    assert len(places) == 5
    assert places[0] == str(default_directory())
    for place in places:
        assert "pgenrm-tests-" in place
        assert not Path(place).is_relative_to(Path.home())


def test_no_setting_is_in_force_that_a_test_did_not_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pgenrm.toml").write_text("individual = 3")
    monkeypatch.chdir(tmp_path)
    given = {name for name, source in settings_sources().items() if source != DEFAULT}
    assert given - {"responses"} == {"home"}
