"""What `pgenrm debug edit` shows in an editor, and how it reads what was written there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pgenrm_agent.cli.resources import read_text
from pgenrm_agent.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.fields import Model
    from pgenrm_agent.schema import Candidate, PreferencePair, UserSignals

M = TypeVar("M", bound="Model")
Editable = Literal["persona", "rubric", "neighbors", "history", "candidates"]
_CRITERION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%?\s+([^:]+?)\s*(?::\s*(.*?))?\s*")


def editable_text(session: DebugSession, run: str, what: Editable, chain: int | None) -> str:
    """Return what is there now, in the form in which it is edited."""
    from pgenrm_agent.debugging.views import chain_views

    state = session.state(run)
    if what in ("history", "candidates"):
        request = state["request"]
        signals = state.get("signals", {}).get(str(request["user_id"]), {})
        rows = signals.get("history") if what == "history" else request["candidates"]
        return json.dumps(rows or [], indent=2, ensure_ascii=False) + "\n"
    if what == "neighbors":
        return "".join(f"{name}\n" for name in state.get("neighbors", ()))
    views = [view for view in chain_views(state) if chain in (None, view.index)]
    if what == "persona":
        return next((view.persona for view in views if view.persona), "") + "\n"
    rubric = next((view.rubric for view in views if view.rubric), ())
    return "".join(
        f"{weight:g}% {name}{': ' + why if why else ''}\n" for name, weight, why in rubric
    )


def edit_text(text: str, what: Editable) -> str:
    """Open a text in $VISUAL or $EDITOR, and return it as it was left there.

    Raises ConfigurationError when nothing was changed.
    """
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    suffix = ".json" if what in ("history", "candidates") else ".txt"
    with tempfile.TemporaryDirectory(prefix="pgenrm-") as folder:
        file = Path(folder) / f"{what}{suffix}"
        file.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run([*command, str(file)], check=False)
        except OSError as error:
            raise ConfigurationError(
                f"the editor {command[0]!r} cannot be started ({error}): set EDITOR, or use --text"
            ) from error
        if done.returncode != 0:
            raise ConfigurationError(
                f"the editor ended with code {done.returncode}: nothing was changed"
            )
        changed = read_text(file)
    if changed == text:
        raise ConfigurationError("the text was left as it was: nothing was changed")
    return changed


def parse_rubric(text: str) -> list[tuple[str, float, str]]:
    """Return name, weight and reason of each criterion, one a line."""
    criteria = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _CRITERION.fullmatch(line)
        if match is None:
            raise ConfigurationError(
                f'line {number} of the rubric, {line!r}: write it as "40% Clarity: why"'
            )
        criteria.append((match[2], float(match[1]), match[3] or ""))
    return criteria


def parse_candidates(text: str) -> list[Candidate]:
    """Return the candidates of a JSON list."""
    from pgenrm_agent.schema import Candidate

    return [_valid(Candidate, row, "candidates") for row in _json_list(text, "candidates")]


def parse_history(text: str) -> list[PreferencePair]:
    """Return the past choices of a JSON list."""
    from pgenrm_agent.schema import PreferencePair

    return [_valid(PreferencePair, row, "history") for row in _json_list(text, "history")]


def parse_signals(text: str, user_id: str) -> UserSignals:
    """Return the signals of a JSON object (history, stated), of `user_id` where it names nobody."""
    from pgenrm_agent.schema import UserSignals

    signals = _json(text, "signals")
    if not isinstance(signals, dict):
        raise ConfigurationError(
            f"the signals are a JSON object, and this is {type(signals).__name__}"
        )
    return _valid(UserSignals, {"user_id": user_id, **signals}, "signals")


def _json_list(text: str, what: str) -> list[object]:
    rows = _json(text, what)
    if not isinstance(rows, list):
        raise ConfigurationError(f"the {what} is a JSON list, and this is {type(rows).__name__}")
    return rows


def _json(text: str, what: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the {what} is not JSON: {error}") from None


def _valid(kind: type[M], row: object, what: str) -> M:
    try:
        return kind.model_validate(row)
    except InvalidInput as error:
        raise ConfigurationError(f"these {what} cannot be used: {error.details}") from None
