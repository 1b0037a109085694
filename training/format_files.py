"""The chain format that a model or chains are in, as their folder tells it in `chain_format.json`."""

from __future__ import annotations

import json
from pathlib import Path

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import read_text, write_json, write_text
from pgenrm_agent.model_files import FORMAT_FILE, format_of

OWN = "chain-format"
"""The folder of a copy of a format that is not bundled, beside what is in it."""


def place_told(folder: str | Path) -> str | Path:
    """Return the format of a model, or of a folder with chains, as `ChainFormat.load` takes it.

    Raises ConfigurationError as `format_of` does.
    """
    chain_format, path = format_of(folder), Path(folder).expanduser()
    if not (path / FORMAT_FILE).is_file():
        return chain_format.name
    name: str = json.loads(read_text(path / FORMAT_FILE))["format"]
    return path / name if "/" in name else name


def refuse_other_place(chain_format: ChainFormat, place: str | Path) -> None:
    """Raises ConfigurationError unless a format was loaded from `place`."""
    try:
        same = ChainFormat.load(place).digest == chain_format.digest
    except ConfigurationError:
        same = False
    if not same:
        raise ConfigurationError(
            f"chain format {chain_format.name} is not at {str(place)!r}, so it cannot be kept with the"
            " chains: pass the name or the folder that it was loaded from as format_place"
        )


def write_format(folder: Path, place: str | Path) -> None:
    """Let a folder tell its format, so that inference asks in it: by name, or by a copy of its files.

    place: as `ChainFormat.load` takes it.
    """
    name = str(place)
    if isinstance(place, Path) or "/" in name or "\\" in name:
        source = Path(place).expanduser()
        (folder / OWN).mkdir(parents=True, exist_ok=True)
        for file in (source / "format.json", *sorted(source.glob("*.j2"))):
            write_text(folder / OWN / file.name, read_text(file))
        name = f"./{OWN}"
    write_json(folder / FORMAT_FILE, {"format": name})
