"""How often a model's chains favor what people chose, measured where the model is: on its device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from pgenrm_agent.chain import ChainFormat, parse_chain
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ChainError
from pgenrm_agent.evaluation.metrics import Accuracy, credit
from pgenrm_agent.fields import Model
from pgenrm_agent.training.choices import HeldOut

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

ORDERS = (True, False)
"""Whether the chosen answer is shown first: each choice is asked about both ways."""


class ChoiceReport(Model):
    """What came of it. accuracy: by dataset, of the choices that there was time for.

    choices, chains: of those; readable: which share of the chains could be read.
    """

    accuracy: dict[str, Accuracy]
    choices: int
    chains: int
    readable: float
    seconds: float


def measure_choices(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    chain_format: ChainFormat,
    asked: Sequence[HeldOut],
    *,
    seconds: float,
    together: int,
) -> ChoiceReport:
    """Write a chain for each choice and order at temperature 0, and count.

    model: as it is left by this, with the attention of the engine.
    seconds: of all together; choices with a chain that is not whole by then are left out. together:
        choices of a group; those about the same texts stand side by side in it, so that what their
        prompts begin with is read once.
    """
    started = time.monotonic()
    engine = TransformersEngine(
        model, tokenizer=tokenizer, device=str(model.device), max_batch=2 * together
    )
    credits: dict[str, list[tuple[float, str]]] = {}
    readable = written = choices = 0
    asked = list(asked)

    async def run() -> None:
        nonlocal readable, written, choices
        async with aclosing(engine):
            for begin in range(0, len(asked), together):
                left = started + seconds - time.monotonic()
                if left <= 0:
                    break
                group = asked[begin : begin + together]
                completions = await _written(engine, chain_format, group, left)
                for number, choice in enumerate(group):
                    both = completions[2 * number : 2 * number + 2]
                    if any(completion.finish_reason == "timeout" for completion in both):
                        continue
                    choices += 1
                    written += len(both)
                    margins = [
                        margin
                        for completion, first in zip(both, ORDERS, strict=True)
                        if (margin := _margin(completion, chain_format, first)) is not None
                    ]
                    readable += len(margins)
                    mean = sum(margins) / len(margins) if margins else None
                    right = credit(mean, None if mean is None else 0.0)
                    credits.setdefault(choice.source, []).append((right, choice.user_id))

    asyncio.run(run())
    return ChoiceReport(
        accuracy={
            source: Accuracy.of(
                [right for right, _ in counted], clusters=[user for _, user in counted]
            )
            for source, counted in credits.items()
        },
        choices=choices,
        chains=written,
        readable=readable / written if written else 0.0,
        seconds=time.monotonic() - started,
    )


async def _written(
    engine: TransformersEngine, chain_format: ChainFormat, group: Sequence[HeldOut], left: float
) -> list[Completion]:
    turns = [choice.turn(chain_format, chosen_first=first) for choice in group for first in ORDERS]
    params = SamplingParams(
        temperature=0, max_tokens=chain_format.max_tokens(2), stop=turns[0].stop, timeout_s=left
    )
    prompts = [
        Prompt(messages=turn.messages, partial=turn.partial, grammar=turn.grammar) for turn in turns
    ]
    return [completion for (completion,) in await engine.sample(prompts, params)]


def _margin(completion: Completion, chain_format: ChainFormat, chosen_first: bool) -> float | None:
    """By how much the chosen answer's total is above the other's; None for what cannot be read."""
    if completion.finish_reason != "stop":
        return None
    ids = ("chosen", "rejected") if chosen_first else ("rejected", "chosen")
    try:
        parsed = parse_chain(completion.text, ids, asks_totals=chain_format.asks_totals)
    except ChainError:
        return None
    if parsed.missing or parsed.incomplete is not None:
        return None
    return parsed.totals["chosen"] - parsed.totals["rejected"]
