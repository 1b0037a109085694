"""A run's folder: its settings, which may not change under it, and JSON files that are never half."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import write_json

RUN = "run.json"
SETTINGS = "settings.json"
SAMPLED_PARTS, SAMPLED_BYTES = 64, 1 << 16


def digest(rows: Iterable[str]) -> str:
    """Return a name for what a run learns from, rows and their order."""
    hashed = hashlib.blake2b(digest_size=12)
    for row in rows:
        hashed.update(row.encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()


def refuse_other_settings(folder: Path, settings: Mapping[str, object], *, what: str) -> None:
    """Keep a run's settings in its folder, and refuse to go on there with others.

    Raises ConfigurationError that names the first setting that differs.
    """
    asked = json.loads(json.dumps(settings))
    path = folder / SETTINGS
    if not path.is_file():
        write_json(path, asked)
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    for name, value in asked.items():
        if name not in there:
            raise ConfigurationError(
                f"{folder} holds {what} of an earlier version, which did not keep its {name}: choose"
                " another folder"
            )
        if there[name] != value:
            raise ConfigurationError(
                f"{folder} holds {what} with {name} = {there.get(name)!r}, and {value!r} is asked"
                " for: choose another folder"
            )


def weights_of(folder: Path) -> str:
    """Return a name for a model or an adapter by what its weights are, wherever its folder lies."""
    return f"{folder.name} {digest_of(sorted(folder.glob('*.safetensors')))}"


def digest_of(files: Iterable[Path]) -> str:
    """Return a name for what is in files of weights, by their own names, and their order.

    Parts of each file stand for the whole: training moves all of what it trains, and large models have
    hundreds of gigabytes.
    """
    hashed = hashlib.blake2b(digest_size=8)
    for file in files:
        size = file.stat().st_size
        hashed.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            for start in range(0, size, max(SAMPLED_BYTES, size // SAMPLED_PARTS)):
                content.seek(start)
                hashed.update(content.read(SAMPLED_BYTES))
    return hashed.hexdigest()


def label_of(model: str | Path) -> str:
    """Return a name for a model: of a folder by its weights, of any other as it is."""
    folder = Path(model)
    return weights_of(folder) if folder.is_dir() else str(model)


def record_of(run: Path) -> dict[str, object]:
    """Return what an earlier run wrote about itself; {} if nothing."""
    path = run / RUN
    if not path.is_file():
        return {}
    record: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return record
