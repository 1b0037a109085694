"""Sampling many continuations of few prompts at once.

Each step runs the model on the tokens that rows have got since the step before: the one that was
drawn, and those that a grammar leaves no choice of, which nobody has to ask the model for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from pgenrm_agent.engines.attention import RowCache, read_prompts
from pgenrm_agent.engines.grammar import Grammars, TokenMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from xgrammar import GrammarMatcher

COMPACT_AT = 0.75
"""Finished rows leave the batch once fewer than this share of the rows is still being written."""
LEAST_NOISE = np.float32(2.0**-21)
"""Below numpy's smallest draw but 0."""


@dataclass(eq=False)
class Row:
    """One sample: the prompt it continues and what has been written so far.

    noise: the row's own random stream, from which only drawn tokens take, so that a sample does not
        depend on what else is in the batch.
    matcher: follows the grammar that the row is held to from its next token on; None leaves it free.
    may_think: whether the first token may be one of `SamplingRules.opening` in spite of the grammar,
        if that is what the model would write; it then becomes free, and `thinking`.
    ended: "stop" or "length"; empty as long as it is being written.
    end: the end token that was drawn, if one was; it is not among its tokens.
    drawn: how many tokens the model was asked for.
    """

    prompt: int
    noise: np.random.Generator
    limit: int
    tokens: list[int] = field(default_factory=list)
    matcher: GrammarMatcher | None = None
    may_think: bool = False
    thinking: bool = False
    ended: Literal["", "stop", "length"] = ""
    end: int | None = None
    drawn: int = 0


@dataclass(frozen=True)
class SamplingRules:
    """temperature 0 takes the likeliest token.

    suspects: true for tokens after which a row is looked at, as they may end a stop string.
    opening: tokens that begin a model's thinking.
    stops_here: called with a row whose newest token is a suspect; True ends the row. It may also set
        the row's matcher.
    grammars: knows what a matcher leaves no choice of; None asks the model for every token.
    """

    temperature: float
    top_p: float
    end_tokens: frozenset[int]
    suspects: np.ndarray | None = None
    opening: frozenset[int] = frozenset()
    stops_here: Callable[[Row], bool] = lambda row: False
    grammars: Grammars | None = None


@dataclass(frozen=True)
class Work:
    """What was done: steps of the model after it had read the prompts, and tokens drawn and written."""

    steps: int = 0
    drawn: int = 0
    written: int = 0

    def __add__(self, more: Work) -> Work:
        return Work(self.steps + more.steps, self.drawn + more.drawn, self.written + more.written)


def _choose(
    logits: torch.Tensor, rows: Sequence[Row], rules: SamplingRules, mask: TokenMask
) -> list[int]:
    """One token a row; logits (B, vocabulary). Logits that a grammar bans become -inf."""
    noise = None
    if rules.temperature > 0:
        drawn = np.empty(logits.shape, dtype=np.float32)
        for row, line in zip(rows, drawn, strict=True):
            row.noise.standard_exponential(dtype=np.float32, out=line)
        # Of 2 ** 23 draws in float32, one is 0. Its token would win, however unlikely it is.
        noise = torch.from_numpy(np.maximum(drawn, LEAST_NOISE, out=drawn)).to(logits.device).log_()
    free = _likeliest(logits, noise, rules) if any(row.may_think for row in rows) else None
    mask.apply(logits, [row.matcher for row in rows])
    chosen = _likeliest(logits, noise, rules)
    if free is not None:
        for place, row in enumerate(rows):
            if row.may_think and free[place] in rules.opening:
                chosen[place] = free[place]
                row.matcher, row.thinking = None, True
            row.may_think = False
    return chosen


