"""A run as one JSON file, and copies of runs: checkpoints moved between checkpointers.

Only finished checkpoints are taken along; what a node had begun and not ended is run again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from pgenrm_agent.debugging.records import config_of
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointMetadata

__all__ = ["copy_run", "dump_run", "load_run"]


class _Kept(Model):
    parent: str | None
    checkpoint: dict[str, object]
    metadata: dict[str, object]


class _File(Model):
    """checkpoints: oldest first, so that parents come before what follows from them."""

    format: Literal["pgenrm-run"]
    version: Literal[1]
    run: str
    checkpoints: tuple[_Kept, ...]


async def dump_run(saver: BaseCheckpointSaver[str], run: str) -> str:
    """Return all checkpoints of a run as JSON.

    Raises ConfigurationError for an unknown run.
    """
    kept = await _kept(saver, run)
    if not kept:
        raise ConfigurationError(f"there is no run {run!r} in this store")
    return json.dumps(
        {
            "format": "pgenrm-run",
            "version": 1,
            "run": run,
            "checkpoints": [entry.model_dump() for entry in kept],
        },
        ensure_ascii=False,
    )


async def load_run(saver: BaseCheckpointSaver[str], text: str, run: str | None) -> str:
    """Store what `dump_run` wrote; returns the run's id.

    Raises ConfigurationError for a text that is no export, and for an id that is taken.
    """
    try:
        file = _File.model_validate_json(text)
        ids = [str(entry.checkpoint["id"]) for entry in file.checkpoints]
    except (ValueError, KeyError) as error:
        raise ConfigurationError(
            f"this is no exported run ({str(error).splitlines()[0]}): pass what `export` wrote"
        ) from None
    name = file.run if run is None else run
    if not ids:
        raise ConfigurationError("this export has no checkpoints in it")
    if await saver.aget_tuple(config_of(name)):
        raise ConfigurationError(f"there is a run {name!r} already: import it under another id")
    for entry in file.checkpoints:
        await _put(saver, name, entry, {})
    return name


async def copy_run(
    source: BaseCheckpointSaver[str],
    target: BaseCheckpointSaver[str],
    run: str,
    name: str,
    ids: Collection[str],
    metadata: Mapping[str, object],
) -> None:
    """Copy the checkpoints with these ids from `run` to `name`, with `metadata` added to each."""
    for entry in await _kept(source, run):
        if entry.checkpoint["id"] in ids:
            await _put(target, name, entry, metadata)


async def _kept(saver: BaseCheckpointSaver[str], run: str) -> list[_Kept]:
    kept = []
    config = config_of(run)
    async for saved in saver.alist(config):
        above = saved.parent_config
        kept.append(
            _Kept(
                parent=above["configurable"]["checkpoint_id"] if above else None,
                checkpoint=cast(dict[str, object], saved.checkpoint),
                metadata=cast(dict[str, object], saved.metadata),
            )
        )
    return kept[::-1]


async def _put(
    saver: BaseCheckpointSaver[str], run: str, entry: _Kept, metadata: Mapping[str, object]
) -> None:
    place = {"thread_id": run, "checkpoint_ns": ""}
    if entry.parent is not None:
        place["checkpoint_id"] = entry.parent
    # Checkpointers that keep values by version are told that all of them are new.
    versions = cast(Any, entry.checkpoint["channel_versions"])
    await saver.aput(
        {"configurable": place},
        cast("Checkpoint", entry.checkpoint),
        cast("CheckpointMetadata", {**entry.metadata, **metadata}),
        versions,
    )
