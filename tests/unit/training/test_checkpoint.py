"""A .gguf file is unpacked once, and anew when another file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.training.checkpoint import unpacked


def test_what_was_unpacked_is_used_for_the_same_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def unpack(file: Path, folder: Path) -> None:
        calls.append(file.name)
        folder.mkdir()
        (folder / "config.json").write_text(file.read_text())

    monkeypatch.setattr("pgenrm_agent.training.checkpoint.unpack_gguf", unpack)
    files = {name: tmp_path / f"{name}.gguf" for name in ("first", "copy", "second")}
    for name, file in files.items():
        file.write_text("{}" if name == "second" else "{1}")
    out = tmp_path / "base"
    for name in ("first", "first", "copy", "second"):
        assert unpacked(files[name], out) == str(out)
        assert (out / "config.json").read_text() == files[name].read_text()
    assert calls == ["first.gguf", "second.gguf"]


def test_what_was_not_unpacked_is_left_alone(tmp_path: Path) -> None:
    file, out = tmp_path / "model.gguf", tmp_path / "base"
    file.touch()
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(
        ConfigurationError, match="what it was unpacked from is not told: move that away"
    ):
        unpacked(file, out)
    assert (out / "mine.txt").is_file()
