"""The client: the library's arguments, results and errors, through a server on a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from awkward_ids import USABLE

from pgenrm_agent.client import Client
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import (
    ChainError,
    ConfigurationError,
    EngineTimeout,
    EngineUnavailable,
    EntryConflict,
    EntryRefused,
    InvalidInput,
    PGenRMError,
)
from pgenrm_agent.evaluation_run import Progress
from pgenrm_agent.integrations.server import Limits
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import (
    Candidate,
    Evaluation,
    EvaluationRequest,
    Message,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserSignals,
)

if TYPE_CHECKING:
    from .conftest import Running, Serve

ANSWERS = ["So. 3", "Thus. 8"]
PAIR = PreferencePair(
    id="from-there",
    query="Whence?",
    chosen="From there.",
    rejected="Who knows?",
    conversation=(Message(role="user", content="Hello."),),
    attributes={"brevity": 80},
    chosen_score=9,
)


@pytest.fixture(scope="module")
def keyless(serve: Serve) -> Iterator[Running]:
    with serve(keyless=True) as running:
        yield running


@pytest.fixture
def client(keyless: Running) -> Iterator[Client]:
    with Client(keyless.url) as made:
        yield made


def same(left: Evaluation, right: Evaluation) -> bool:
    return left.model_copy(update={"timings": {}}) == right.model_copy(update={"timings": {}})


def test_an_evaluation_is_the_librarys_own(client: Client, keyless: Running) -> None:
    scaling = Scaling(individual=3, prototype=0, seed=7)
    candidates = [Candidate(id="a", text="So. 3"), Candidate(id="b", text="Thus. 8")]
    conversation = [Message(role="user", content="Hello.")]
    signals = UserSignals(user_id="zoe", history=(PAIR,), stated=(StatedPreference(text="Brief."),))
    for given in ({}, {"signals": signals, "conversation": conversation}):
        asked = {"scaling": scaling, **given}
        here = keyless.reward_model.score("zoe", "How?", candidates, **asked)  # type: ignore[arg-type]
        there = client.score("zoe", "How?", candidates, **asked)  # type: ignore[arg-type]
        assert same(here, there)
        assert there.best == "b"
    assert keyless.reward_model.memory.history("zoe") == ()


async def test_async_calls_and_stages(keyless: Running) -> None:
    stages: list[Progress] = []
    async with Client(keyless.url) as client:
        told = await client.ascore("ada", "How?", ANSWERS, on_progress=stages.append)
        ranking = await client.arerank("ada", "How?", ANSWERS)
    assert stages[-1].stage == "aggregate"
    assert len(stages) == 6
    assert told.ranking == ("answer-2", "answer-1")
    assert [item.index for item in ranking] == [1, 0]


def test_ends_of_lines_in_a_text_end_no_event(client: Client) -> None:
    """JSON leaves them as they are, and readers of lines do not."""
    answers = [f"So. 3{end}Or not." for end in ("\x85", "\u2028", "\u2029", "\x0c", "\x1d", "\r\n")]
    stages: list[Progress] = []
    told = client.score("ada", f"How?{''.join(answers)}", answers, on_progress=stages.append)
    assert [candidate.text for candidate in told.request.candidates] == answers
    assert stages[-1].stage == "aggregate"


def test_the_servers_scaling_counts_unless_the_client_has_its_own(keyless: Running) -> None:
    with Client(keyless.url) as client:
        assert len(client.score("ada", "How?", ANSWERS).chains) == 2
    with Client(keyless.url, scaling=Scaling(individual=5)) as client:
        assert len(client.score("ada", "How?", ANSWERS).chains) == 5
        one_each = Scaling(individual=1)
        assert len(client.score("ada", "How?", ANSWERS, scaling=one_each).chains) == 1


def test_many_requests_keep_their_order_and_errors_their_place(client: Client) -> None:
    requests = [
        EvaluationRequest(
            user_id="ada", query=f"Query {i}?", candidates=(Candidate(id="a", text="So. 3"),)
        )
        for i in range(5)
    ]
    results = client.score_many([*requests, "wrong"])  # type: ignore[list-item]
    assert [r.request.query for r in results[:5] if isinstance(r, Evaluation)] == [
        f"Query {i}?" for i in range(5)
    ]
    assert isinstance(results[5], ConfigurationError)


def test_the_memory_is_the_servers(client: Client, keyless: Running) -> None:
    memory = keyless.reward_model.memory
    for user in USABLE:
        assert client.remember(user, PAIR) == PAIR.id
        assert client.state_preference(user, "Be brief.")
        client.set_consent(user, True)
        assert client.consent(user)
        known = client.recall(user)
        assert known.history == memory.history(user) == (PAIR,)
        assert known.stated == memory.recall(user).stated
    assert client.users() == memory.users()
    for user in USABLE:
        assert client.forget(user) == 3
    assert client.users() == []
    assert client.recall("nobody").history == ()


def test_the_newest_choice_is_the_first(client: Client) -> None:
    chosen = [PAIR.model_copy(update={"id": f"choice {i}", "query": f"{i}?"}) for i in range(3)]
    for number, pair in enumerate(chosen):
        moment = pair.created_at.replace(year=2001 + number)
        client.remember("kim", pair.model_copy(update={"created_at": moment}))
    assert [pair.query for pair in client.recall("kim").history] == ["2?", "1?", "0?"]


def test_single_entries_are_listed_corrected_and_forgotten(
    client: Client, keyless: Running
) -> None:
    memory = keyless.reward_model.memory
    client.remember("lea", PAIR)
    old = client.state_preference("lea", "Short answers, please.")
    said = client.state_preference("lea", "I want long answers")
    assert client.entries("lea") == memory.entries("lea")
    assert [entry.overruled_by for entry in client.entries("lea")] == [None, said, None]
    assert [stated.text for stated in client.recall("lea").stated] == ["I want long answers"]
    changed = PAIR.model_copy(update={"chosen": "From here."})
    assert client.correct("lea", PAIR.id, changed) == PAIR.id
    assert memory.history("lea") == (changed,)
    assert client.correct("lea", said, "in one sentence") != said
    other_way = PAIR.model_copy(
        update={"id": "newer", "chosen": PAIR.rejected, "rejected": changed.chosen}
    )
    client.remember("lea", other_way)
    known = client.recall("lea")
    assert ([pair.id for pair in known.history], known.choices_known) == (["newer"], 2)
    for entry_id in (PAIR.id, old):
        assert client.forget_entry("lea", entry_id)
        assert not client.forget_entry("lea", entry_id)
        for missing in (changed, "Be brief."):
            with pytest.raises(ConfigurationError, match="nothing with the id"):
                client.correct("lea", entry_id, missing)
    with pytest.raises(ConfigurationError, match="is a choice"):
        client.correct("lea", "newer", "Be brief.")
    client.forget("lea")


def test_a_thumb_takes_the_place_of_the_one_before(client: Client, keyless: Running) -> None:
    memory = keyless.reward_model.memory
    evaluation = client.score("mia", "How?", ANSWERS)
    for liked, chosen in ((True, "So. 3"), (False, "Thus. 8")):
        ids = client.remember_feedback(evaluation, "answer-1", liked)
        assert [(pair.id, pair.chosen) for pair in memory.history("mia")] == [(ids[0], chosen)]
    assert keyless.reward_model.remember_feedback(evaluation, "answer-1", True) == ids
    client.forget("mia")


def test_two_opposite_thumbs_at_once_leave_one_of_them(
    client: Client, keyless: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = client.score("noa", "How?", ANSWERS)
    remember, memory = Client.aremember, keyless.reward_model.memory

    async def overtaken(self: Client, user_id: str, pair: PreferencePair) -> str:
        await asyncio.to_thread(
            keyless.reward_model.remember_feedback, evaluation, "answer-1", False
        )
        return await remember(self, user_id, pair)

    monkeypatch.setattr(Client, "aremember", overtaken)
    ids = client.remember_feedback(evaluation, "answer-1", True)
    assert [(pair.id, pair.chosen) for pair in memory.history("noa")] == [(ids[0], "So. 3")]
    client.forget("noa")


def test_a_choice_that_cannot_be_kept_is_the_callers_trouble(
    client: Client, keyless: Running
) -> None:
    turns = (Message(role="user", content="w" * 50_000),) * 4
    for refused, kind in (
        (PAIR.model_copy(update={"conversation": turns}), EntryRefused),
        (PAIR.model_copy(update={"chosen_score": float("nan")}), EntryRefused),
        (PAIR.model_copy(update={"chosen": "Another."}), EntryConflict),
    ):
        client.remember("pia", PAIR)
        here = keyless.reward_model
        with pytest.raises(kind) as there:
            client.remember("pia", refused)
        with pytest.raises(kind) as local:
            here.remember("pia", refused)
        assert type(there.value) is type(local.value) is kind
        assert str(there.value) == str(local.value)
    assert here.memory.history("pia") == (PAIR,)
    client.forget("pia")


@pytest.mark.parametrize("key", ["a\nb", "a\r\nX-PGenRM-User: bob", "schlüssel", "a\0"])
def test_a_key_that_no_header_holds_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="key"):
        Client("http://127.0.0.1:9", key=key)


def test_what_the_library_would_raise_is_raised(client: Client, serve: Serve) -> None:
    with pytest.raises(InvalidInput, match="more than 1,024"):
        client.score("ada", "How?", ["a"] * 1025)
    with pytest.raises(ConfigurationError, match="no usable id"):
        client.remember(" ", PAIR)
    with pytest.raises(EngineTimeout, match="time was over"):
        client.score("ada", "How?", ANSWERS, timeout=1e-6)
    with pytest.raises(EngineTimeout, match="time was over"):
        client.score("ada", "How?", ANSWERS, timeout=1e-6, on_progress=lambda told: None)
    nothing = Scaling(individual=0, prototype=4)
    for watch in (None, lambda told: None):
        with pytest.raises(ConfigurationError, match="no prototypes"):
            client.rerank(
                "ada", "How?", ANSWERS, scaling=nothing, fallback="order", on_progress=watch
            )
    with serve(keyless=True) as broken, Client(broken.url) as other_client:

        def nonsense(prompt: Prompt, number: int) -> str:
            return "No chain at all."

        broken.engine._reply = nonsense
        with pytest.raises(ChainError, match="none of 2 texts"):
            other_client.score("ada", "How?", ANSWERS)


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://x", "http://", "http://x:99999", "http://x:a", 7),
        *("http://a\nb", "http://a\tb:8000", "http://a\x7f"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="url"):
        Client(url)


def test_a_server_that_cannot_be_reached_says_so_and_the_order_stays() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with Client(url) as client:
        assert not client.ready()
        for call in (
            lambda: client.score("ada", "How?", ANSWERS),
            lambda: client.users(),
            lambda: client.rerank("ada", "How?", ANSWERS),
        ):
            with pytest.raises(EngineUnavailable, match="cannot be reached"):
                call()
        ranking = client.rerank("ada", "How?", iter(ANSWERS), fallback="order")
    assert [(item.text, item.score) for item in ranking] == [("So. 3", None), ("Thus. 8", None)]
    assert "cannot be reached" in str(ranking.fallback)


def test_a_key_opens_the_server_and_no_other_text_does(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("wrong", None):
        with (
            Client(running.url, key=key) as client,
            pytest.raises(ConfigurationError, match="needs a key"),
        ):
            client.users()
    with Client(running.url, key=running.keys["acme"]) as client:
        assert client.ready()
        assert client.score("ada", "How?", ANSWERS).best == "answer-2"
    monkeypatch.setenv("PGENRM_KEY", running.keys["bloom"])
    with Client(running.url) as client:
        client.users()


def test_a_busy_server_is_asked_again(serve: Serve) -> None:
    with serve(keyless=True, limits=Limits(running=1, waiting=0), latency_s=0.3) as running:
        with Client(running.url) as client:
            request = EvaluationRequest(
                user_id="ada", query="How?", candidates=(Candidate(id="a", text="So. 3"),)
            )
            results = client.score_many([request] * 3)
        assert all(isinstance(result, Evaluation) for result in results)
        with Client(running.url, wait=0.2) as impatient:
            results = impatient.score_many([request] * 3)
        assert all(isinstance(r, (Evaluation, PGenRMError)) for r in results)
        assert any(isinstance(r, (EngineUnavailable, EngineTimeout)) for r in results)


def test_what_is_no_such_server_is_told_of(chroma_server: str) -> None:
    with Client(chroma_server) as client:
        with pytest.raises(PGenRMError, match=r"not as `pgenrm serve` does|no `pgenrm serve`"):
            client.users()
        assert not client.ready()


@pytest.mark.parametrize("end", ["/v1", "/pgenrm"])
def test_a_wrong_path_is_told_of_and_nothing_is_taken_to_be_missing(
    keyless: Running, end: str
) -> None:
    with Client(f"{keyless.url}{end}") as client:
        for call in (
            lambda: client.forget_entry("ada", "some-id"),
            lambda: client.correct("ada", "some-id", "Be brief."),
            lambda: client.remember("ada", PAIR),
            lambda: client.forget("ada"),
        ):
            with pytest.raises(EngineUnavailable, match="there is no `pgenrm serve` at"):
                call()
        assert not client.ready()


def test_a_call_of_a_closed_client_is_refused(keyless: Running) -> None:
    client = Client(keyless.url)
    client.close()
    client.close()
    with pytest.raises(EngineUnavailable, match="closed"):
        client.users()


def test_the_client_has_the_calls_of_the_reward_model() -> None:
    local = {"memory", "prototypes", "scaling", "with_memory"}
    engine_only = {"prepare", "aprepare", "learn_prototypes", "alearn_prototypes"}
    calls = {name for name in dir(PGenRM) if not name.startswith("_")} - local - engine_only
    assert calls <= set(dir(Client))
