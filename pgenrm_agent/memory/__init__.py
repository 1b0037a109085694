"""User memory: what each user chose and said they want, kept in Chroma."""

from __future__ import annotations

from pgenrm_agent.memory.corrections import Entry, entry_of
from pgenrm_agent.memory.records import UserSummary
from pgenrm_agent.memory.selection import Selection
from pgenrm_agent.memory.store import default_directory
from pgenrm_agent.memory.user_memory import UserMemory

__all__ = ["Entry", "Selection", "UserMemory", "UserSummary", "default_directory", "entry_of"]
