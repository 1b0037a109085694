"""Open the vault that an argument, or the setting `vault`, names."""

from __future__ import annotations

from pathlib import Path

from pgenrm_agent.arguments import path_of
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory.vault import Vault
from pgenrm_agent.memory.vault_file import FileVault


def open_vault(place: Path | str | None) -> Vault:
    """Return the vault of a memory on a Chroma server.

    place: a file, for processes of one machine, or a PostgreSQL URL, for those of several; None for what
        the setting `vault` names.

    Raises:
        ConfigurationError: Nothing is named.
        MemoryStoreError: It cannot be opened.
    """
    if place is None:
        from pgenrm_agent.settings import read_settings

        place = read_settings().vault
    if place is None:
        raise ConfigurationError(
            "what is kept on a Chroma server is sealed, and its keys are kept elsewhere: pass vault=, or "
            "set PGENRM_VAULT, to a file (processes of one machine) or a PostgreSQL URL (of several)"
        )
    if isinstance(place, str) and place.startswith(("postgresql://", "postgres://")):
        from pgenrm_agent.memory.vault_postgres import PostgresVault

        return PostgresVault(place)
    return FileVault(path_of(place, "vault").resolve(), shared=True)
