"""The samples of the transformers engine as they are written: when one ends, and what it says."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from pgenrm_agent.chain import split_reasoning
from pgenrm_agent.engines.decoding import Row
from pgenrm_agent.engines.grammar import Grammars, grammar_of
from pgenrm_agent.engines.protocol import Completion, FinishReason, Prompt
from pgenrm_agent.engines.reasoning import (
    NO_ANSWER,
    OPENING_MARKS,
    ThinkingTokens,
    closing,
    read_completion,
    read_held,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from xgrammar import GrammarMatcher

LONGEST_MARK = 16
"""Tokens that a mark is written in, at most."""


@dataclass(eq=False)
class SampleRow(Row):
    """A row of a prompt.

    opened: the mark with which the prompt opened the thinking. grammar: follows what the answer is
    held to, at its beginning. answer_at: how many of its tokens were thought, once the answer has begun.
    """

    opened: str = ""
    grammar: GrammarMatcher | None = None
    answer_at: int = 0


class RowReader:
    """Reads rows of one model.

    vocabulary: width of the model's logits. ends: its end tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: int,
        ends: frozenset[int],
    ) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._ends = ends
        self.grammars: Grammars | None = None
        self._compiling = threading.Lock()
        self._pieces: list[str] | None = None
        self._suspects: dict[tuple[str, ...], np.ndarray] = {}
        self._mark_ends: frozenset[int] | None = None
        self.marks = ThinkingTokens.of(tokenizer)

    def matcher(self, prompt: Prompt) -> GrammarMatcher | None:
        """Return what follows the answers to a prompt through their grammar, if they have one.

        The first time for a grammar it takes up to some seconds.

        Raises ConfigurationError for a schema or grammar that cannot be held to.
        """
        grammar = grammar_of(prompt)
        if grammar is None:
            return None
        with self._compiling:
            if self.grammars is None:
                self.grammars = Grammars(self._tokenizer, self._vocabulary, self._ends)
            return self.grammars.matcher(grammar)

    def begin(
        self,
        place: int,
        noise: np.random.Generator,
        limit: int,
        *,
        opened: str = "",
        grammar: GrammarMatcher | None = None,
        begun: bool = False,
    ) -> SampleRow:
        """Return a row that is about to be written. A grammar holds from the thinking's end on.

        begun: whether the prompt holds the beginning of the answer, before which nothing is thought.
        """
        row = SampleRow(place, noise, limit, opened=opened, grammar=grammar, thinking=bool(opened))
        if grammar is not None and not opened:
            row.may_think = bool(self.marks.opening) and not begun
            self._hold(row)
        return row

    def suspects(self, rows: Sequence[SampleRow], stop: tuple[str, ...]) -> np.ndarray | None:
        """Return which tokens may end a stop string, or change whether a row thinks."""
        waiting = any(row.grammar is not None and (row.opened or row.may_think) for row in rows)
        if not stop and not waiting:
            return None
        if stop not in self._suspects:
            # Logits may be wider than the vocabulary; such tokens have no text.
            mask = np.zeros(max(len(self._texts()), self._vocabulary), dtype=bool)
            lasts = {mark[-1] for mark in stop}
            ends = self._ends_of_marks()
            for token, piece in enumerate(self._texts()):
                mask[token] = token in ends or any(last in piece for last in lasts)
            self._suspects[stop] = mask
        return self._suspects[stop]

    def ends_here(self, row: SampleRow, stop: tuple[str, ...]) -> bool:
        """Return whether a row's newest token ends a stop string; none does within the thinking.

        Where the thinking ends here, the row's grammar begins to hold.
        """
        if row.matcher is None and row.tokens[-1] in self._ends_of_marks():
            self._look_for_mark(row)
        if row.thinking or not stop:
            return False
        if row.answer_at:
            text = self._decode(row.tokens[row.answer_at :]).lstrip()
        else:
            text = self._decode(row.tokens[-2 - max(map(len, stop)) :])
        return any(mark in text for mark in stop)

    def read(
        self,
        row: SampleRow,
        stop: tuple[str, ...],
        *,
        prompt_tokens: int,
        ended: FinishReason,
        detail: str = "",
    ) -> Completion:
        """Return a row, as far as it is written, as a sample."""
        count = len(row.tokens)
        if row.grammar is None or row.matcher is None:
            if row.grammar is not None and ended == "stop":
                ended, detail = "failed", NO_ANSWER
            return read_completion(
                self.marks.decode(row.tokens, self._tokenizer),
                tokens=count,
                prompt_tokens=prompt_tokens,
                ended=ended,
                opened=row.opened,
                stop=stop,
                detail=detail,
            )
        return read_held(
            self._decode(row.tokens[row.answer_at :]),
            thought=self.marks.decode(row.tokens[: row.answer_at], self._tokenizer),
            tokens=count,
            prompt_tokens=prompt_tokens,
            ended=ended,
            stop=stop,
            detail=detail,
        )

    def _look_for_mark(self, row: SampleRow) -> None:
        recent = self.marks.decode(row.tokens[-LONGEST_MARK:], self._tokenizer)
        if not any(mark in recent or closing(mark) in recent for mark in OPENING_MARKS):
            return
        text = self.marks.decode(row.tokens, self._tokenizer)
        thought, row.thinking = row.thinking, not split_reasoning(row.opened + text).finished
        if row.thinking or not split_reasoning(row.opened + text).reasoning:
            return
        row.answer_at = len(row.tokens)
        if thought:
            self._hold(row)

    def _hold(self, row: SampleRow) -> None:
        """Hold a row to its grammar, if it has one, from here on."""
        if row.grammar is not None:
            row.matcher = row.grammar.fork()

    def _ends_of_marks(self) -> frozenset[int]:
        """Tokens that are a mark of thinking, or may be the last of several that spell one."""
        if self._mark_ends is None:
            template = str(self._tokenizer.chat_template)
            known = self._tokenizer.get_vocab()
            lasts = {">"} | {
                mark[-1] for mark in OPENING_MARKS if mark in known or mark in template
            }
            self._mark_ends = (
                frozenset(self.marks.opening)
                | self.marks.closing
                | {
                    token
                    for token, piece in enumerate(self._texts())
                    if any(last in piece for last in lasts)
                }
            )
        return self._mark_ends

    def _texts(self) -> list[str]:
        if self._pieces is None:
            size = len(self._tokenizer)
            self._pieces = self._tokenizer.batch_decode([[token] for token in range(size)])
        return self._pieces

    def _decode(self, tokens: Sequence[int]) -> str:
        return cast(str, self._tokenizer.decode(list(tokens), skip_special_tokens=True))