def _likeliest(logits: torch.Tensor, noise: torch.Tensor | None, rules: SamplingRules) -> list[int]:
    """The token of highest logit, or the one that noise (its logarithm) lets win.

    Gumbel-max: exponential noise a token, the highest chance-to-noise ratio wins. A change in the
    last bits of a logit then matters only where two ratios are equal to those bits, while in
    inverse transform sampling it would shift every later boundary.
    """
    scores = logits.float()
    if noise is not None:
        scores = scores / rules.temperature
        if rules.top_p < 1:
            ordered, order = torch.softmax(scores, dim=-1).sort(dim=-1, descending=True)
            beyond = ordered.cumsum(-1) - ordered >= rules.top_p
            scores = scores.masked_fill(
                torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf")
            )
        scores = scores - noise
    if scores.device.type == "cpu":  # numpy takes a twentieth of torch's time
        return [int(token) for token in scores.numpy().argmax(-1)]
    return [int(token) for token in scores.argmax(-1).tolist()]


class _Writer:
    """Puts tokens at the ends of rows, and sees when a row ends."""

    def __init__(self, prompts: Sequence[Sequence[int]], rules: SamplingRules) -> None:
        self._prompts = prompts
        self._rules = rules

    def begin(self, row: Row) -> Sequence[int]:
        """Return the tokens that a row's grammar begins with."""
        return () if row.may_think else self._forced(row)

    def draw(self, row: Row, token: int) -> Sequence[int]:
        """Return the tokens that a row has got, from the one that was drawn; none if it has ended."""
        row.drawn += 1
        if token in self._rules.end_tokens:
            row.ended, row.end = "stop", token
            return ()
        if row.matcher is not None and not row.matcher.accept_token(token):
            raise RuntimeError(f"token {token} left its grammar")
        self._append(row, token)
        if row.ended:
            return ()
        forced = self._forced(row)
        return () if row.ended else (token, *forced)

    def _forced(self, row: Row) -> Sequence[int]:
        """Append what a row's grammar leaves no choice of."""
        if row.matcher is None:
            return ()
        forced: list[int] = []
        grammars, complete = self._rules.grammars, row.matcher.is_terminated()
        if grammars is not None and not complete:
            known = [*self._prompts[row.prompt][-grammars.context :], *row.tokens]
            forced, complete = grammars.jump(row.matcher, known[-grammars.context :])
        for token in forced:
            self._append(row, token)
            if row.ended:
                break
        if complete and not row.ended:
            row.ended = "stop"
        return forced

    def _append(self, row: Row, token: int) -> None:
        row.tokens.append(token)
        suspects = self._rules.suspects
        if suspects is not None and suspects[token] and self._rules.stops_here(row):
            row.ended = "stop"
        elif len(row.tokens) >= row.limit:
            row.ended = "length"


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    rules: SamplingRules,
) -> Work:
    """Write every row's tokens in place. prompts: token ids; no prompt twice."""
    caches, first = read_prompts(model, prompts)
    cache = RowCache(model, caches, [row.prompt for row in rows])
    del caches
    writer, mask, steps = _Writer(prompts, rules), TokenMask(), 0
    active = list(rows)
    unread = [writer.begin(row) for row in active]
    writing = [place for place, row in enumerate(active) if not row.ended]
    logits = first[[active[place].prompt for place in writing]]
    begun = [place for place in writing if unread[place]]
    if begun:
        after = cache.feed(begun, [unread[place] for place in begun])
        logits[[writing.index(place) for place in begun]] = after
        steps += 1
    while writing:
        chosen = _choose(logits, [active[place] for place in writing], rules, mask)
        news = [
            writer.draw(active[place], token) for place, token in zip(writing, chosen, strict=True)
        ]
        going = [(place, new) for place, new in zip(writing, news, strict=True) if new]
        writing = [place for place, _ in going]
        if not writing:
            break
        if len(writing) < COMPACT_AT * len(active):
            cache.keep(writing)
            active = [active[place] for place in writing]
            writing = list(range(len(active)))
        logits = cache.feed(writing, [new for _, new in going])
        steps += 1
    return Work(steps, sum(row.drawn for row in rows), sum(len(row.tokens) for row in rows))
