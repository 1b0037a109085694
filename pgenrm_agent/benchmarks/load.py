"""What more samples and more callers cost on one engine, and what our way of asking it saves."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.demo import demo_data
from pgenrm_agent.engines.protocol import Engine, Prompt, SamplingParams
from pgenrm_agent.errors import ChainError
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.sampling import derive_seed, plan_chains
from pgenrm_agent.schema import PreferencePair, Scaling

__all__ = ["throughput_by_callers", "time_by_samples", "time_of_scheduling"]

CALLER_SAMPLES = 2
"""Samples an evaluation where callers are counted: both answer orders."""


async def time_by_samples(
    engine: Engine, chain_format: ChainFormat, sizes: Sequence[int], repeats: int
) -> dict[int, float]:
    """Median seconds of one engine call, by number of chains for one person and query.

    The sizes are measured in turn, so that what else the machine does falls on all of them.
    """
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for seed in range(repeats + 1):
        for size in sizes:
            seconds = await _seconds(engine, chain_format, [_prompts(chain_format, size, 0, seed)])
            if seed > 0:  # the first round warms up
                times[size].append(seconds)
    return {size: statistics.median(found) for size, found in times.items()}


async def throughput_by_callers(
    engine: Engine, chain_format: ChainFormat, callers: Sequence[int], memory: Path, repeats: int
) -> dict[int, float]:
    """Evaluations a second, by how many callers wait for one each, again and again.

    A caller asks for its next evaluation when it has the last one. Every caller asks `repeats`
    times; a single one at least eight times, since few evaluations vary much.
    """
    data = demo_data()
    person = data.people[0]
    answers = list(data.candidates.values())
    rates = {}
    async with PGenRM(engine=engine, memory=memory, chain_format=chain_format) as model:
        history = data.pairs(person)

        async def call(seeds: Sequence[int]) -> None:
            for seed in seeds:
                scaling = Scaling(individual=CALLER_SAMPLES, prototype=0, resamples=0, seed=seed)
                try:
                    await model.ascore(
                        person.id, data.query, answers, scaling=scaling, history=history
                    )
                except ChainError:
                    continue  # the time is spent whatever the model wrote

        await call([0])
        for count in callers:
            each = max(repeats, -(-8 // count))
            started = time.perf_counter()
            await asyncio.gather(
                *(call(range(1 + place * each, 1 + (place + 1) * each)) for place in range(count))
            )
            rates[count] = count * each / (time.perf_counter() - started)
    return rates


async def time_of_scheduling(
    engine: Engine, chain_format: ChainFormat, *, own: int, neighbors: int, repeats: int
) -> tuple[float, float]:
    """Median seconds for the same chains: ours, and one request a sample, one after another.

    Ours is one call with all prompts, and samples of one prompt share it. The other way is how
    reference research code asks: each sample on its own, the neighbors after the person.
    """
    ours, obvious = [], []
    for seed in range(repeats + 1):
        prompts = _prompts(chain_format, own, neighbors, seed)
        single = [
            [prompt.model_copy(update={"n": 1, "seed": derive_seed(prompt.seed, number)})]
            for prompt in prompts
            for number in range(prompt.n)
        ]
        together = await _seconds(engine, chain_format, [prompts])
        apart = await _seconds(engine, chain_format, single)
        if seed > 0:
            ours.append(together)
            obvious.append(apart)
    return statistics.median(ours), statistics.median(obvious)


async def _seconds(
    engine: Engine, chain_format: ChainFormat, calls: Sequence[Sequence[Prompt]]
) -> float:
    params = SamplingParams(max_tokens=chain_format.max_tokens, stop=chain_format.stop("scores"))
    started = time.perf_counter()
    for prompts in calls:
        await engine.sample(prompts, params)
    return time.perf_counter() - started


def _prompts(chain_format: ChainFormat, own: int, neighbors: int, seed: int) -> list[Prompt]:
    """What an evaluation with `own` chains and as many neighbors asks of the engine."""
    data = demo_data()
    answers = list(data.candidates.values())
    first, *others = data.people
    signals: dict[str, list[PreferencePair]] = {first.id: data.pairs(first)}
    for number in range(neighbors):
        # As many different people as are asked for: a neighbor's choices in another order.
        pairs = data.pairs(others[number % len(others)])
        turn = number // len(others) % len(pairs)
        signals[f"neighbor-{number}"] = pairs[turn:] + pairs[:turn]
    owners = [first.id] * own + list(signals)[1:]
    planned = plan_chains(
        owners, len(answers), seed=seed, max_candidates=chain_format.max_candidates
    )
    together: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for chain in planned:
        together.setdefault((chain.signals_of, chain.order), []).append(chain.seed)
    return [
        Prompt(
            messages=chain_format.messages(
                query=data.query,
                candidates=[answers[at] for at in order],
                history=signals[owner],
            ),
            n=len(seeds),
            seed=seeds[0],
        )
        for (owner, order), seeds in together.items()
    ]
