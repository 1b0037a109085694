"""What a job will cost, told before it begins; and the budget that it keeps to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pgenrm_agent.cli.output import print_json

if TYPE_CHECKING:
    from pgenrm_agent.costs import CostLedger, Estimate
    from pgenrm_agent.schema import Prices, Usage


def prices_of(prices: str | None, budget: float | None = None) -> Prices | None:
    """Return the prices that `--prices` names, without which there is no `--budget`."""
    from pgenrm_agent.schema import Prices
    from pgenrm_agent.settings import parse_prices

    if prices is None:
        if budget is not None:
            raise typer.BadParameter(
                f"--budget {budget:g} needs --prices PROMPT,COMPLETION, or nothing tells what is spent"
            )
        return None
    try:
        prompt, completion = parse_prices(prices)
    except ValueError as error:
        raise typer.BadParameter(f"--prices {error}") from None
    return Prices(prompt=prompt, completion=completion)


def open_ledger(estimate: Estimate, prices: Prices | None, budget: float | None) -> CostLedger:
    """Tell on standard error what a job will cost, and return what counts it.

    Raises ConfigurationError for a job that costs more than its budget.
    """
    from pgenrm_agent.costs import CostLedger

    ledger = CostLedger(prices, budget, estimate.each)
    if estimate.pieces:
        for line in _lines(estimate):
            typer.echo(line, err=True)
    if budget is not None:
        estimate.refuse_above(budget)
    return ledger


def print_estimate(estimate: Estimate, *, as_json: bool) -> None:
    """Print what a job would cost, for `--dry-run`."""
    if as_json:
        print_json({"estimate": estimate})
        return
    for line in _lines(estimate):
        typer.echo(line)


def cost_line(usage: Usage) -> str | None:
    """Return what something cost, in a line; None where no prices are known."""
    from pgenrm_agent.costs import in_words

    if usage.cost is None:
        return None
    model = f" by {usage.model}" if usage.model else ""
    return (
        f"cost {in_words(usage.cost)}: {usage.prompt_tokens:,} tokens read, "
        f"{usage.completion_tokens:,} written{model}"
    )


def _lines(estimate: Estimate) -> list[str]:
    spent = cost_line(estimate.spent)
    if not estimate.at_most.engine_calls:
        return [f"{estimate.pieces:,} {estimate.what} to do, none by a model"]
    return [
        f"{estimate.pieces:,} {estimate.what} to do",
        f"about    {_amount(estimate.about)} ({estimate.assumptions})",
        f"at most  {_amount(estimate.at_most)}",
        *([f"so far   {spent}"] if spent and estimate.spent.completion_tokens else []),
    ]


def _amount(usage: Usage) -> str:
    from pgenrm_agent.costs import in_words

    cost = "" if usage.cost is None else f", cost {in_words(usage.cost)}"
    return (
        f"{usage.engine_calls:,} engine calls, {usage.prompt_tokens:,} tokens read, "
        f"{usage.completion_tokens:,} written{cost}"
    )
