"""What a job will cost, estimated before it begins, and what it has cost, counted while it runs.

Nothing is sent to find out. Tokens that are read are estimated from the prompts that a sample of the
work would send: four bytes of UTF-8 a token (English; other scripts take more bytes a character),
and a few tokens around each message. What is written is taken to be a share of what the chains may
take, until enough of the work is done to go by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pgenrm_agent.errors import BudgetReached, ConfigurationError
from pgenrm_agent.fields import Model
from pgenrm_agent.schema import Prices, Usage

BYTES_PER_TOKEN = 4
TOKENS_AROUND_MESSAGE = 5
CHAIN_SHARE = 1 / 3
"""Of the tokens that a chain may take, how much it is taken to have."""
PERSONA_SHARE = 1 / 10
"""The same of a persona alone, whose limit is that of a chain."""
MEASURED_FROM = 8
"""Pieces of work that are done from which on what they took is taken of the others."""

Item = TypeVar("Item")


def tokens_in(texts: Iterable[str]) -> int:
    """Return about how many tokens a model reads in a prompt of these messages."""
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    return -(-sum(sizes) // BYTES_PER_TOKEN) + TOKENS_AROUND_MESSAGE * len(sizes)


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` of the items, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]


@dataclass
class Outline:
    """What some pieces of work would send.

    calls: engine calls. chains: texts that are begun. shared: tokens read where the samples of a
    prompt share one reading of it; unshared: where each sample reads it anew. limit: new tokens that
    the chains may take.
    """

    calls: int = 0
    chains: int = 0
    shared: int = 0
    unshared: int = 0
    limit: int = 0


@dataclass(frozen=True)
class Work:
    """What is left of one kind of work, and what is done.

    pieces: left. outline: what `outlined` of them would send. rounds: how often a chain may be
    sampled. share: of the limit, how much is taken to be written. done: pieces that earlier starts
    did, which took `spent`.
    """

    pieces: int
    outline: Outline
    outlined: int
    rounds: int = 1
    share: float = CHAIN_SHARE
    done: int = 0
    spent: Usage = field(default_factory=Usage)

    @property
    def is_measured(self) -> bool:
        """Whether enough was done to go by it."""
        return self.done >= MEASURED_FROM and self.spent.completion_tokens > 0

    @property
    def about(self) -> Usage:
        """What the pieces that are left are expected to take."""
        scale = self.pieces / self.outlined if self.outlined else 0.0
        read, written = self.outline.shared * scale, self.outline.limit * scale * self.share
        if self.is_measured:
            read = self.spent.prompt_tokens * self.pieces / self.done
            written = self.spent.completion_tokens * self.pieces / self.done
        return _usage(self.outline, scale, read, written)

    @property
    def at_most(self) -> Usage:
        """What they take where every chain is sampled as often, and is as long, as it may be."""
        scale = self.rounds * self.pieces / self.outlined if self.outlined else 0.0
        read, written = self.outline.unshared * scale, self.outline.limit * scale
        return _usage(self.outline, scale, read, written)


class Estimate(Model):
    """What a job would cost that is about to begin.

    Attributes:
        what: What the pieces of its work are.
        pieces: How many are left to do.
        left: The same of each kind of work.
        about: What they are expected to take.
        at_most: What they take where every chain is resampled and runs to its limit, and the engine
            reads a prompt anew for each of its samples.
        spent: What earlier starts of the job took.
        each: What a piece of each kind of work is expected to cost; empty without prices.
        assumptions: What "about" rests on.
    """

    what: str
    pieces: int
    left: dict[str, int]
    about: Usage
    at_most: Usage
    spent: Usage
    each: dict[str, float]
    assumptions: str

    def refuse_above(self, budget: float) -> None:
        """Refuse to begin a job that would cost more than `budget`.

        Raises:
            ConfigurationError: It would, what earlier starts spent included.
        """
        before, more = self.spent.cost or 0.0, self.about.cost or 0.0
        if self.pieces and before + more > budget:
            already = f" beside {in_words(before)} that is spent" if before else ""
            raise ConfigurationError(
                f"{self.pieces} {self.what} cost about {in_words(more)}{already}, and the budget is "
                f"{in_words(budget)}: raise it, or ask for less"
            )


def estimate_work(what: str, work: Mapping[str, Work], prices: Prices | None) -> Estimate:
    """Return what all kinds of work together would cost."""
    measured = [part for part in work.values() if part.is_measured]
    guessed = {part.share for part in work.values() if part.outline.limit and not part.is_measured}
    assumptions = [
        f"{BYTES_PER_TOKEN} bytes of a prompt are a token",
        *(
            f"a text takes 1/{round(1 / share)} of the tokens that it may take"
            for share in sorted(guessed)
        ),
    ]
    if measured:
        done = sum(part.done for part in measured)
        ending = f"{what} go on as the {done} that are done"
        assumptions = [ending] if not guessed else [*assumptions, ending]
    each = {
        kind: (_priced(part.about, prices).cost or 0.0) / max(1, part.pieces)
        for kind, part in work.items()
    }
    return Estimate(
        what=what,
        pieces=sum(part.pieces for part in work.values()),
        left={kind: part.pieces for kind, part in work.items()},
        about=_priced(_sum(part.about for part in work.values()), prices),
        at_most=_priced(_sum(part.at_most for part in work.values()), prices),
        spent=_priced(_sum(part.spent for part in work.values()), prices),
        each=each if prices else {},
        assumptions="; ".join(assumptions),
    )


def add_estimates(estimates: Sequence[Estimate], prices: Prices | None) -> Estimate:
    """Return what several jobs of one kind would cost together."""
    told = dict.fromkeys(estimate.assumptions for estimate in estimates if estimate.pieces)
    left: dict[str, int] = {}
    cost: dict[str, float] = {}
    for estimate in estimates:
        for kind, pieces in estimate.left.items():
            left[kind] = left.get(kind, 0) + pieces
            cost[kind] = cost.get(kind, 0.0) + pieces * estimate.each.get(kind, 0.0)
    return Estimate(
        what=estimates[0].what,
        pieces=sum(estimate.pieces for estimate in estimates),
        left=left,
        about=_priced(_sum(estimate.about for estimate in estimates), prices),
        at_most=_priced(_sum(estimate.at_most for estimate in estimates), prices),
        spent=_priced(_sum(estimate.spent for estimate in estimates), prices),
        each={kind: cost[kind] / max(1, left[kind]) for kind in cost} if prices else {},
        assumptions="; ".join(told) or estimates[0].assumptions,
    )


@dataclass
class _Account:
    """What one kind of work took so far: pieces done and begun, tokens read and written."""

    done: int = 0
    begun: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class CostLedger:
    """What a job has cost, and whether more of its work fits into its budget.

    A piece of work is taken to cost what those of its kind have cost so far, and before any is done
    what the estimate says.

    prices, budget: None for none. each: what a piece of each kind of work is expected to cost.
    """

    prices: Prices | None = None
    budget: float | None = None
    each: Mapping[str, float] = field(default_factory=dict)
    stopped: bool = False
    _accounts: dict[str, _Account] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.budget is not None and self.prices is None:
            raise ConfigurationError(
                f"a budget of {self.budget:g} needs prices, or nothing tells what is spent: give "
                "what a million tokens read and written cost"
            )

    @property
    def usage(self) -> Usage:
        """Everything that is recorded."""
        accounts = self._accounts.values()
        read = sum(account.prompt_tokens for account in accounts)
        written = sum(account.completion_tokens for account in accounts)
        return _priced(Usage(prompt_tokens=read, completion_tokens=written), self.prices)

    def begin(self, kind: str, pieces: int = 1) -> bool:
        """Return whether so many pieces may begin, beside those that are under way."""
        if self.prices is not None and self.budget is not None:
            ahead = sum(
                self._cost_of_piece(name) * account.begun
                for name, account in self._accounts.items()
            )
            expected = ahead + self._cost_of_piece(kind) * pieces
            if (self.usage.cost or 0.0) + expected > self.budget:
                self.stopped = True
                return False
        self._account(kind).begun += pieces
        return True

    def record(self, kind: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Note what a piece has taken, of this start or of an earlier one."""
        account = self._account(kind)
        account.begun = max(0, account.begun - 1)
        account.done += 1
        account.prompt_tokens += prompt_tokens
        account.completion_tokens += completion_tokens

    def set(self, kind: str, prompt_tokens: int, completion_tokens: int, *, pieces: int) -> None:
        """Note all that a kind of work has taken so far; nothing of it is under way."""
        self._accounts[kind] = _Account(pieces, 0, prompt_tokens, completion_tokens)

    def end(self, done: int, total: int, what: str) -> BudgetReached:
        """Return the error of a job that was stopped."""
        return BudgetReached(
            f"stopped at the budget of {in_words(self.budget or 0.0)}: {done} of {total} {what} are "
            f"done and kept, for {in_words(self.usage.cost or 0.0)}; start it again with a higher "
            "budget to go on"
        )

    def _account(self, kind: str) -> _Account:
        return self._accounts.setdefault(kind, _Account())

    def _cost_of_piece(self, kind: str) -> float:
        account = self._account(kind)
        if self.prices is None or not account.done:
            return self.each.get(kind, 0.0)
        return self.prices.cost(account.prompt_tokens, account.completion_tokens) / account.done


def in_words(money: float) -> str:
    """Return an amount of money in the currency of the prices, which is not known."""
    return f"{money:,.2f}" if money >= 1 or not money else f"{money:.2g}"


def _usage(outline: Outline, scale: float, read: float, written: float) -> Usage:
    return Usage(
        engine_calls=round(outline.calls * scale),
        prompt_tokens=round(read),
        completion_tokens=round(written),
        chains_sampled=round(outline.chains * scale),
    )


def _sum(parts: Iterable[Usage]) -> Usage:
    every = list(parts)
    return Usage(
        engine_calls=sum(part.engine_calls for part in every),
        prompt_tokens=sum(part.prompt_tokens for part in every),
        completion_tokens=sum(part.completion_tokens for part in every),
        chains_sampled=sum(part.chains_sampled for part in every),
    )


def _priced(usage: Usage, prices: Prices | None) -> Usage:
    cost = prices and prices.cost(usage.prompt_tokens, usage.completion_tokens)
    return usage.model_copy(update={"cost": cost})
