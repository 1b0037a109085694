"""What a behavior of a server is, and the pieces of requests and answers that behaviors are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scripted_server import Body, Reply

GOOD = "a good answer"
GOOD_JSON = '{"persona": "Likes it short."}'
STOP = "<END>"
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "persona": {"type": "string", "maxLength": 300},
        "title": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
    },
    "required": ["persona"],
}


@dataclass(frozen=True)
class Behavior:
    """A server that does something, and what an engine makes of it.

    Attributes:
        when: Which requests get `status`, `body` and `headers`; the others get a good answer. It is
            told the request's body and its number.
        learned: Whether the second call is asked in the new way from the start.
        n: Samples asked for. schema: Whether an answer is to be held to SCHEMA.
        texts: The samples' texts; None: all good. ends: How the samples end; None: all "stop".
        reasoning, detail: What the samples with such an end say. tokens: of the first sample.
        error: What is raised, and a pattern of its words.
        without: Fields that the last request does not have. sent: Fields that it has.
        owner: Whom the server's list of models names.
        engines: The engines that this concerns.
    """

    name: str
    behavior: str
    outcome: str
    when: Callable[[Body, int], bool]
    body: object
    status: int = 200
    headers: Mapping[str, str] | None = None
    learned: bool = False
    n: int = 1
    schema: bool = False
    texts: tuple[str, ...] | None = None
    ends: tuple[str, ...] | None = None
    reasoning: str = ""
    detail: str = ""
    tokens: int | None = None
    error: tuple[type[Exception], str] | None = None
    without: tuple[str, ...] = ()
    sent: Mapping[str, object] = field(default_factory=dict)
    owner: str = "someone"
    engines: tuple[str, ...] = ("openai", "chat")

    def reply(self, body: Body, number: int) -> Reply:
        """Return what the server sends."""
        if not self.when(body, number):
            return good_answer(body)
        return Reply(self.body, status=self.status, headers=self.headers)


def good_answer(body: Body) -> Reply:
    text = GOOD_JSON if "response_format" in body else GOOD
    message = {"role": "assistant", "content": text}
    choices = [
        {"index": index, "message": message, "finish_reason": "stop"}
        for index in range(body.get("n") or 1)
    ]
    return Reply({"object": "chat.completion", "choices": choices})


def answer(message: Mapping[str, object], finish: str | None = "stop", **more: object) -> Body:
    """Return the body of an answer with one choice."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"object": "chat.completion", "choices": [choice], **more}


def usage(prompt: int, completion: int, thought: int, total: int) -> Body:
    """Return the tokens as servers report them."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def error(message: str, **more: object) -> Body:
    """Return OpenAI's error object."""
    return {"error": {"message": message, **more}}


def has(name: str) -> Callable[[Body, int], bool]:
    """Return whether a request has a field."""
    return lambda body, _: name in body


def always(body: Body, number: int) -> bool:
    """Every request."""
    return True


def first(body: Body, number: int) -> bool:
    """The first request only."""
    return number == 0


def has_system(body: Body, number: int) -> bool:
    """Whether a message is a system message."""
    return any(message["role"] == "system" for message in body["messages"])


def asks_for(kind: str) -> Callable[[Body, int], bool]:
    """Return whether a request asks for this kind of `response_format`."""
    return lambda body, _: (body.get("response_format") or {}).get("type") == kind


def more_than(count: int) -> Callable[[Body, int], bool]:
    """Return whether a request asks for more samples."""
    return lambda body, _: (body.get("n") or 1) > count


FOLDED = {"messages": [{"role": "user", "content": "You judge.\n\nHow is this?"}]}
SERVER_ONLY = ("openai",)
CHAT_ONLY = ("chat",)
