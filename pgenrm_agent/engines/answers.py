"""What a server answers, made samples: text, thinking, refusals, filters, and what it cost. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pgenrm_agent.chain import split_reasoning
from pgenrm_agent.engines.dialect import LIMITS
from pgenrm_agent.engines.protocol import Completion, FinishReason
from pgenrm_agent.engines.reasoning import NO_ANSWER, bare
from pgenrm_agent.engines.server_errors import read_words
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Message

NO_MESSAGE = "a choice has no message"
CONTEXT_STEP = 1024
MOST_CHARACTERS = 6
"""A token of a text in an alphabet has about four."""

_ENDS: tuple[tuple[FinishReason, frozenset[str]], ...] = (
    (
        "length",
        frozenset(
            {
                *("length", "max_tokens", "max_output_tokens", "model_length", "incomplete"),
                *("model_context_window_exceeded", "context_length_exceeded", "max_length"),
            }
        ),
    ),
    (
        "filtered",
        frozenset(
            {
                *("content_filter", "content-filter", "content_filtered", "safety", "recitation"),
                *("prohibited_content", "blocklist", "spii", "guardrail_intervened", "sensitive"),
            }
        ),
    ),
    ("refused", frozenset({"refusal"})),
    (
        "failed",
        frozenset(
            {
                *("error", "abort", "aborted", "cancelled", "canceled", "other", "network_error"),
                *("timeout", "time_limit", "preempted"),
                *("malformed_function_call", "insufficient_system_resource", "repetition"),
            }
        ),
    ),
)
# Fields of an answer by which another API than OpenAI's chat completions is told.
_FOREIGN: tuple[tuple[str, frozenset[str]], ...] = (
    ("Ollama's own API", frozenset({"message", "done"})),
    ("Ollama's own API", frozenset({"response", "done"})),
    ("Anthropic's Messages API", frozenset({"content", "stop_reason"})),
    ("Google's Gemini API", frozenset({"candidates"})),
    ("Amazon Bedrock's Converse API", frozenset({"output", "stopReason"})),
    ("OpenAI's Responses API", frozenset({"object", "output"})),
    ("Cohere's own API", frozenset({"message", "finish_reason"})),
    ("Hugging Face's text generation API", frozenset({"generated_text"})),
)
_SENTENCES: dict[FinishReason, str] = {
    "filtered": "a content filter ended the answer",
    "refused": "the model refused",
    "failed": "the server ended the answer",
    "length": "the answer was cut at the limit of new tokens",
}


@dataclass(frozen=True)
class Answer:
    """One answer of a server, read.

    finish: why it ended, in the server's own word.
    refusal: the words in which the model refuses.
    fault: what the server says went wrong within the answer, and `fault_status` its HTTP status.
    thinks_on: the thinking was not over, or nothing came but thinking in blocks.
    tokens: new tokens, where this answer's own number is known.
    """

    text: str
    reasoning: str = ""
    finish: str = ""
    refusal: str = ""
    fault: str = ""
    fault_status: int | None = None
    thinks_on: bool = False
    tokens: int | None = None

    @property
    def ended(self) -> FinishReason:
        """How it ended, in the terms of `Completion`."""
        if self.refusal and not self.text:
            return "refused"
        if self.fault:
            return "failed"
        word = re.split(r"[:\s(]", self.finish.lower(), maxsplit=1)[0]
        word = word.removeprefix("finish_reason_").removeprefix("finishreason.")
        return next((end for end, words in _ENDS if word in words), "stop")

    @property
    def is_only_thought(self) -> bool:
        """Whether the thinking was not over, or nothing came after it."""
        return self.thinks_on or not self.text.strip()

    def completion(
        self, *, stops: Sequence[str], tokens: int, prompt_tokens: int, max_tokens: int
    ) -> Completion:
        """Return it as a sample. Its text ends at the first stop string; the thinking may hold them."""
        ended = self.ended
        cuts = [place for stop in stops if (place := self.text.find(stop)) >= 0]
        detail = ": ".join(filter(None, (self.refusal, self.fault))) or _SENTENCES.get(ended, "")
        if cuts:
            ended, detail = "stop", ""
        elif ended == "length" and self.is_only_thought:
            # Some servers do not show what was thought.
            detail = f"the budget of {max_tokens} tokens went into thinking: raise max_tokens"
        elif ended == "stop" and (self.thinks_on or (self.reasoning and self.is_only_thought)):
            ended, detail = "failed", NO_ANSWER
        return Completion(
            text=self.text[: min(cuts)] if cuts else self.text,
            reasoning=self.reasoning,
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            finish_reason=ended,
            detail=detail,
        )


@dataclass(frozen=True)
class Usage:
    """Tokens of a whole response, where the server tells."""

    completion: int | None = None
    prompt: int = 0


def read_answers(body: object) -> tuple[list[Answer], Usage]:
    """Read a chat completion.

    Raises ValueError if it is none, with what is wrong about it.
    """
    if not isinstance(body, Mapping):
        raise ValueError(f"it is {_kind(body)}, not an object")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError("there are no choices in it")
    indexed = [_read_choice(choice, place) for place, choice in enumerate(choices)]
    if all(answer.fault == NO_MESSAGE for _, answer in indexed):
        raise ValueError(NO_MESSAGE)
    return [answer for _, answer in sorted(indexed, key=lambda entry: entry[0])], _usage(body)


def foreign_form(body: object) -> str:
    """Return the API whose form an answer has, where it is not OpenAI's chat completions; else ""."""
    if not isinstance(body, Mapping) or body.get("error") or body.get("choices"):
        return ""
    return next((api for api, fields in _FOREIGN if fields <= set(body)), "")


