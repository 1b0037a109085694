"""Turn the messages of a prompt into what a model reads: the text of its chat template, and token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from pgenrm_agent.chain import split_reasoning
from pgenrm_agent.engines.chat_template import render_chat
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.engines.reasoning import closing, open_mark
from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.schema import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM_PROBE = "words of the system"
USER_PROBE = "words of the user"


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as a model reads it.

    opened: the mark with which the chat template has opened the model's thinking; else "".
    """

    ids: list[int]
    opened: str = ""


class PromptEncoder:
    """Encodes prompts for one model.

    owner: the engine's name, for messages. context: most tokens of a prompt and its answer.
    remedy: what else helps against a prompt that is too long.

    Raises EngineUnavailable for a tokenizer without a chat template.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, owner: str, context: int, remedy: str
    ) -> None:
        if not tokenizer.chat_template:
            raise EngineUnavailable(
                f"the tokenizer of {owner} has no chat template, so messages cannot be turned into a"
                " prompt: use an instruct model, or set tokenizer.chat_template"
            )
        self._tokenizer = tokenizer
        self._owner = owner
        self.context = context
        self._remedy = remedy

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Return the token ids of a prompt, its partial answer included.

        A partial answer is no part of what is thought before it. So a template that opens the
        thinking gets it closed first, unless the partial answer does that.

        Raises ConfigurationError when no room is left for an answer, when the template cannot render
        the messages, and for a partial answer to be held to a JSON schema.
        """
        if prompt.partial and prompt.json_schema is not None:
            raise ConfigurationError(
                "a begun answer cannot be held to a JSON schema: leave Prompt.partial empty, or"
                " json_schema None"
            )
        text = render(self._tokenizer, prompt.messages)
        opened = open_mark(text)
        if opened and prompt.partial:
            split = split_reasoning(opened + prompt.partial)
            if split.finished:
                opened = ""
            elif not split_reasoning(prompt.partial).reasoning:
                text, opened = close_thinking(text), ""
        ids = token_ids(self._tokenizer, text + prompt.partial)
        if len(ids) >= self.context:
            raise ConfigurationError(
                f"a prompt has {len(ids)} tokens and {self._owner} reads at most {self.context},"
                " answer included: show fewer past choices (scaling.history), fewer or shorter"
                f" candidates, or {self._remedy}"
            )
        return EncodedPrompt(ids, opened)


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, begin_answer: bool = True
) -> str:
    """Return the messages in the model's chat template, and the beginning of the turn that answers.

    A template that refuses the system role, or drops it in silence, gets the system text in the
    user turn.

    Raises ConfigurationError when the template cannot render them.
    """
    folded = fold_system(messages)
    if folded == tuple(messages):
        return _apply(tokenizer, messages, begin_answer)
    if not takes_system(tokenizer):
        return _apply(tokenizer, folded, begin_answer)
    try:
        return _apply(tokenizer, messages, begin_answer)
    except ConfigurationError:
        # Some take it, and nowhere but at the beginning.
        return _apply(tokenizer, folded, begin_answer)


def render_answer(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], answer: str
) -> str:
    """Return what a model has to write after `render(tokenizer, messages)` to give an answer.

    It ends with the end of the turn, and begins with the end of thinking that the template opens.
    """
    asked = render(tokenizer, messages)
    whole = render(
        tokenizer, [*messages, Message(role="assistant", content=answer)], begin_answer=False
    )
    if whole.startswith(asked):
        return whole[len(asked) :].rstrip("\n")
    # Templates that render a begun turn otherwise than a whole one get the answer and the end token.
    return close_thinking(asked).removeprefix(asked) + answer + cast(str, tokenizer.eos_token)


def close_thinking(text: str) -> str:
    """Return a rendered prompt with the thinking closed that its template has opened, if it has."""
    opened = open_mark(text)
    return f"{text}\n{closing(opened)}\n\n" if opened else text


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a rendered text. The template has put special tokens in already."""
    return cast(list[int], tokenizer.encode(text, add_special_tokens=False))


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], begin_answer: bool = True
) -> str:
    from jinja2 import TemplateError
    from transformers import PreTrainedTokenizerBase

    conversation = [message.model_dump() for message in messages]
    try:
        if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
            # It has no template, but its maker's own code.
            return cast(
                str,
                tokenizer.apply_chat_template(
                    conversation, tokenize=False, add_generation_prompt=begin_answer
                ),
            )
        shown = {
            **tokenizer.special_tokens_map,
            "messages": conversation,
            "tools": None,
            "documents": None,
            "add_generation_prompt": begin_answer,
        }
        return render_chat(tokenizer.get_chat_template(), shown)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        roles = ", ".join(message.role for message in messages)
        raise ConfigurationError(
            f"the chat template of {tokenizer.name_or_path} cannot render a conversation of {roles}:"
            f" {error}"
        ) from error


_takers: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[str, bool]] = WeakKeyDictionary()
"""The chat template of a tokenizer, and whether it renders a system text."""


def takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the model's chat template renders a system text at the beginning."""
    template = str(tokenizer.chat_template)
    known = _takers.get(tokenizer)
    if known is None or known[0] != template:
        probe = (
            Message(role="system", content=SYSTEM_PROBE),
            Message(role="user", content=USER_PROBE),
        )
        try:
            takes = SYSTEM_PROBE in _apply(tokenizer, probe)
        except ConfigurationError:
            takes = False
        known = _takers[tokenizer] = (template, takes)
    return known[1]


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
