"""Remember, state, recall, list, export, import, forget: on a real embedded Chroma."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.errors import ConfigurationError, MemoryStoreError
from pgenrm_agent.memory import UserMemory, UserSummary, default_directory, reading
from pgenrm_agent.memory.records import read_record
from pgenrm_agent.memory.selection import select
from pgenrm_agent.schema import Message, PreferencePair, StatedPreference

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMemory]:
    """One store for the module: every test uses users of its own."""
    with UserMemory(tmp_path_factory.mktemp("memory") / "store") as opened:
        yield opened


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex[:8]}"


def pair(
    query: str = "How do I bake bread?", *, day: int = 0, id: str | None = None
) -> PreferencePair:
    return PreferencePair(
        query=query,
        chosen=f"a good answer to {query}",
        rejected=f"a bad answer to {query}",
        created_at=START + timedelta(days=day),
        **({"id": id} if id else {}),
    )


# --- remembering ---


def test_a_pair_comes_back_exactly_as_it_was(memory: UserMemory, user: str) -> None:
    remembered = PreferencePair(
        query="What is “π”?\n\u0000 \U0001f9ea",
        chosen="3.14159…",
        rejected="3",
        conversation=(Message(role="user", content="hello"), Message(role="assistant", content="")),
        attributes={"brevity": 33.3, "a.b": 0.1 + 0.2},
        chosen_score=0.30000000000000004,
        rejected_score=-1e-300,
        created_at=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5.5))),
    )
    assert memory.remember(user, remembered) == remembered.id
    assert memory.history(user) == (remembered,)
    assert memory.recall(user).history == (remembered,)


def test_remembering_the_same_pair_again_does_nothing(memory: UserMemory, user: str) -> None:
    first = pair(id="p1")
    memory.remember(user, first)
    memory.remember(user, first.model_copy(update={"created_at": START + timedelta(days=9)}))
    assert memory.history(user) == (first,)


def test_one_id_with_two_contents_is_refused(memory: UserMemory, user: str) -> None:
    memory.remember(user, pair(id="p1"))
    with pytest.raises(MemoryStoreError, match="already has a pair with the id 'p1'"):
        memory.remember(user, pair("another question", id="p1"))
    with pytest.raises(MemoryStoreError, match="'p2'"):
        memory.remember_many(user, [pair("one", id="p2"), pair("two", id="p2")])
    assert [kept.query for kept in memory.history(user)] == ["How do I bake bread?"]


def test_two_users_may_have_pairs_of_the_same_id(memory: UserMemory, user: str) -> None:
    memory.remember(user, pair("mine", id="same"))
    memory.remember(f"{user}-other", pair("theirs", id="same"))
    assert [kept.query for kept in memory.history(user)] == ["mine"]


@pytest.mark.parametrize(("times", "read"), [(2, True), (99, False)])
def test_a_row_that_goes_while_it_is_looked_for_is_asked_for_again(
    memory: UserMemory, user: str, monkeypatch: pytest.MonkeyPatch, times: int, read: bool
) -> None:
    """What Chroma says of such a row; it takes two threads and some luck to make it say so."""
    from chromadb.errors import InternalError

    memory.remember(user, pair("question"))
    rows, left = memory.shared_store().interactions, [times]
    get = rows.get

    def failing(**asked: object) -> object:
        if left[0]:
            left[0] -= 1
            raise InternalError("Error executing plan: Internal error: Error finding id")
        return get(**asked)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "get", failing)
    if read:
        assert memory.recall(user, query="question", limit=3).history
    else:
        with pytest.raises(MemoryStoreError, match="finding id"):
            memory.recall(user, query="question", limit=3)


def test_rows_deleted_while_pages_are_read_hide_no_others(
    memory: UserMemory, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_AT_ONCE", 4)
    there = memory.remember_many(user, [pair(f"question {number}") for number in range(25)])
    collection = memory.shared_store().interactions
    for gone in (1, 3, 4):
        rows: list[str] = []
        for number, page in enumerate(reading.pages(collection, ["metadatas", "embeddings"])):
            assert len(page["ids"]) == len(page["metadatas"] or []) == len(page["embeddings"])  # type: ignore[arg-type]
            rows += page["ids"]
            if number == 1:
                for _ in range(gone):
                    memory.forget_entry(user, there.pop(0))
        assert len(rows) == len(set(rows))
        assert set(collection.get(include=[])["ids"]) <= set(rows)


def test_a_listener_that_fails_keeps_no_other_from_forgetting(
    memory: UserMemory, user: str
) -> None:
    told: list[str] = []

    def failing(user_id: str) -> None:
        raise RuntimeError("the disk is full")

    listeners = {told.append, failing, lambda user_id: told.append(user_id)}
    memory.also_forget |= listeners
    memory.remember(user, pair("question"))
    with pytest.raises(MemoryStoreError, match="the disk is full"):
        memory.forget(user)
    memory.also_forget -= listeners
    assert told == [user, user]
    assert memory.history(user) == ()


def test_sixteen_threads_remember_at_once(memory: UserMemory, user: str) -> None:
    together = threading.Barrier(16)

    def remember(thread: int) -> list[str]:
        together.wait()
        memory.remember(user, pair("the same for all", id="shared"))
        return [memory.remember(user, pair(f"question {thread}.{i}")) for i in range(2)]

    with ThreadPoolExecutor(16) as pool:
        ids = [kept for some in pool.map(remember, range(16)) for kept in some]
    assert {kept.id for kept in memory.history(user)} == {"shared", *ids}
    assert len(memory.history(user)) == 33


def test_what_is_too_long_is_refused(memory: UserMemory, user: str) -> None:
    turns = (Message(role="user", content="q" * 199_999),)
    big = PreferencePair(query="q", chosen="a", rejected="b", id="big", conversation=turns)
    with pytest.raises(
        MemoryStoreError, match=r"^pair big has 200,002 characters.*at most 200,000"
    ):
        memory.remember(user, big)
    assert memory.history(user) == ()


def test_a_number_that_is_none_is_refused(memory: UserMemory, user: str) -> None:
    broken = pair(id="p").model_copy(update={"attributes": {"wit": float("nan")}})
    with pytest.raises(MemoryStoreError, match=r"attributes\.wit of pair p is nan"):
        memory.remember(user, broken)


# --- recalling ---


def test_nobody_is_known_at_first(memory: UserMemory) -> None:
    signals = memory.recall("a stranger", query="anything", selection="similar", limit=3)
    assert (signals.history, signals.stated) == ((), ())
    assert memory.forget("a stranger") == 0
    assert not memory.consent("a stranger")


def test_random_recall_follows_from_the_seed_and_the_pairs_alone(
    memory: UserMemory, user: str
) -> None:
    pairs = [pair(f"question {i}", id=f"p{i}") for i in range(12)]
    memory.remember_many(user, pairs)
    reversed_user = f"{user}-reversed"
    for kept in reversed(pairs[:6]):
        memory.remember(reversed_user, kept)
    memory.remember_many(reversed_user, pairs[6:])
    draws = {seed: memory.recall(user, limit=3, seed=seed).history for seed in range(6)}
    assert draws == {
        seed: memory.recall(reversed_user, limit=3, seed=seed).history for seed in range(6)
    }
    assert len({tuple(kept.id for kept in draw) for draw in draws.values()}) > 1
    assert memory.recall(user, limit=5, seed=1).history[:3] == draws[1]


def test_random_recall_shows_each_pair_equally_often() -> None:
    pairs = [pair(f"question {i}", id=f"p{i}") for i in range(10)]
    shown = [kept.id for seed in range(3000) for kept in select(pairs, "random", 3, seed=seed)]
    for kept in pairs:
        assert 800 < shown.count(kept.id) < 1000  # 900 expected, standard deviation 25


def test_similar_recall_finds_the_related_question(memory: UserMemory, user: str) -> None:
    memory.remember_many(
        user,
        [
            pair("How do I file my tax return?", day=3),
            pair("What flour is best for baking bread?", day=1),
            pair("Who won the football match?", day=2),
        ],
    )
    signals = memory.recall(
        user, query="Give me a bread baking recipe", limit=1, selection="similar"
    )
    assert [kept.query for kept in signals.history] == ["What flour is best for baking bread?"]
    assert len(memory.recall(user, query="bread", selection="similar").history) == 3


def test_recent_recall_is_newest_first(memory: UserMemory, user: str) -> None:
    memory.remember_many(user, [pair("old", day=1), pair("new", day=3), pair("middle", day=2)])
    signals = memory.recall(user, limit=2, selection="recent")
    assert [kept.query for kept in signals.history] == ["new", "middle"]
    assert [kept.query for kept in memory.history(user)] == ["old", "middle", "new"]


def test_times_with_and_without_a_zone_can_be_compared(memory: UserMemory, user: str) -> None:
    naive = PreferencePair(query="naive", chosen="a", rejected="b", created_at=datetime(2026, 1, 5))
    memory.remember_many(user, [naive, pair("aware", day=1)])
    assert [kept.query for kept in memory.history(user)] == ["aware", "naive"]


def test_all_stated_preferences_are_recalled_in_the_order_they_were_stated(
    memory: UserMemory, user: str
) -> None:
    said = [
        StatedPreference(text="short answers"),
        StatedPreference(kind="demographics", text="a nurse"),
        StatedPreference(text="no lists"),
    ]
    for statement in said:
        memory.state(user, statement)
    memory.state(user, said[0])
    memory.remember(user, pair())
    signals = memory.recall(user, limit=0)
    assert signals.stated == tuple(said)
    assert signals.history == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"selection": "similar"}, "needs the query"),
        ({"selection": "best"}, "'best' is unknown"),
        ({"limit": -1}, "limit is -1"),
    ],
)
def test_a_recall_that_makes_no_sense_is_refused(
    memory: UserMemory, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        memory.recall("someone", **arguments)  # type: ignore[arg-type]


# --- consent, list, forget ---


def test_consent_is_given_and_taken_back(memory: UserMemory, user: str) -> None:
    assert not memory.consent(user)
    memory.set_consent(user, True)
    assert memory.consent(user)
    memory.set_consent(user, False)
    assert not memory.consent(user)


def test_users_are_listed_with_counts(memory: UserMemory, user: str) -> None:
    memory.remember_many(user, [pair("one"), pair("two")])
    memory.state(user, StatedPreference(text="short answers"))
    memory.set_consent(f"{user}-b", True)
    listed = [summary for summary in memory.users() if summary.user_id.startswith(user)]
    assert listed == [
        UserSummary(user_id=user, pairs=2, stated=1, consent=False),
        UserSummary(user_id=f"{user}-b", pairs=0, stated=0, consent=True),
    ]


def test_forgetting_leaves_nothing_of_one_user_and_everything_of_the_others(
    memory: UserMemory, user: str
) -> None:
    for user_id in (user, f"{user}-other"):
        memory.remember_many(user_id, [pair("one", id="1"), pair("two", id="2")])
        memory.state(user_id, StatedPreference(text="short answers"))
        memory.set_consent(user_id, True)
    others = list(memory.export(f"{user}-other"))
    assert memory.forget(user) == 4
    assert list(memory.export(user)) == []
    assert memory.recall(user, query="one", selection="similar").history == ()
    assert not memory.consent(user)
    assert user not in {summary.user_id for summary in memory.users()}
    assert list(memory.export(f"{user}-other")) == others
    assert memory.forget(user) == 0
    memory.remember(user, pair("a new start", id="1"))
    assert [kept.query for kept in memory.history(user)] == ["a new start"]


# --- export and import ---


def test_an_export_imported_elsewhere_exports_the_same(
    memory: UserMemory, user: str, tmp_path: Path
) -> None:
    memory.remember_many(user, [pair("one"), pair("zwei – 二", day=1)])
    memory.state(user, StatedPreference(kind="self_description", text='a "nurse"\nfrom Ghent'))
    memory.set_consent(user, True)
    file = tmp_path / "export.jsonl"
    assert memory.export_jsonl(file, user) == 4
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == list(memory.export(user))
    with UserMemory(tmp_path / "elsewhere") as elsewhere:
        assert elsewhere.import_jsonl(file) == 4
        assert elsewhere.import_jsonl(file) == 0
        again = tmp_path / "again.jsonl"
        elsewhere.export_jsonl(again)
        assert again.read_bytes() == file.read_bytes()
        assert elsewhere.recall(user, seed=3) == memory.recall(user, seed=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pair": {"query": "", "chosen": "a", "rejected": "b"}}, r"field pair\.query"),
        ({"pair": {"query": "q", "chosen": "a", "rejected": "a"}}, "same text"),
        ({"pair": {"query": "q", "chosen": "a"}}, r"field pair\.rejected: it is missing"),
        ({"color": "red"}, "field color: there is no such field"),
        ({"record": "wish"}, "'wish'"),
        ({"user_id": 7}, "field user_id"),
        ({"schema_version": 2}, "schema_version: 2 was written by a newer"),
    ],
)
def test_a_broken_row_is_named_and_nothing_is_imported(
    memory: UserMemory, user: str, change: dict[str, object], message: str
) -> None:
    good = {
        "record": "preference_pair",
        "schema_version": 1,
        "user_id": user,
        "pair": {"query": "q", "chosen": "a", "rejected": "b"},
    }
    with pytest.raises(MemoryStoreError, match=f"^users.jsonl, line 3: .*{message}"):
        memory.import_([json.dumps(good), "\n", json.dumps(good | change)], source="users.jsonl")
    assert memory.history(user) == ()


def test_a_file_that_is_no_jsonl_is_named(memory: UserMemory, tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_bytes(b"not json\n")
    with pytest.raises(MemoryStoreError, match=r"broken\.jsonl, line 1: not JSON"):
        memory.import_jsonl(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MemoryStoreError, match="must be UTF-8"):
        memory.import_jsonl(file)
    with pytest.raises(MemoryStoreError, match="No such file"):
        memory.import_jsonl(tmp_path / "absent.jsonl")
    with pytest.raises(MemoryStoreError, match="expected one JSON object, found list"):
        memory.import_(["[1]"])


def test_an_import_that_contradicts_the_store_names_the_line(memory: UserMemory, user: str) -> None:
    memory.remember(user, pair("one", id="p1"))
    row = next(memory.export(user)) | {"pair": pair("two", id="p1").model_dump(mode="json")}
    with pytest.raises(MemoryStoreError, match=r"^import, line 1: .*'p1'"):
        memory.import_([row])


@pytest.mark.parametrize("contradicts", ["the store", "the import itself"])
def test_a_refused_import_leaves_no_new_users_id_in_the_vault(
    memory: UserMemory, user: str, contradicts: str
) -> None:
    memory.remember(user, pair("one", id="p1"))
    old = next(memory.export(user))
    changed = {"pair": pair("two", id="p1").model_dump(mode="json")}
    new = old | {"user_id": f"new-{user}"}
    second = old | changed if contradicts == "the store" else new | changed
    with pytest.raises(MemoryStoreError, match=r"^import, line 2: .*'p1'"):
        memory.import_([new, second])
    assert {key.user_id for key in memory.shared_store().vault.everybody()} >= {user}
    assert memory.shared_store().vault.key_of(f"new-{user}") is None


texts = st.text(min_size=1, max_size=30).filter(str.strip)
pairs = st.builds(
    lambda query, chosen, score, attributes, created_at: PreferencePair(
        query=query,
        chosen=f"{chosen}!",
        rejected=chosen,
        chosen_score=score,
        attributes=attributes,
        created_at=created_at,
    ),
    texts,
    texts,
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.dictionaries(st.text(max_size=8), st.floats(0, 100), max_size=3),
    st.datetimes(timezones=st.none() | st.just(UTC)),
)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(pairs, min_size=1, max_size=4))
def test_any_pair_survives_store_and_export(
    memory: UserMemory, remembered: list[PreferencePair]
) -> None:
    user = f"any-{uuid.uuid4().hex}"
    memory.remember_many(user, remembered)
    assert {kept.id: kept for kept in memory.history(user)} == {
        kept.id: kept for kept in remembered
    }
    for row in memory.export(user):
        record = read_record(json.dumps(row), "here")
        assert record.model_dump(mode="json") == row


# --- opening ---


def test_two_objects_of_one_process_share_the_store(memory: UserMemory, user: str) -> None:
    with UserMemory(memory.where) as second:
        second.remember(user, pair())
    assert len(memory.history(user)) == 1
    with pytest.raises(MemoryStoreError, match="is closed"):
        second.history(user)


def test_a_store_refuses_another_embedder(memory: UserMemory, tmp_path: Path) -> None:
    with pytest.raises(MemoryStoreError, match="'hashing-1-256', not of 'hashing-1-64'"):
        UserMemory(memory.where, embedder=HashingEmbedder(64))
    with UserMemory(tmp_path / "small", embedder=HashingEmbedder(64)) as small:
        small.remember("ann", pair())
    with pytest.raises(MemoryStoreError, match=r"'hashing-1-64': open it in Python, .*embedder="):
        UserMemory(tmp_path / "small")
    with UserMemory(tmp_path / "small", embedder=HashingEmbedder(64)) as small:
        assert len(small.recall("ann", query="bread", selection="similar").history) == 1


def test_directory_and_server_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give one of them"):
        UserMemory(tmp_path, url="http://127.0.0.1:8000")
    with pytest.raises(MemoryStoreError, match="write it like"):
        UserMemory(url="127.0.0.1:8000")
    with pytest.raises(ConfigurationError, match="a vault is for a Chroma server"):
        UserMemory(tmp_path, vault=tmp_path / "keys")


def test_a_server_without_a_vault_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="keys are kept elsewhere: pass vault="):
        UserMemory(url="http://127.0.0.1:8000")


def test_the_default_directory_can_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path / "home"))
    assert default_directory() == tmp_path / "home" / "memory"
    monkeypatch.delenv("PGENRM_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_directory().name == "memory"
    assert "pgenrm-agent" in default_directory().parts


def test_choices_are_imported_by_their_fields_alone(memory: UserMemory, user: str) -> None:
    row: dict[str, JsonValue] = {"user_id": user, "query": "q", "chosen": "a", "rejected": "b"}
    assert memory.import_([row, row]) == 1
    assert [(pair.query, pair.chosen) for pair in memory.history(user)] == [("q", "a")]
    with pytest.raises(MemoryStoreError, match=r"line 1: field pair\.query: it is missing"):
        memory.import_([{"user_id": user, "chosen": "a", "rejected": "c"}])
    with pytest.raises(MemoryStoreError, match=r"neither a line of an export, .* nor a choice"):
        memory.import_([{"user": user, "prompt": "q", "chosen": "a", "rejected": "b"}])


def test_whoever_changes_their_mind_back_in_an_import_is_taken_at_their_last_word(
    memory: UserMemory, user: str
) -> None:
    def chose(liked: str, disliked: str, month: int) -> dict[str, JsonValue]:
        made = f"2026-{month:02}-01T00:00:00Z"
        return {
            "user_id": user,
            "query": "q",
            "chosen": liked,
            "rejected": disliked,
            "created_at": made,
        }

    def said(text: str, month: int) -> dict[str, JsonValue]:
        made = f"2026-{month:02}-01T00:00:00Z"
        record: dict[str, JsonValue] = {"record": "stated_preference", "user_id": user}
        return {**record, "stated": {"text": text}, "created_at": made}

    def stands() -> tuple[list[str], list[str]]:
        signals = memory.recall(user)
        return (
            [pair.chosen for pair in signals.history],
            [wish.text for wish in signals.stated],
        )

    words = [said("short answers", 1), said("long answers", 2), said("short answers", 3)]
    rows = [chose("A", "B", 1), chose("B", "A", 2), chose("A", "B", 3), *words]
    assert memory.import_(rows) == 4
    assert stands() == (["A"], ["short answers"])
    assert memory.import_(rows) == 0
    assert stands() == (["A"], ["short answers"])
    assert memory.import_([chose("B", "A", 4), chose("A", "B", 2), said("long answers", 5)]) == 0
    assert stands() == (["B"], ["long answers"])
    # A row that does not say when is no later word, however often it is read.
    untimed: dict[str, JsonValue] = {"user_id": user, "query": "q", "chosen": "A", "rejected": "B"}
    assert memory.import_([untimed]) == 0
    assert stands() == (["B"], ["long answers"])
    exported = list(memory.export(user))
    memory.forget(user)
    memory.import_(exported)
    assert stands() == (["B"], ["long answers"])


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000", "ftp://memory.example"])
def test_an_address_is_no_folder(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is an address: name a folder, or .* as url="):
        UserMemory(address)
    assert not Path(address).exists()
