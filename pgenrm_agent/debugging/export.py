"""A run as one JSON file, and copies of runs: checkpoints moved between checkpointers.

Only finished checkpoints are taken along; what a node had begun and not ended is run again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from langgraph.graph import START

from pgenrm_agent.arguments import text_of
from pgenrm_agent.debugging.records import Records, config_of
from pgenrm_agent.debugging.validation import (
    Exported,
    Kept,
    check_state,
    refuse_other_order,
    refuse_other_users,
)
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.graphs.checkpoints import in_memory
from pgenrm_agent.graphs.evaluation import build_graph

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointMetadata


@dataclass(frozen=True)
class _Entry:
    """A checkpoint, the id of the one before it, and its metadata."""

    parent: str | None
    checkpoint: dict[str, object]
    metadata: dict[str, object]


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
            "checkpoints": [asdict(entry) for entry in kept],
        },
        ensure_ascii=False,
    )


async def load_run(saver: BaseCheckpointSaver[str], text: str, run: str | None) -> str:
    """Store what `dump_run` wrote; returns the run's id.

    All of it is read, as a session would read it, before any of it is stored.

    Raises ConfigurationError for a text that is no export of a run, and for an id that is taken.
    """
    text_of(text, "the export")
    try:
        file = Exported.model_validate_json(text)
        name = text_of(file.run if run is None else run, "run")
        refuse_other_order(file.checkpoints)
        refuse_other_users(file.checkpoints)
        for kept in file.checkpoints:
            check_state(cast("Mapping[str, object]", kept.checkpoint.channel_values.get(START, {})))
        entries = [_entry_of(kept) for kept in file.checkpoints]
        scratch = in_memory()
        await _put_all(scratch, name, entries)
        await Records(build_graph(scratch), scratch, None).timeline(name)
    except (ValueError, TypeError, OverflowError, RecursionError, ConfigurationError) as error:
        raise ConfigurationError(
            f"this is no exported run ({(str(error) or repr(error)).splitlines()[0]}): pass what"
            " `export` wrote"
        ) from None
    if await saver.aget_tuple(config_of(name)):
        raise ConfigurationError(f"there is a run {name!r} already: import it under another id")
    try:
        await _put_all(saver, name, entries)
    except BaseException:
        await saver.adelete_thread(name)
        raise
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
    entries = [entry for entry in await _kept(source, run) if entry.checkpoint["id"] in ids]
    await _put_all(
        target, name, [replace(entry, metadata={**entry.metadata, **metadata}) for entry in entries]
    )


async def _kept(saver: BaseCheckpointSaver[str], run: str) -> list[_Entry]:
    kept = []
    config = config_of(run)
    async for saved in saver.alist(config):
        above = saved.parent_config
        kept.append(
            _Entry(
                parent=above["configurable"]["checkpoint_id"] if above else None,
                checkpoint=cast(dict[str, object], saved.checkpoint),
                metadata=cast(dict[str, object], saved.metadata),
            )
        )
    return kept[::-1]


def _entry_of(kept: Kept) -> _Entry:
    return _Entry(
        parent=kept.parent,
        checkpoint=kept.checkpoint.model_dump(exclude_unset=True),
        metadata=kept.metadata.model_dump(exclude_unset=True),
    )


async def _put_all(saver: BaseCheckpointSaver[str], run: str, entries: Sequence[_Entry]) -> None:
    for entry in entries:
        place = {"thread_id": run, "checkpoint_ns": ""}
        if entry.parent is not None:
            place["checkpoint_id"] = entry.parent
        # Checkpointers that keep values by version are told that all of them are new.
        versions = cast(Any, entry.checkpoint["channel_versions"])
        await saver.aput(
            {"configurable": place},
            cast("Checkpoint", entry.checkpoint),
            cast("CheckpointMetadata", entry.metadata),
            versions,
        )
