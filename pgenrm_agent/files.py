"""Files that are never half: one way to replace a file, whatever writes it; and texts, read."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeGuard, cast

from pgenrm_agent.errors import ConfigurationError

PRIVATE = stat.S_IRUSR | stat.S_IWUSR
"""The mode of files that their owner alone may read."""


def private_file(path: Path) -> None:
    """Make a file that its owner alone may read, and take it from others where it is there already.

    A file that is there is not opened: closing it would drop the locks that this process has on it, and two
    writers of a SQLite file ruin it.

    Raises:
        OSError: It cannot be made, or is somebody else's and open to others.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE))
    if stat.S_IMODE(path.stat().st_mode) != PRIVATE:
        path.chmod(PRIVATE)


# Byte order marks, as spreadsheets, editors and shells on Windows write them.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_address(place: object) -> TypeGuard[str]:
    """Return whether it is an address, such as that of a Chroma server, and no path."""
    return isinstance(place, str) and "://" in place


def open_text(path: Path, *, newline: str | None = None) -> TextIO:
    """Open a text that somebody wrote, gzipped (`.gz`) or not: UTF-8, or what its byte order mark says.

    Raises OSError, and UnicodeDecodeError where it is read and is no such text; EOFError for half of
    a gzipped file.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        beginning = file.read(4)
    encoding = next((name for mark, name in _MARKS if beginning.startswith(mark)), "utf-8")
    return cast(TextIO, opener(path, "rt", encoding=encoding, newline=newline))


def read_text(path: Path) -> str:
    """Return the whole of what `open_text` opens; raises what it does."""
    with open_text(path) as file:
        return file.read()


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
            beside.unlink(missing_ok=True)  # of a process that was killed, or somebody's link
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def exporting(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """`replacing` for what tells of people: for its owner alone to read, and in nothing's place.

    replace: a regular file may be there, whose place it takes.

    Raises:
        ConfigurationError: Something is there: a file, or what is none (a link, a device, a folder).
            Or no file can be written there.
    """
    try:
        _refuse_taken(path, replace)
        with replacing(path, private=True) as beside:
            yield beside
            _refuse_taken(path, replace)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror or error}): name another file"
        ) from error


def _refuse_taken(path: Path, replace: bool) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(kind):
        raise ConfigurationError(
            f"{path} is no regular file, and an export replaces nothing else: name another file"
        )
    if not replace:
        raise ConfigurationError(
            f"{path} is there already: name another file, or replace it (replace=True, --force)"
        )


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Replace a text file (UTF-8, line breaks as they are) in one step; see `replacing`."""
    with replacing(path, private=private) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file, indented, in one step; see `replacing`."""
    write_text(path, json.dumps(content, indent=2) + "\n")
