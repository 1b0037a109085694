"""One reward model per tenant: the same engine, and a memory that is the tenant's alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pgenrm_agent.integrations.keys import valid_tenant
from pgenrm_agent.reward_model import PGenRM


class Tenants:
    """Gives each tenant its reward model, made on first use.

    Tenants are kept apart by folder, not by a condition in a query: a tenant's memory, and whatever
    is learned from it, is another database, so no mistake in a route can reach across.

    folder: of all tenants' memories. None: there is one tenant, whose memory is the base model's.
    """

    def __init__(self, base: PGenRM, folder: Path | None) -> None:
        self._base = base
        self._folder = folder
        self._made: dict[str, PGenRM] = {}
        self._lock = asyncio.Lock()

    async def reward_model(self, tenant: str) -> PGenRM:
        """Raises MemoryStoreError when the tenant's memory cannot be opened."""
        if self._folder is None:
            return self._base
        if tenant not in self._made:
            async with self._lock:
                if tenant not in self._made:
                    self._made[tenant] = await self._make(self._folder / valid_tenant(tenant))
        return self._made[tenant]

    async def _make(self, folder: Path) -> PGenRM:
        made = await asyncio.to_thread(self._base.with_memory, folder)
        await made.aprepare()
        return made

    async def aclose(self) -> None:
        """Close every tenant's memory; the base model stays its owner's."""
        for made in self._made.values():
            await made.aclose()
        self._made.clear()
