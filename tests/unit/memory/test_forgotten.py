"""Nothing of a forgotten user is left on the disk that anybody could read or trace: every byte is looked at."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leftovers import files_holding
from users_learned_from import context, fill, scoring

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import EngineUnavailable, MemoryStoreError
from pgenrm_agent.graphs.prototype_learning import learn_prototypes
from pgenrm_agent.memory import UserMemory, store
from pgenrm_agent.prototypes import Neighbors
from pgenrm_agent.schema import EvaluationRequest, PreferencePair, Scaling, StatedPreference
from pgenrm_agent.testing import ScriptedEngine, write_chain

CANARY = "canary@example.org"
CHOICE = PreferencePair(
    id="canary-pair-id",
    query="canary-query: may I keep bees on a balcony?",
    chosen="canary-chosen: yes, two hives",
    rejected="canary-rejected: never",
    conversation=({"role": "user", "content": "canary-turn: hello"},),  # type: ignore[arg-type]
    attributes={"canary-attribute": 70},
)
STATED = StatedPreference(text="canary-statement: I am a bee keeper")
PERSONA = "canary-persona: keeps bees on a balcony, wants plain short answers"
TRACES = re.findall(
    "canary-[a-z]+", " ".join([CHOICE.model_dump_json(), STATED.model_dump_json(), PERSONA])
)


def remember(memory: UserMemory, user: str) -> None:
    memory.remember(user, CHOICE)
    memory.state(user, STATED)
    memory.set_consent(user, True)


SCALING = Scaling(individual=2, prototype=3, seed=1)


def request(user: str) -> EvaluationRequest:
    return EvaluationRequest.model_validate(
        {
            "user_id": user,
            "query": "A question",
            "candidates": [{"id": text, "text": text} for text in ("short", "chatty")],
        }
    )


def debugging(runs: Path, memory: UserMemory, neighbors: Neighbors) -> DebugSession:
    engine = ScriptedEngine(describe)
    return DebugSession(runs, engine=engine, memory=memory, neighbors=neighbors)


def describe(prompt: Prompt, _: int) -> str:
    ours = "canary" in prompt.messages[0].content + prompt.messages[-1].content
    return write_chain([5, 5], persona=PERSONA if ours else "Wants warm friendly chatter.")


async def test_after_remember_build_score_and_forget_no_byte_is_left(tmp_path: Path) -> None:
    data = tmp_path / "data"
    asked = 0

    def dies_at_the_end(prompt: Prompt, number: int) -> str:
        nonlocal asked
        asked += 1
        if asked > 20:
            raise EngineUnavailable("the machine was switched off")
        return describe(prompt, number)

    with UserMemory(data / "memory") as memory:
        fill(memory)
        remember(memory, CANARY)
        key = memory.shared_store().vault.key_of(CANARY)
        assert key is not None
        # A build that is cut off leaves a file with personas behind.
        keep = data / "prototypes.sqlite"
        with pytest.raises(EngineUnavailable):
            await learn_prototypes(context(memory, ScriptedEngine(dies_at_the_end)), keep=keep)
        assert stat.S_IMODE(keep.stat().st_mode) == 0o600
        await learn_prototypes(context(memory, ScriptedEngine(describe)))
        with scoring(memory) as rm:
            await rm.ascore(CANARY, "A question", ["short", "chatty"])
            assert (await rm.ascore("u11", "A question", ["short", "chatty"])).neighbors
        secrets = (key.secret, key.secret[:32], key.secret[32:], key.secret.hex())
        traces = [*TRACES, CANARY, key.pseudonym, *secrets]
        # Sealed while it is there, too: the vault alone tells who somebody is.
        assert files_holding(data, TRACES) == set()
        assert {file for file, _ in files_holding(data, [CANARY, key.secret])} == {
            "memory/vault.sqlite3"
        }
        assert {file for file, _ in files_holding(data, [key.pseudonym])} >= {
            "memory/vault.sqlite3",
            "memory/chroma/chroma.sqlite3",
            "prototypes.sqlite",
        }
        # What was debugged is as open as the memory is sealed, and goes with the user.
        similar = Neighbors(memory, HashingEmbedder(), joining=False)
        runs = data / "runs.sqlite"
        with debugging(runs, memory, similar) as closed:
            for user in (CANARY, "u11"):
                closed.start(request(user), scaling=SCALING, run=f"{user}-closed")
                closed.resume(f"{user}-closed")
        with debugging(runs, memory, similar) as session:
            session.start(request(CANARY), scaling=SCALING, run="canary-open")
            session.step("canary-open")
            session.fork("canary-open", name="canary-fork")
            session.import_(session.export("canary-open"), run="canary-import")
            session.edit_history("canary-open", [CHOICE])
            held = {needle for _, needle in files_holding(data, [*TRACES, CANARY])}
            assert held == {*TRACES, CANARY}
            assert memory.forget(CANARY) >= 3
            gone = [trace for trace in traces if trace != key.pseudonym]
            assert files_holding(data, gone) == set()
            assert [run.run for run in session.runs()] == ["u11-closed"]
            assert session.replay("u11-closed").same
    assert files_holding(data, gone) == set()
    with UserMemory(data / "memory") as memory:
        assert files_holding(data, gone) == set()
        assert len(memory.users()) == 12
        # Whoever comes back is somebody new, in whatever file a pseudonym is left.
        remember(memory, CANARY)
        again = memory.shared_store().vault.key_of(CANARY)
        assert again is not None
        assert files_holding(data / "memory" / "chroma", [again.pseudonym])
        assert again.pseudonym != key.pseudonym


def test_everything_under_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with UserMemory(tmp_path / "memory") as memory:
            remember(memory, CANARY)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "memory").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "memory" / "vault.sqlite3").stat().st_mode) == 0o600


USERS = ("ann-somebody", "ben-somebody", "用户-三号")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["remember", "many", "state", "consent", "reopen", "forget"]),
        st.sampled_from(USERS),
    ),
    min_size=4,
    max_size=14,
)


SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.small
@settings(max_examples=3, suppress_health_check=SLOW)
@given(steps=STEPS)
def test_whatever_was_done_before_nothing_of_the_forgotten_is_left(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    everybody_is_forgotten_after(steps, tmp_path_factory.mktemp("memory"))


@pytest.mark.long
@settings(max_examples=40, suppress_health_check=SLOW)
@given(steps=STEPS)
def test_many_more_sequences_leave_nothing_either(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    everybody_is_forgotten_after(steps, tmp_path_factory.mktemp("memory"))


def everybody_is_forgotten_after(steps: list[tuple[str, str]], folder: Path) -> None:
    memory = UserMemory(folder)
    said: dict[str, list[str]] = {}
    gone: set[str] = set()
    keys: set[bytes] = set()

    def pair(text: str) -> PreferencePair:
        return PreferencePair(
            query=f"query {text}", chosen=f"chosen {text}", rejected="no", id=text
        )

    try:
        for number, (step, user) in enumerate([*steps, *(("forget", user) for user in USERS)]):
            text = f"text-{number}-of-{user}"
            match step:
                case "remember":
                    memory.remember(user, pair(text))
                case "many":
                    memory.remember_many(user, [pair(f"{text}-{i}") for i in range(30)])
                case "state":
                    memory.state(user, StatedPreference(text=text))
                case "consent":
                    memory.set_consent(user, number % 2 == 0)
                case "reopen":
                    memory.close()
                    memory = UserMemory(folder)
                case "forget":
                    key = memory.shared_store().vault.key_of(user)
                    keys |= {key.secret[:32], key.secret[32:]} if key else set()
                    memory.forget(user)
                    gone |= {*said.pop(user, []), user}
            if step in ("remember", "many", "state", "consent"):
                said.setdefault(user, []).append(text)
                gone.discard(user)
            if step in ("reopen", "forget"):
                assert files_holding(folder, gone | keys) == set()
    finally:
        memory.close()
    assert files_holding(folder, gone | keys) == set()


def test_index_files_hold_nothing_of_the_process_that_wrote_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SYNC_THRESHOLD", 8)
    with UserMemory(tmp_path) as memory:
        for number in range(30):
            memory.remember(
                "ann", CHOICE.model_copy(update={"id": f"{number}", "query": f"q {number}"})
            )
    files = [*tmp_path.rglob("data_level0.bin"), *tmp_path.rglob("length.bin")]
    assert len(files) >= 4
    for file in files:
        header = (file.parent / "header.bin").read_bytes()
        vectors = int.from_bytes(header[20:28], "little")
        each = int.from_bytes(header[28:36], "little") if file.name != "length.bin" else 4
        assert not file.read_bytes()[vectors * each :].strip(b"\0"), file


# argv: directory, number of the kill. Says what returned; odd users are forgotten again.
LIVES = """
import sys
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.schema import PreferencePair

