"""`langgraph dev` serving langgraph.json: the bundled model, driven by the langgraph SDK's client.

LangGraph's development server asks for an older protobuf than other packages of the tests, so it runs
in an environment of its own; `make test-all` makes that one and names it here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from needs import needs

from pgenrm_agent.debugging.edits import with_persona
from pgenrm_agent.demo import demo_data
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.schema import Candidate, Evaluation, EvaluationRequest, Scaling

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT_S = 240

pytestmark = pytest.mark.long


class Elsewhere:
    """Stands where the way out of this machine would be: notes who asks for it, and answers nobody."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.asked: list[str] = []
        threading.Thread(target=self._note, daemon=True).start()

    def _note(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError:  # closed
                return
            with caller:
                caller.settimeout(5)
                self.asked.append(caller.recv(200).decode(errors="replace"))

    def close(self) -> None:
        self._listening.close()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    opened = Elsewhere()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(
    elsewhere: Elsewhere,
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SyncLangGraphClient]:
    """A client of `langgraph dev`, started with the settings that docs/how-to/debugging.md tells."""
    program = os.environ.get("PGENRM_LANGGRAPH") or shutil.which("langgraph")
    needs(
        program,
        "needs PGENRM_LANGGRAPH, the `langgraph` program of an environment with"
        " langgraph-cli[inmem]: `make test-all` makes one",
    )
    # The server keeps its threads in the folder that it is started in.
    folder = tmp_path_factory.mktemp("langgraph")
    shutil.copy(REPOSITORY / "langgraph.json", folder)
    (folder / "graphs").symlink_to(REPOSITORY / "graphs")
    port = free_port()
    settings = {
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGGRAPH_NO_VERSION_CHECK": "true",
        "LANGSMITH_TRACING": "false",
        "PGENRM_HOME": str(folder / "home"),
        **{f"{kind}_proxy": elsewhere.address for kind in ("http", "https", "all")},
        "no_proxy": "127.0.0.1,localhost",
    }
    inherited = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [program, "dev", "--no-browser", "--no-reload", "--port", str(port)],
            cwd=folder,
            env=inherited | settings,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    opened = get_sync_client(url=f"http://127.0.0.1:{port}")
    try:
        ends = time.monotonic() + START_TIMEOUT_S
        while not _answers(port):
            said = (folder / "log").read_text(errors="replace")[-2000:]
            assert server.poll() is None, said
            assert time.monotonic() < ends, said
            time.sleep(0.1)
        yield opened
    finally:
        opened.close()
        server.send_signal(signal.SIGINT)
        server.wait(60)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _asked() -> dict[str, object]:
    """The demonstration's request for one of its people, as JSON."""
    data = demo_data()
    person = data.users[-1]
    request = EvaluationRequest(
        user_id=person.id,
        query=data.query,
        candidates=tuple(Candidate(id=name, text=text) for name, text in data.candidates.items()),
    )
    return {
        "request": request.model_dump(mode="json"),
        "scaling": Scaling(individual=4, prototype=0, seed=7).model_dump(mode="json"),
        "history": [pair.model_dump(mode="json") for pair in data.pairs(person)],
    }


def test_a_run_is_stopped_before_a_node_changed_and_resumed(client: SyncLangGraphClient) -> None:
    chain_format = format_of(bundled_model())
    thread = client.threads.create()["thread_id"]
    staged = {"staged": True}
    client.runs.wait(
        thread,
        "evaluation",
        input=_asked(),
        context=staged,
        interrupt_before=["generate_rubric"],
    )
    stopped = client.threads.get_state(thread)
    assert stopped["next"] == ["generate_rubric"]
    drafts = stopped["values"]["chains"]
    assert len(drafts) == 4
    assert stopped["values"].get("evaluation") is None

    persona = "Cooks for the first time and wants company while doing it."
    changed = [with_persona(draft, persona, chain_format) for draft in drafts]
    assert changed != drafts
    client.threads.update_state(thread, {"chains": changed})
    assert client.threads.get_state(thread)["next"] == ["generate_rubric"]

    client.runs.wait(thread, "evaluation", input=None, context=staged)
    done = client.threads.get_state(thread)
    assert done["next"] == []
    for begun, written in zip(changed, done["values"]["chains"], strict=True):
        assert written["text"].startswith(begun["text"]) or written["attempt"] > 0
        assert len(written["text"]) > len(begun["text"])
    evaluation = Evaluation.model_validate(done["values"]["evaluation"])
    assert set(evaluation.ranking) == set(demo_data().candidates)
    assert {chain.persona.text for chain in evaluation.chains if chain.persona} == {persona}


def test_the_server_asks_nobody_else(client: SyncLangGraphClient, elsewhere: Elsewhere) -> None:
    (assistant,) = client.assistants.search()
    assert assistant["graph_id"] == "evaluation"
    assert elsewhere.asked == []
