"""The bundled model continues what a person wrote; nothing here depends on how well it writes."""

from __future__ import annotations

import pytest
from scripted_person import begin

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.debugging.views import chain_views

EDITED = "Wants a color in one word, without reasons."


@pytest.mark.long
def test_the_bundled_model_writes_the_rubric_behind_the_edited_persona() -> None:
    with DebugSession() as session:
        run = begin(session)
        session.run_to(run, after="derive_persona")
        own = [view.persona for view in chain_views(session.state(run))]
        session.edit_persona(run, EDITED)
        edited = [draft["text"] for draft in session.state(run)["chains"]]
        before = session.checkpoint(run).tokens
        session.run_to(run, after="generate_rubric")
        state = session.state(run)
        chains = state["chains"]
        assert session.checkpoint(run).tokens > before
    assert EDITED not in own
    assert [view.persona for view in chain_views(state)] == [EDITED] * len(chains)
    for text, draft in zip(edited, chains, strict=True):
        assert draft["text"].startswith(text)
        assert len(draft["text"].strip()) > len(text.strip())
