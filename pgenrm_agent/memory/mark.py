"""What a directory says about itself: that it is a memory, of which version, and whether it was used."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.files import write_text
from pgenrm_agent.memory.ownership import LOCK_FILE, OWNER_FILE
from pgenrm_agent.memory.rows import SCHEMA_VERSION

FORMAT = "pgenrm-memory"
FORMAT_FILE = "pgenrm-memory.json"


class Mark(BaseModel):
    """What the directory says about itself. `used`: its database has been made, and must be there."""

    format: str
    schema_version: int
    used: bool = False


def read_mark(directory: Path) -> Mark:
    """Return the directory's mark, made for a new one; refuses a directory that is something else."""
    marker = directory / FORMAT_FILE
    if marker.exists():
        try:
            marked = Mark.model_validate_json(marker.read_bytes())
        except ValidationError as error:
            raise MemoryStoreError(
                f"{marker} is damaged: restore the directory from a backup, or move it away and "
                "import an export into a new one"
            ) from error
        if marked.format != FORMAT:
            raise MemoryStoreError(f"{directory} is no pgenrm memory ({marker.name} says so)")
        check_version(marked.schema_version, str(directory))
        return marked
    foreign = {path.name for path in directory.iterdir()} - {LOCK_FILE, OWNER_FILE}
    if foreign:
        raise MemoryStoreError(
            f"{directory} is not empty and no pgenrm memory (it holds {min(foreign)!r}): give an "
            "empty or a new directory"
        )
    return write_mark(directory, Mark(format=FORMAT, schema_version=SCHEMA_VERSION))


def write_mark(directory: Path, mark: Mark) -> Mark:
    """Write the mark, and return it."""
    write_text(directory / FORMAT_FILE, mark.model_dump_json())
    return mark


def check_version(version: int, where: str) -> None:
    """Refuse what another version of this library wrote."""
    if version != SCHEMA_VERSION:
        advice = "upgrade pgenrm-agent" if version > SCHEMA_VERSION else "pass a new folder"
        raise MemoryStoreError(
            f"the memory in {where} has schema version {version}, this pgenrm-agent reads"
            f" {SCHEMA_VERSION}: {advice}"
        )
