"""A file is replaced in one step, whatever happens while it is written."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import exporting, private_file, replacing, write_json, write_text


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


def test_making_a_file_private_again_drops_no_locks_on_it(tmp_path: Path) -> None:
    """What SQLite's writers rely on: POSIX gives all locks of a process up with any descriptor closed."""
    path = tmp_path / "kept.sqlite"
    private_file(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("CREATE TABLE rows (one)")
        file.execute("BEGIN IMMEDIATE")
        private_file(path)
        locking = (
            f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
        )
        done = subprocess.run([sys.executable, "-c", locking], capture_output=True, text=True)
    assert "database is locked" in done.stderr


def test_a_private_file_is_not_written_through_a_planted_link(tmp_path: Path) -> None:
    file, elsewhere = tmp_path / "file", tmp_path / "elsewhere"
    (tmp_path / f"file.{os.getpid()}.new").symlink_to(elsewhere)
    write_text(file, "secret", private=True)
    assert not elsewhere.exists()
    assert file.read_text() == "secret"


def test_an_export_takes_the_place_of_nothing_unless_told_to(tmp_path: Path) -> None:
    new, old, link, folder = (tmp_path / name for name in ("new", "old", "link", "folder"))
    old.write_text("kept")
    link.symlink_to(old)
    folder.mkdir()

    def export(path: Path, *, replace: bool) -> None:
        with exporting(path, replace=replace) as beside:
            beside.write_text("exported")

    for path in (old, link, folder, Path("/dev/null"), tmp_path / "link"):
        with pytest.raises(ConfigurationError, match=r"is there already|no regular file"):
            export(path, replace=False)
    for path in (link, folder, Path("/dev/null")):
        with pytest.raises(ConfigurationError, match="no regular file"):
            export(path, replace=True)
    assert old.read_text() == "kept"
    assert link.is_symlink()
    export(new, replace=False)
    export(old, replace=True)
    for path in (new, old):
        assert path.read_text() == "exported"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == sorted([new, old, link, folder])


def test_line_breaks_are_written_as_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "a\r\nb\n")
    assert (tmp_path / "file").read_bytes() == b"a\r\nb\n"
    write_json(tmp_path / "json", {"a": [1]})
    assert json.loads((tmp_path / "json").read_text()) == {"a": [1]}
