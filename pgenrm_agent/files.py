"""Files that are never half: one way to replace a file, whatever writes it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "write_json", "write_text"]

PRIVATE = stat.S_IRUSR | stat.S_IWUSR


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a path beside `path` to write to; when the block ends well, it takes the file's place.

    A reader, or a crash, sees the old file or the new one. When the block raises, the old one stays
    and nothing is left beside it. The folder is made where there is none.

    private: only the file's owner may read it, from its first byte on.

    Raises OSError when the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        if private:
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE))
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Replace a text file (UTF-8, line breaks as they are) in one step; see `replacing`."""
    with replacing(path, private=private) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file, indented, in one step; see `replacing`."""
    write_text(path, json.dumps(content, indent=2) + "\n")