def _read_choice(choice: object, place: int) -> tuple[int, Answer]:
    message = _message_in(choice) if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or message is None:
        return place, Answer("", fault=NO_MESSAGE)
    fault = choice.get("error") or message.get("error")
    words = read_words(fault) if fault else None
    token_ids = choice.get("token_ids")
    finish = choice.get("finish_reason") or ""
    index = choice.get("index")
    return (
        index if isinstance(index, int) else place,
        read_message(
            message.get("content") or _arguments_in(message),
            message,
            finish=str(finish),
            fault=words.text if words else "",
            fault_status=words.status if words else None,
            tokens=len(token_ids) if isinstance(token_ids, list) else None,
        ),
    )


def _message_in(choice: Mapping[str, object]) -> Mapping[str, object] | None:
    """The message of a choice; an empty one where it only says how it ended."""
    for name in ("message", "delta"):
        message = choice.get(name)
        if isinstance(message, Mapping):
            return message
    if isinstance(choice.get("text"), str):  # as of a text completion
        return {"content": choice["text"]}
    return {} if choice.get("error") or choice.get("finish_reason") else None


def _arguments_in(message: Mapping[str, object]) -> object:
    """What a server sends as the arguments of a tool that it made of the schema."""
    calls = message.get("tool_calls")
    call = calls[0] if isinstance(calls, list) and calls else None
    function = call.get("function") if isinstance(call, Mapping) else None
    return function.get("arguments") if isinstance(function, Mapping) else None


def read_message(
    content: object,
    fields: Mapping[str, object],
    *,
    finish: str,
    fault: str = "",
    fault_status: int | None = None,
    tokens: int | None = None,
) -> Answer:
    """Read a message: its content, and the fields in which servers put thinking and refusals.

    Raises ValueError if the content is neither text nor blocks.
    """
    text, thinking, refusal = read_content(content)
    beside = next(
        (
            thought
            for name in (
                "reasoning_content",
                "reasoning",
                "reasoning_details",
                "thinking_blocks",
                "thinking",
            )
            if (thought := _thinking(fields.get(name)))
        ),
        "",
    )
    said = fields.get("refusal")
    inside, text, finished = _split_thought(text)
    # Some thinking is not shown, and is told by its block alone.
    withheld = isinstance(content, list) and any(map(_is_thought, content)) and not text.strip()
    return Answer(
        text=text,
        reasoning="\n".join(dict.fromkeys(filter(None, (beside or thinking, inside)))),
        finish=finish,
        refusal=said.strip() if isinstance(said, str) else refusal,
        fault=fault,
        fault_status=fault_status,
        thinks_on=not finished or withheld,
        tokens=tokens,
    )


def read_content(content: object) -> tuple[str, str, str]:
    """Return the text, the thinking and the refusal in a content: text, blocks, or nothing.

    Raises ValueError for anything else.
    """
    if content is None or isinstance(content, str):
        return content or "", "", ""
    blocks = [content] if isinstance(content, Mapping) else content
    if not isinstance(blocks, list):
        raise ValueError(f"a message's content is {_kind(content)}, no text")
    texts, thoughts, refusals = [], [], []
    for block in blocks:
        if isinstance(block, str):
            texts.append(block)
            continue
        if not isinstance(block, Mapping):
            raise ValueError(f"a block of a message's content is {_kind(block)}")
        if _is_thought(block):
            thoughts.append(_thinking(block))
            continue
        if not {"type", "text", "thinking", "reasoning"} & set(block):
            # A server that was asked for an object may send it as one.
            texts.append(json.dumps(block, ensure_ascii=False))
            continue
        kind = str(block.get("type", "text"))
        text = block.get("text")
        if "refusal" in kind:
            refusals.append(str(block.get("refusal") or text or ""))
        elif isinstance(text, str):
            texts.append(text)
    return "".join(texts), "\n".join(filter(None, thoughts)), "\n".join(filter(None, refusals))


