"""What is left of somebody on the disk: a search of every byte of every file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def files_holding(folder: Path, needles: Iterable[str | bytes]) -> set[tuple[str, str | bytes]]:
    """Which files under a folder hold which of the needles; WALs, journals and index files included."""
    sought = {needle: needle.encode() if isinstance(needle, str) else needle for needle in needles}
    assert all(len(content) > 5 for content in sought.values()), "too short to mean anything"
    return {
        (str(path.relative_to(folder)), needle)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for held in [path.read_bytes()]
        for needle, content in sought.items()
        if content in held
    }
