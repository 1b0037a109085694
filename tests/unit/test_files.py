"""A file is replaced in one step, whatever happens while it is written."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pgenrm_agent.files import replacing, write_json, write_text


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "made" / "file"
    write_text(file, "old")
    with replacing(file) as beside:
        beside.write_text("ne")
        assert file.read_text() == "old"
        beside.write_text("new")
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_text(file, "old")

    def fail() -> None:
        with replacing(file) as beside:
            beside.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with replacing(file, private=True) as beside:
        assert stat.S_IMODE(beside.stat().st_mode) == 0o600
        beside.write_text("secret")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_line_breaks_are_written_as_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "a\r\nb\n")
    assert (tmp_path / "file").read_bytes() == b"a\r\nb\n"
    write_json(tmp_path / "json", {"a": [1]})
    assert json.loads((tmp_path / "json").read_text()) == {"a": [1]}
