"""Tell what a reasoning model thought from what it answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pgenrm_agent.chain import split_reasoning
from pgenrm_agent.chain.sections import THOUGHT_MARK
from pgenrm_agent.engines.protocol import Completion, FinishReason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPENING_MARKS = (
    "<think>",
    "<thinking>",
    "<thought>",
    "<thoughts>",
    "<reasoning>",
    "<seed:think>",
    "[THINK]",
    "◁think▷",
)
"""How models begin to think. The mark that ends it has a slash: </think>."""

TURN_CHANGE = "<|end|><|start|>assistant"
"""What gpt-oss writes between its channels."""
BUDGET_SPENT = (
    "the whole budget of {tokens} tokens went into thinking, and there is no answer: raise"
    " max_tokens, or turn the model's thinking off or down"
)
NO_ANSWER = "the model thought and ended its turn without an answer"


def closing(opening: str) -> str:
    """Return the mark that ends what `opening` begins."""
    return f"{opening[0]}/{opening[1:]}"


def open_mark(text: str) -> str:
    """Return the opening mark that a text ends with, as of a template that opens it; else ""."""
    end = text.rstrip()
    return next((mark for mark in OPENING_MARKS if end.endswith(mark)), "")


def bare(reasoning: str) -> str:
    """Return what was thought without the marks around it."""
    text = reasoning.strip()
    marks = list(THOUGHT_MARK.finditer(text))
    if marks and marks[-1].lastgroup and marks[-1].end() == len(text):
        text = text[: marks[-1].start()].removesuffix(TURN_CHANGE)
    if marks and not marks[0].lastgroup and not marks[0].start():
        text = text[marks[0].end() :]
    return text.strip()


def read_completion(
    text: str,
    *,
    tokens: int,
    prompt_tokens: int = 0,
    ended: FinishReason = "stop",
    opened: str = "",
    stop: Sequence[str] = (),
    detail: str = "",
) -> Completion:
    """Return a model's output as a sample: what it thought, and its answer up to a stop string.

    ended: how the output ended. opened: the mark with which the prompt opened the thinking, as some
    chat templates do. A model that ends its turn without closing what the prompt opened has not
    thought: all of it is the answer.
    """
    split = split_reasoning(opened + text)
    if opened and ended == "stop" and not split.finished:
        split = split_reasoning(text)
    return read_held(
        # The line breaks behind the closing mark belong to it.
        split.answer.lstrip() if split.reasoning else split.answer,
        thought=split.reasoning,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        ended=ended,
        stop=stop,
        detail=detail,
    )


def read_held(
    answer: str,
    *,
    thought: str,
    tokens: int,
    prompt_tokens: int = 0,
    ended: FinishReason = "stop",
    stop: Sequence[str] = (),
    detail: str = "",
) -> Completion:
    """Return a sample whose answer is known, as of one held to a schema: marks in it mean nothing."""
    cuts = [place for mark in stop if (place := answer.find(mark)) >= 0]
    if cuts:
        ended, detail = "stop", ""
    elif thought and not answer and ended == "length":
        detail = BUDGET_SPENT.format(tokens=tokens)
    elif thought and not answer and ended == "stop":
        ended, detail = "failed", NO_ANSWER
    return Completion(
        text=answer[: min(cuts)] if cuts else answer,
        reasoning=bare(thought),
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        finish_reason=ended,
        detail=detail,
    )


@dataclass(frozen=True)
class ThinkingTokens:
    """The tokens of a tokenizer that are themselves marks.

    opening: token -> mark. closing: tokens that end the thinking. special: token -> mark, for those
    that decoding without special tokens leaves out.
    """

    opening: dict[int, str]
    closing: frozenset[int]
    special: dict[int, str]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> ThinkingTokens:
        """Return those of a tokenizer."""
        known = tokenizer.get_vocab()
        opening = {known[mark]: mark for mark in OPENING_MARKS if mark in known}
        ends = {known[end]: end for mark in OPENING_MARKS if (end := closing(mark)) in known}
        specials = special_tokens(tokenizer)
        return cls(
            opening,
            frozenset(ends),
            {token: mark for token, mark in (opening | ends).items() if token in specials},
        )

    def decode(self, tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the text of tokens, special ones left out except for the marks of thinking."""
        pieces: list[str] = []
        begin = 0
        for place, token in enumerate(tokens):
            if token in self.special:
                pieces += [_decode(tokens[begin:place], tokenizer), self.special[token]]
                begin = place + 1
        return "".join([*pieces, _decode(tokens[begin:], tokenizer)])


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the tokens that decoding leaves out: those with a role, and others marked as special."""
    added = tokenizer.added_tokens_decoder
    return {*tokenizer.all_special_ids, *(token for token in added if added[token].special)}


def _decode(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return cast(str, tokenizer.decode(list(tokens), skip_special_tokens=True)) if tokens else ""
