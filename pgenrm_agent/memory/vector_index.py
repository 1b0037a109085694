"""Keeps Chroma's vector index files whole across a kill.

Chroma (1.5.9) keeps rows in SQLite, which survives SIGKILL, and vectors in a folder of index files,
which it rewrites in place every `sync_threshold` writes. A process killed during that rewrite
leaves files that do not belong together, and from then on every read of the collection fails,
though no row is lost (seen here; upstream reports: chroma-core/chroma #7238, #6949).

A file of the index has room for more vectors than there are, and Chroma writes that room as it lies in
the process's memory, whose texts are then on the disk. It is overwritten with zeros after each write of
the files: once when a collection gets its first row, and in each rewrite.

SQLite also tells which write the index files stand for (`max_seq_id`, updated after the files), and
Chroma keeps every later write in its log. So: after each rewrite the files are copied under that
number, and before the store is opened, files that differ from the copy *of the number SQLite
names* are replaced by it. Chroma then replays its log, and nothing is lost.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

_COMPLETED = "index_metadata.pickle"  # the last file of a rewrite
_ROOMY = ("data_level0.bin", "length.bin")
# hnswlib's header begins with its format, then the offset of the level, the room, and the number of
# vectors, and the bytes of each of them.
_HEADER = struct.Struct("<i8xQQQ")
_Stamp = tuple[tuple[str, int, int], ...]


class VectorIndexCopies:
    """Copies of the index folders of one Chroma directory.

    Not thread-safe, and `restore` must run while no process has the directory open: the caller
    holds the store's locks.
    """

    def __init__(self, chroma: Path, copies: Path) -> None:
        self._chroma = chroma
        self._copies = copies
        self._seen: dict[str, _Stamp] = {}
        self._cleared: dict[str, _Stamp] = {}

    def restore(self) -> list[str]:
        """Mend what a kill may have left; returns the ids of the segments that were mended.

        Raises sqlite3.Error when the database cannot be read.
        """
        if not (self._chroma / "chroma.sqlite3").exists():
            return []
        mended = []
        self._clear_room()
        written = self._written()
        for segment, number in written.items():
            folder = self._chroma / segment
            copy = self._copies / segment / str(number)
            if number == 0:
                # Never completely written, so the log holds every vector: start afresh.
                if folder.exists():
                    shutil.rmtree(folder)
            elif not copy.exists():
                # SQLite's number is newer than any copy: killed between a complete rewrite and
                # its copy. The files are whole.
                self._copy(segment, number)
            elif _stamp(folder) != _stamp(copy):
                _replace_folder(copy, folder)
                mended.append(segment)
            self._seen[segment] = _stamp(folder, _COMPLETED)
        self._drop_copies(written)
        return mended

    def after_write(self) -> None:
        """Copy the index files of every segment that Chroma has rewritten since the last call."""
        self._clear_room()
        changed = {
            folder.name: stamp
            for folder in self._chroma.iterdir()
            if folder.is_dir()
            and (stamp := _stamp(folder, _COMPLETED))
            and stamp != self._seen.get(folder.name)
        }
        if not changed:
            return
        written = self._written()
        for segment, stamp in changed.items():
            if number := written.get(segment, 0):
                self._copy(segment, number)
            self._seen[segment] = stamp
        self._drop_copies(written)

    def _clear_room(self) -> None:
        """Overwrite what index files hold behind their last vector."""
        for folder in self._chroma.iterdir():
            stamp = _stamp(folder, *_ROOMY) if folder.is_dir() else ()
            if stamp and stamp != self._cleared.get(folder.name):
                _clear(folder)
                self._cleared[folder.name] = _stamp(folder, *_ROOMY)

    def _written(self) -> dict[str, int]:
        """Vector segment -> the log number its files stand for; 0 when never written."""
        # "rw", though this only reads: a kill may have left a journal that SQLite must roll back.
        database = (self._chroma / "chroma.sqlite3").as_uri() + "?mode=rw"
        with closing(sqlite3.connect(database, uri=True, timeout=30)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if not {"segments", "max_seq_id"} <= tables:
                return {}  # killed while Chroma was setting the database up; it will go on
            rows = connection.execute(
                "SELECT segments.id, max_seq_id.seq_id FROM segments LEFT JOIN max_seq_id "
                "ON max_seq_id.segment_id = segments.id WHERE segments.scope = 'VECTOR'"
            ).fetchall()
        return {str(segment): int(number or 0) for segment, number in rows}

    def _copy(self, segment: str, number: int) -> None:
        if not (self._chroma / segment).is_dir():
            return
        target = self._copies / segment / str(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace_folder(self._chroma / segment, target)
        for older in target.parent.iterdir():
            if older.name != target.name:
                shutil.rmtree(older)

    def _drop_copies(self, written: dict[str, int]) -> None:
        """Copies of collections that no longer exist: nothing of a deleted collection stays."""
        if self._copies.exists():
            for folder in self._copies.iterdir():
                if folder.name not in written:
                    shutil.rmtree(folder)


def _clear(folder: Path) -> None:
    """Overwrite the room behind the vectors of an index with zeros, where its header can be read."""
    try:
        header = (folder / "header.bin").read_bytes()
        _, _, vectors, vector_bytes = _HEADER.unpack_from(header)
        for name, used in (
            ("data_level0.bin", vectors * vector_bytes),
            ("length.bin", vectors * 4),
        ):
            with (folder / name).open("r+b") as file:
                file.seek(used)
                room = file.read()
                if room.strip(b"\0"):  # else as it was, its time included
                    file.seek(used)
                    file.write(bytes(len(room)))
    except (FileNotFoundError, struct.error):
        return  # torn by a kill: `restore` puts a whole one in its place


def _stamp(folder: Path, *names: str) -> _Stamp:
    """Name, size and modification time of the files; empty where there are none.

    Copies keep the modification time, so equal stamps mean equal files.
    """
    stamps = []
    for path in sorted(folder.glob("*")) if not names else [folder / name for name in names]:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        stamps.append((path.name, status.st_size, status.st_mtime_ns))
    return tuple(stamps)


def _replace_folder(source: Path, target: Path) -> None:
    """Copy a folder of files; `target` appears whole or, after a kill, not at all."""
    beside = target.with_name(f"{target.name}.new")
    if beside.exists():
        shutil.rmtree(beside)
    shutil.copytree(source, beside)
    for path in beside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if target.exists():
        shutil.rmtree(target)
    beside.rename(target)
