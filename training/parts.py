"""Large files in parts, for roads that take small ones only; and back, checked by their hash."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import replacing, write_json

INDEX = ".parts.json"


def split_file(path: Path, largest: int, folder: Path | None = None) -> list[Path]:
    """Write a file as parts of at most `largest` bytes, and an index with its hash.

    folder: where they go; beside the file if not given, which they then replace.
    """
    place = path.parent if folder is None else folder
    place.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    whole = sha256()
    with path.open("rb") as source:
        while piece := source.read(largest):
            whole.update(piece)
            parts.append(place / f"{path.name}.part{len(parts) + 1}")
            parts[-1].write_bytes(piece)
    write_json(
        place / (path.name + INDEX),
        {"file": path.name, "sha256": whole.hexdigest(), "parts": [part.name for part in parts]},
    )
    if folder is None:
        path.unlink()
    return parts


def join_parts(folder: Path, out: Path | None = None) -> list[Path]:
    """Put together what `split_file` took apart in a folder, and return the files.

    out: where they go; the same folder if not given. A file that is there already is left alone.

    Raises ConfigurationError for a part that is missing, and a whole that is not what it was.
    """
    whole = []
    for index in sorted(folder.glob("*" + INDEX)):
        told = json.loads(index.read_text(encoding="utf-8"))
        path = (folder if out is None else out) / told["file"]
        whole.append(path)
        if path.is_file():
            continue
        missing = [name for name in told["parts"] if not (folder / name).is_file()]
        if missing:
            raise ConfigurationError(
                f"{folder} lacks {', '.join(missing)} of {told['file']}: bring all"
                f" {len(told['parts'])} parts"
            )
        hashed = sha256()
        with replacing(path) as beside:
            with beside.open("wb") as target:
                for name in told["parts"]:
                    piece = (folder / name).read_bytes()
                    hashed.update(piece)
                    target.write(piece)
            if hashed.hexdigest() != told["sha256"]:
                raise ConfigurationError(
                    f"the parts of {told['file']} in {folder} do not make the file that they were"
                    f" taken from ({told['sha256'][:12]}): bring them again"
                )
    return whole
