"""What the studio's pages show: the form's room, known users, scores with their spread, ties."""

from __future__ import annotations

import re
import time
from html import unescape

import httpx
import pytest
from scripted_person import REQUEST, SCALING, SIGNALS, begin, reply
from starlette.testclient import TestClient
from studio_server import TOKEN

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.schema import Candidate, Scaling
from pgenrm_agent.studio import create_studio
from pgenrm_agent.studio.access import form_key
from pgenrm_agent.studio.background import Workers
from pgenrm_agent.testing import ScriptedEngine


def opened(session: DebugSession, *users: str) -> httpx.Client:
    studio = create_studio(session, token=TOKEN, known_users=lambda: users)
    client = TestClient(studio, base_url="http://127.0.0.1")
    assert client.get(f"/?token={TOKEN}").status_code == 200
    return client


def said(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_the_form_offers_known_users_and_makes_room_for_more() -> None:
    with DebugSession(engine=ScriptedEngine(reply)) as session:
        begin(session)
        client = opened(session, "zoe", "b<&>")
        page = client.get("/").text
        offered = [unescape(name) for name in re.findall(r'<option value="([^"]*)">', page)]
        assert offered == ["ada", "b<&>", "zoe"]
        form = {
            "key": form_key(TOKEN),
            "user": "ada",
            "query": "Which?",
            "answer": ["first", "second", "third"],
            "past_query": ["Before?", "", ""],
        }
        for more, answers, choices in (("answer", 4, 3), ("choice", 3, 4)):
            grown = client.post("/runs", data={**form, "more": more})
            assert grown.status_code == 200
            assert grown.text.count('name="answer"') == answers
            assert grown.text.count('name="past_query"') == choices
            for kept in ("Which?", "first", "third", "Before?"):
                assert kept in grown.text
        assert len(session.runs()) == 1
        form["answer"] = [f"answer {number}" for number in range(12)]
        form["past_query"], form["past_chosen"] = ["q"] * 9, [f"c{n}" for n in range(9)]
        form["past_rejected"] = ["r"] * 9
        made = client.post("/runs", data=form)
        assert "12 answers" in said(client.get("/").text)
        assert made.status_code == 200


def test_a_run_that_was_begun_on_something_else_is_shown_and_does_not_go_on() -> None:
    engine = ScriptedEngine(reply)
    with DebugSession(engine=engine) as session:
        labels = {"memory": "/people", "ticket": "7"}
        foreign = session.start(
            REQUEST, signals=SIGNALS, scaling=SCALING, labels=labels, run="theirs"
        )
        own = session.start(REQUEST, signals=SIGNALS, scaling=SCALING, run="own")
        studio = create_studio(session, token=TOKEN, resources=("memory", "model"))
        client = TestClient(studio, base_url="http://127.0.0.1")
        client.get(f"/?token={TOKEN}")
        form = {"key": form_key(TOKEN)}
        for action in ("step", "resume", "persona"):
            page = said(client.post(f"/runs/{foreign}/{action}", data=form).text)
            assert "begun on memory '/people': start the studio so" in page
        assert session.checkpoint(foreign).next == ("recall",)
        client.post(f"/runs/{own}/resume", data=form)
        for _ in range(600):
            if not session.checkpoint(own).next:
                break
            time.sleep(0.1)
        assert session.checkpoint(own).ranking


def test_nothing_that_is_typed_or_looked_at_is_lost_while_a_run_proceeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with DebugSession(engine=ScriptedEngine(reply)) as session:
        run = begin(session)
        session.run_to(run, after="generate_rubric")
        client = opened(session)
        still = client.get(f"/runs/{run}?chain=2").text
        assert "readonly" not in still
        assert "hx-trigger" not in still
        monkeypatch.setattr(Workers, "busy", lambda self, run: True)
        live = client.get(f"/runs/{run}?chain=2").text
        fields = re.findall(
            r"<(?:textarea|input)[^>]*name=\"(?:persona|name|weight|reason)\"[^>]*>", live
        )
        assert len(fields) > 4
        assert all("readonly" in field for field in fields)
        assert f'hx-get="/runs/{run}?chain=2"' in live
        earlier = session.timeline(run)[1].id
        looked = client.get(f"/runs/{run}?chain=0&at={earlier}").text
        assert f"at={earlier}" in re.findall(r'hx-get="([^"]*)"', looked)[0]


def test_scores_have_their_spread_and_ties_share_a_place() -> None:
    twice = REQUEST.model_copy(
        update={
            "candidates": (
                Candidate(id="red", text="Red."),
                Candidate(id="green", text="Green."),
                Candidate(id="leaf", text="Green."),
            )
        }
    )
    scaling = Scaling(individual=4, prototype=0, seed=5)
    with DebugSession(engine=ScriptedEngine(reply)) as session:
        client = opened(session)
        run = session.start(twice, scaling=scaling, signals=SIGNALS, run="tied")
        session.resume(run)
        page = client.get(f"/runs/{run}").text
        places = re.findall(r'<li value="(\d)"><bdi>(\w+)</bdi>', page)
        assert places == [("1", "green"), ("1", "leaf"), ("3", "red")]
        assert "The first places are tied." in page
        assert re.search(r"green \d\.\d\d ± \d\.\d\d, best with \d+ %", said(page))
        assert page.count('<details class="answer" open>') == 3
        assert '<details id="raw">' in page
        run = begin(session, "clear")
        session.resume(run)
        assert "The first places are tied." not in client.get(f"/runs/{run}").text
