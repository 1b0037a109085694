"""Read the body of a response as data: JSON, also behind what gateways put before it, or as events.

OpenRouter and proxies send comments while a model is busy (": PROCESSING"), and some servers stream
although nobody asked them to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

EVENT = "data:"
DONE = "[DONE]"
THINKING = ("reasoning_content", "reasoning", "thinking")


def data_in(text: str) -> object:
    """Return the data of a body; the text itself where it holds none."""
    text = text.removeprefix("\ufeff")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    # Not splitlines(), which knows further ends of lines: strings in JSON may hold them.
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip() and line[0] != ":"]
    if not any(line.startswith(EVENT) for line in lines):
        return _loaded("\n".join(lines), text)
    sent = [line.removeprefix(EVENT).strip() for line in lines if line.startswith(EVENT)]
    events = [_loaded(line, None) for line in sent if line != DONE]
    if not events or not all(isinstance(event, Mapping) for event in events):
        return text
    return _joined([event for event in events if isinstance(event, Mapping)])


def _loaded(text: str, otherwise: object) -> object:
    try:
        data: object = json.loads(text)
    except (ValueError, RecursionError):
        return otherwise
    return data


def _joined(events: Sequence[Mapping[str, object]]) -> object:
    """Return the chat completion that events are pieces of; the last event where they are none."""
    pieces = [(event, choice) for event in events for choice in _choices(event)]
    if any(event.get("error") for event in events) or not all("delta" in c for _, c in pieces):
        return events[-1]
    joined: dict[object, dict[str, object]] = {}
    body: dict[str, object] = {}
    for event in events:
        body |= {name: value for name, value in event.items() if value is not None}
    for _, choice in pieces:
        message: dict[str, object] = {}
        whole = joined.setdefault(choice.get("index", 0), {**choice, "message": message})
        written = whole["message"]
        delta = choice["delta"]
        if isinstance(written, dict) and isinstance(delta, Mapping):
            for name in ("content", "refusal", *THINKING):
                if isinstance(delta.get(name), str):
                    written[name] = f"{written.get(name) or ''}{delta[name]}"
        whole["finish_reason"] = choice.get("finish_reason") or whole.get("finish_reason")
    return {**body, "choices": list(joined.values())}


def _choices(event: Mapping[str, object]) -> list[Mapping[str, object]]:
    choices = event.get("choices")
    listed = choices if isinstance(choices, list) else []
    return [choice for choice in listed if isinstance(choice, Mapping)]
