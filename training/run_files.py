"""A run's folder: its settings, which may not change under it, and JSON files that are never half."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pgenrm_agent.errors import ConfigurationError

__all__ = ["refuse_other_settings", "write_json"]


def refuse_other_settings(path: Path, settings: Mapping[str, object], *, what: str) -> None:
    """Keep a run's settings in `path`, and refuse to go on there with others.

    Raises ConfigurationError that names the first setting that differs.
    """
    asked = json.loads(json.dumps(settings))
    if not path.is_file():
        write_json(path, asked)
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    for name, value in asked.items():
        if there.get(name) != value:
            raise ConfigurationError(
                f"{path.parent} holds {what} with {name} = {there.get(name)!r}, and {value!r} is asked"
                " for: choose another folder"
            )


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file in one step, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