def _is_thought(block: object) -> bool:
    if not isinstance(block, Mapping):
        return False
    kind = str(block.get("type", ""))
    return "think" in kind or "reasoning" in kind or block.get("thought") is True


def _thinking(value: object, depth: int = 5) -> str:
    """The text of thinking, as a text, a block, or blocks in blocks."""
    if isinstance(value, str):
        return value.strip()
    if depth == 0:
        return ""
    if isinstance(value, Mapping):
        names = ("thinking", "reasoning", "text", "summary", "content", "reasoning_content")
        thoughts: Iterable[object] = [value[name] for name in names if value.get(name)][:1]
    elif isinstance(value, list):
        thoughts = value
    else:
        return ""
    return "\n".join(filter(None, (_thinking(thought, depth - 1) for thought in thoughts)))


def _split_thought(text: str) -> tuple[str, str, bool]:
    """The thinking in a text, without its marks; the rest; and whether the thinking is over."""
    reasoning, answer, finished = split_reasoning(text)
    return bare(reasoning), answer.lstrip() if reasoning else answer, finished


def _usage(body: Mapping[str, object]) -> Usage:
    usage = body.get("usage")
    if not isinstance(usage, Mapping):
        return Usage()
    completion, prompt = _count(usage.get("completion_tokens")), _count(usage.get("prompt_tokens"))
    details = usage.get("completion_tokens_details")
    thought = _count(details.get("reasoning_tokens")) if isinstance(details, Mapping) else None
    if completion is not None and thought and prompt is not None:
        # Most servers count thinking in; the total tells where one does not.
        apart = _count(usage.get("total_tokens")) == prompt + completion + thought
        completion += thought if apart else 0
    return Usage(completion, prompt or 0)


def _count(value: object) -> int | None:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
    return int(value) if whole and isinstance(value, (int, float)) else None


def check_read_whole(messages: object, usage: Usage) -> None:
    """Compare the tokens that were read with the text that was sent.

    Raises ConfigurationError where a server has cut the prompt at its context's end without a word,
    as Ollama does: a round number of tokens, and far fewer than such a text has.
    """
    texts = messages if isinstance(messages, tuple) else ()
    characters = sum(len(message.content) for message in texts if isinstance(message, Message))
    if (
        usage.prompt
        and usage.prompt % CONTEXT_STEP == 0
        and characters > MOST_CHARACTERS * usage.prompt
    ):
        raise ConfigurationError(
            f"the server read {usage.prompt} tokens of a prompt of {characters} characters, and left"
            " out the rest: raise the context that it gives the model (num_ctx of Ollama,"
            " OLLAMA_CONTEXT_LENGTH), or show fewer past choices (scaling.history)"
        )


def cut_short(request: Mapping[str, object], count: int = 1) -> tuple[list[Answer], Usage]:
    """Return what is left of answers whose limit was reached before there was any text of them.

    The server does not say what that took: as much as the request allowed.
    """
    limit = next((value for name in LIMITS if (value := _count(request.get(name)))), None)
    usage = Usage() if limit is None else Usage(completion=limit * count)
    return [Answer("", finish="length")] * count, usage


def share_tokens(answers: Sequence[Answer], total: int | None) -> list[int]:
    """Return the tokens of each answer.

    A server reports the tokens of all answers in one sum: shared out by length, thinking included.
    Without a report, the words are counted.
    """
    lengths = [len(answer.text) + len(answer.reasoning) for answer in answers]
    if total is None:
        shares = [len(f"{answer.reasoning} {answer.text}".split()) for answer in answers]
    elif not sum(lengths):
        shares = [total // len(answers)] * len(answers)
    else:
        ends = [0]
        for length in lengths:
            ends.append(ends[-1] + length)
        places = [round(end * total / ends[-1]) for end in ends]
        shares = [end - start for start, end in pairwise(places)]
    return [
        share if answer.tokens is None else answer.tokens
        for answer, share in zip(answers, shares, strict=True)
    ]


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
