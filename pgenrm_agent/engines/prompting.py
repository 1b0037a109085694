"""Turn the messages of a prompt into what a model reads."""

from __future__ import annotations

from collections.abc import Sequence

from pgenrm_agent.schema import Message

__all__ = ["fold_system"]


def fold_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages without the system role, for a template or server that refuses it.

    A system text goes in front of the user turn that follows it. Where none follows before the next
    answer, it ends the user turn before it, or is a user turn of its own.
    """
    folded: list[Message] = []
    waiting: list[str] = []

    def place_waiting() -> None:
        if waiting and folded and folded[-1].role == "user":
            waiting.insert(0, folded.pop().content)
        if waiting:
            folded.append(Message(role="user", content="\n\n".join(waiting)))
            waiting.clear()

    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
        elif message.role == "user":
            folded.append(
                message.model_copy(update={"content": "\n\n".join([*waiting, message.content])})
            )
            waiting.clear()
        else:
            place_waiting()
            folded.append(message)
    place_waiting()
    return tuple(folded)
