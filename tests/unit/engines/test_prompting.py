"""What a model reads of a prompt's messages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pgenrm_agent.engines.prompting import fold_system
from pgenrm_agent.schema import Message


def turns(script: str) -> tuple[Message, ...]:
    """Return "s:be brief|u:hi" as messages."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    parts = [part.split(":", 1) for part in script.split("|")]
    return tuple(Message(role=roles[role], content=text) for role, text in parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "folded"),
    [
        ("u:hi", "u:hi"),
        ("s:be brief|u:hi", "u:be brief\n\nhi"),
        ("s:be brief|s:be kind|u:hi", "u:be brief\n\nbe kind\n\nhi"),
        ("s:be brief|u:hi|a:yes?|u:why", "u:be brief\n\nhi|a:yes?|u:why"),
        ("s:be brief|a:hello|u:hi", "u:be brief|a:hello|u:hi"),
        ("u:hi|a:yes?|s:be brief|u:why", "u:hi|a:yes?|u:be brief\n\nwhy"),
        ("u:hi|s:be brief|a:yes?", "u:hi\n\nbe brief|a:yes?"),
        ("u:hi|s:be brief", "u:hi\n\nbe brief"),
        ("s:be brief", "u:be brief"),
    ],
)
def test_a_system_text_is_folded_into_a_user_turn(given: str, folded: str) -> None:
    assert fold_system(turns(given)) == turns(folded)


def test_folding_needs_no_heavy_package() -> None:
    script = (
        "import sys; import pgenrm_agent.engines.prompting;"
        "print([m for m in ('torch', 'transformers', 'xgrammar', 'openai') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
