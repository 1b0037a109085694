"""Two `pgenrm serve` processes as on two machines: one Chroma server, one PostgreSQL, one model server.

docs/how-to/several-machines.md says what is promised. The model over HTTP is scripted, everything else real.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from pyarrow import Table, parquet
from serve_process import COMMAND, Served, serving

from pgenrm_agent.client import Client
from pgenrm_agent.errors import EngineUnavailable
from pgenrm_agent.memory.vault_opening import open_vault
from pgenrm_agent.schema import PreferencePair, Scaling, StatedPreference

pytestmark = pytest.mark.long

QUERY = "How do I clean a kettle?"
ANSWERS = ["Use a good vinegar.", "Buy another."]
SCALING = Scaling(individual=2, prototype=0, seed=4)


class Apps(NamedTuple):
    """Two app processes and a client of each. environment: what both were started with."""

    first: Client
    second: Client
    processes: tuple[Served, Served]
    environment: dict[str, str]


@pytest.fixture
async def apps(
    empty_chroma: str,
    vault: str,
    seeded_model: str,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> AsyncIterator[Apps]:
    shared = {"PGENRM_VAULT": vault, "PGENRM_MEMORY": empty_chroma}
    async with AsyncExitStack() as stack:
        running = []
        for machine in ("first", "second"):
            env = {**shared, "PGENRM_HOME": str(tmp_path / machine)}
            server = serving(empty_chroma, free_port(), env=env)
            running.append(await stack.enter_async_context(server))
        first, second = running
        yield Apps(
            await stack.enter_async_context(Client(first.url, wait=60)),
            await stack.enter_async_context(Client(second.url, wait=60)),
            (first, second),
            shared,
        )


def pair(query: str) -> PreferencePair:
    return PreferencePair(query=query, chosen="A good answer.", rejected="Another.", id=query)


async def test_two_apps_are_one_to_their_users_and_forget_as_one(apps: Apps, vault: str) -> None:
    first, second, *_ = apps
    await first.aremember("ada", pair("Typed on one machine?"))
    await second.aremember("ada", pair("Typed on the other?"))
    await second.astate_preference("ada", StatedPreference(text="short answers"))
    await first.aremember("ben", pair("Of Ben?"))
    await first.aset_consent("ben", True)
    assert await second.aconsent("ben")
    assert {user.user_id for user in await first.ausers()} == {"ada", "ben"}

    # Both at once, from the same choices and the same model: the same scores.
    asked = [
        client.ascore(user, QUERY, ANSWERS, scaling=SCALING)
        for user in ("ada", "ben")
        for client in (first, second) * 4
    ]
    evaluations = await asyncio.gather(*asked)
    for user, choices, statements in (("ada", 2, 1), ("ben", 1, 0)):
        own = [item for item in evaluations if item.request.user_id == user]
        assert all(item.scores == own[0].scores for item in own)
        assert {item.evidence.choices for item in own} == {choices}
        assert {item.evidence.statements for item in own} == {statements}
        assert own[0].best == "answer-1"

    assert await second.aforget("ada") == 3
    for client in (first, second):
        assert (await client.arecall("ada")).history == ()
        assert [user.user_id for user in await client.ausers()] == ["ben"]
        evaluation = await client.ascore("ada", QUERY, ANSWERS, scaling=SCALING)
        assert evaluation.evidence.choices == evaluation.evidence.statements == 0
    keys = open_vault(vault)
    assert [key.user_id for key in keys.everybody()] == ["ben"]
    keys.close()


async def test_whoever_is_forgotten_on_one_machine_while_the_other_writes_leaves_nothing(
    apps: Apps,
) -> None:
    first, second, *_ = apps

    async def write_on() -> None:
        for number in range(30):
            await first.aremember("ada", pair(f"Question {number}?"))

    async def forget() -> None:
        for _ in range(5):
            await asyncio.sleep(0.05)
            await second.aforget("ada")

    await asyncio.gather(write_on(), forget())
    await second.aforget("ada")
    for client in (first, second):
        assert (await client.arecall("ada")).history == ()
        assert await client.ausers() == []


async def test_an_app_that_is_killed_takes_nobody_along(apps: Apps) -> None:
    first, second, (served, _), _ = apps
    await first.aremember("ada", pair("Before the kill?"))
    served.process.send_signal(signal.SIGKILL)
    await served.process.wait()
    with pytest.raises(EngineUnavailable):
        await first.ascore("ada", QUERY, ANSWERS, scaling=SCALING)
    evaluation = await second.ascore("ada", QUERY, ANSWERS, scaling=SCALING)
    assert evaluation.evidence.choices == 1
    await second.aremember("ada", pair("After the kill?"))
    assert len((await second.arecall("ada")).history) == 2


async def test_rays_workers_score_a_dataset_from_the_memory_of_the_apps(
    apps: Apps, tmp_path: Path
) -> None:
    """Rows without a history: each worker opens the memory, with the keys in PostgreSQL."""
    await apps.first.aremember("ada", pair("Before?"))
    rows = {"user_id": ["ada"] * 4, "query": [QUERY] * 4, "candidates": [ANSWERS] * 4}
    parquet.write_table(Table.from_pydict(rows), tmp_path / "in.parquet")
    model = ("--engine", "openai", "--model", "m", "--individual", "2", "--prototype", "0")
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "score-dataset", "in.parquet", "out.parquet", "--ray", "2", "--seed", "4"),
        *model,
        cwd=tmp_path,
        env={**env, **apps.environment},
        stderr=PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    scored = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["ranking"] for row in scored] == [[0, 1]] * 4