with UserMemory(sys.argv[1]) as memory:
    print("ready", flush=True)
    for number in range(1000):
        user = f"user-{sys.argv[2]}-{number}"
        pair = PreferencePair(query=f"of {user}", chosen="yes", rejected="no", id=user)
        memory.remember(user, pair)
        print("kept", user, flush=True)
        if number % 2:
            key = memory.shared_store().vault.key_of(user)
            print("forgets", user, key.secret.hex(), flush=True)
            memory.forget(user)
            print("gone", user, flush=True)
"""


@pytest.mark.long
def test_a_kill_neither_loses_a_key_nor_brings_one_back(tmp_path: Path) -> None:
    """Three kills: rows never outlive their key, and who was forgotten stays so."""
    kept: set[str] = set()
    gone: set[str] = set()
    doubtful: set[str] = set()
    for kill in range(3):
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", LIVES, str(tmp_path), str(kill)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        lines = [child.stdout.readline() for _ in range(11 + 14 * kill)]
        child.kill()
        lines += child.stdout.readlines()
        child.wait()
        said = [line.split() for line in lines if line.endswith("\n")]
        kept |= {words[1] for words in said if words[0] == "kept"}
        gone |= {words[1] for words in said if words[0] == "gone"}
        doubtful |= {words[1] for words in said if words[0] == "forgets"} - gone
        secrets = {words[1]: words[2] for words in said if words[0] == "forgets"}
        dead = [bytes.fromhex(secrets[user])[:32] for user in secrets.keys() & gone]
        assert files_holding(tmp_path, dead) == set()
        with UserMemory(tmp_path) as memory:
            for user in kept - gone - doubtful:
                assert [pair.query for pair in memory.history(user)] == [f"of {user}"]
            held = memory.shared_store()
            keys = {key.pseudonym for key in held.vault.everybody()}
            rows = held.interactions.get(include=["metadatas"])["metadatas"] or []
            assert {str(row["pseudonym"]) for row in rows} <= keys
            assert gone.isdisjoint(summary.user_id for summary in memory.users())


def test_a_copy_of_the_rows_without_the_vault_cannot_be_opened(tmp_path: Path) -> None:
    with UserMemory(tmp_path / "memory") as memory:
        remember(memory, CANARY)
    shutil.copytree(tmp_path / "memory", tmp_path / "copy")
    (tmp_path / "copy" / "vault.sqlite3").unlink()
    with pytest.raises(MemoryStoreError, match=r"vault\.sqlite3 are gone.*backup"):
        UserMemory(tmp_path / "copy")
    with UserMemory(tmp_path / "another") as another:
        remember(another, "somebody else")
    shutil.copyfile(tmp_path / "another" / "vault.sqlite3", tmp_path / "copy" / "vault.sqlite3")
    with pytest.raises(MemoryStoreError, match="not those that sealed the memory"):
        UserMemory(tmp_path / "copy")
