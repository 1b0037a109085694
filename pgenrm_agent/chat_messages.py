"""Chat messages as other programs write them, read as turns, a question and an answer.

A message is a mapping with `role` and `content`, in the shape of OpenAI, TRL or a dataset. What an
agent did on its way (calls of tools, and what the tools returned) is context, shortened; it is never
the answer that is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from pgenrm_agent.arguments import model_of, refuse_other
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import MAX_TURNS, whole_characters
from pgenrm_agent.schema import Message

ChatMessage: TypeAlias = Mapping[str, object]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "gpt": "assistant",
}
"""What others call a role, and what it is here."""
TOOL_ROLES = ("tool", "function")
SHOWN_OF_TOOLS = 2_000
"""Characters that a turn shows of a tool's arguments or result."""


def turn_of(message: object, where: str) -> Message:
    """Return a message as a turn of a conversation.

    Raises:
        ConfigurationError: It is no message; the error opens with `where`.
    """
    if isinstance(message, Message):
        return message
    refuse_other(message, Mapping, where, "a message: {role, content}")
    assert isinstance(message, Mapping)
    role = message.get("role")
    if role in TOOL_ROLES:
        name = str(message.get("name") or "a tool")
        said = _shortened(_text(message.get("content"), noted=True))
        return Message(role="assistant", content=f"({name} returned: {said})")
    calls = _calls(message)
    content = message.get("content")
    if isinstance(role, str) and role in ROLES:
        in_parts = isinstance(content, Sequence) and not isinstance(content, str)
        if calls or in_parts or (content is None and "content" in message):
            content = "\n".join(part for part in (_text(content, noted=True), *calls) if part)
        message = {"role": ROLES[role], "content": content}
    return model_of(Message, message, where)


def turns_of(messages: Iterable[object], where: str) -> tuple[Message, ...]:
    """Return messages as turns, without those that say nothing.

    Raises:
        ConfigurationError: One is no message; the error names its place.
    """
    turns = (turn_of(message, f"{where}[{place}]") for place, message in enumerate(messages))
    return tuple(turn for turn in turns if turn.content.strip())


def question_in(messages: Sequence[ChatMessage]) -> tuple[str, tuple[Message, ...]]:
    """Return what the user asked last, and the turns around it; blank where the user said nothing.

    What an agent has done since then stands before the question, as the last of these turns.

    Raises:
        ConfigurationError: There is no message of a user, or something that is no message.
    """
    _refuse_others(messages)
    asked = [place for place, each in enumerate(messages) if ROLES.get(_role(each)) == "user"]
    if not asked:
        raise ConfigurationError(
            "the messages hold none of a user, so there is no question to judge answers by: their"
            f" roles are {', '.join(map(_role, messages)) or 'none at all'}"
        )
    query = turn_of(messages[asked[-1]], f"messages[{asked[-1]}]").content
    around = [*messages[: asked[-1]], *messages[asked[-1] + 1 :]]
    return query, turns_of(around, "messages")[-MAX_TURNS:]


def last_answer(messages: Sequence[ChatMessage]) -> str:
    """Return the last text that the assistant wrote for the user; blank where there is none.

    A message that calls a tool is a step on the way. Where the messages end with such a step, no
    answer was given.

    Raises:
        ConfigurationError: There is something that is no message.
    """
    _refuse_others(messages)
    for message in reversed(messages):
        if _role(message) in TOOL_ROLES or _calls(message):
            return ""
        text = _text(message.get("content"), noted=False)
        if ROLES.get(_role(message)) == "assistant" and text.strip():
            return text
    return ""


def _refuse_others(messages: Iterable[object]) -> None:
    for place, message in enumerate(messages):
        refuse_other(message, Mapping, f"messages[{place}]", "a message: {role, content}")


def _role(message: ChatMessage) -> str:
    return str(message.get("role"))


def _text(content: object, *, noted: bool) -> str:
    """Return the text of a message's content: a text, or parts of which some are texts.

    noted: name the parts that are no text, such as "(image)".
    """
    if isinstance(content, str):
        return whole_characters(content)
    if not isinstance(content, Sequence):
        return ""
    return whole_characters("".join(_part(part, noted) for part in content))


def _part(part: object, noted: bool) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return ""
    kind = str(part.get("type") or "").removeprefix("input_").removesuffix("_url")
    # What a model thought is nobody's answer; calls of tools are read by `_calls`.
    if kind in THOUGHT_PARTS or kind in CALL_PARTS:
        return ""
    text = part.get("text")
    if isinstance(text, str):
        return text
    return f"({kind})" if noted and kind not in ("", "text") else ""


THOUGHT_PARTS = (
    *("thinking", "redacted_thinking", "summary_text"),
    *("reasoning", "reasoning_text", "reasoning_content"),
)
CALL_PARTS = ("tool_use", "tool_call", "function_call")


def _calls(message: ChatMessage) -> list[str]:
    """Return the calls of tools that a message makes, each as a text."""
    given = message.get("tool_calls") or []
    calls = list(given) if isinstance(given, Sequence) else []
    if message.get("function_call"):
        calls.append(message["function_call"])
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        calls += [
            part for part in content if isinstance(part, Mapping) and part.get("type") in CALL_PARTS
        ]
    return [_call(call) for call in calls if isinstance(call, Mapping)]


def _call(call: ChatMessage) -> str:
    inner = call.get("function")
    named = inner if isinstance(inner, Mapping) else call
    given = next((named[key] for key in ("arguments", "args", "input") if named.get(key)), "")
    said = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)
    return f"(calls {named.get('name') or 'a tool'}: {_shortened(whole_characters(said))})"


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_OF_TOOLS else text[: SHOWN_OF_TOOLS - 4] + " ..."
