"""What more samples and more callers cost on an engine."""

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
from pgenrm_agent.sampling import plan_chains
from pgenrm_agent.schema import PreferencePair, Scaling, UserSignals

CALLER_SAMPLES = 2
"""Samples an evaluation where callers are counted: both answer orders."""


async def time_by_samples(
    engine: Engine, chain_format: ChainFormat, sizes: Sequence[int], repeats: int
) -> dict[int, float]:
    """Return median seconds of an engine call, by number of chains for a user and query.

    The sizes are measured in turn, so that what else the machine does falls on all of them.
    """
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for seed in range(repeats + 1):
        for size in sizes:
            prompts = evaluation_prompts(chain_format, size, 0, seed)
            seconds = await seconds_of_calls(engine, chain_format, [prompts])
            if seed > 0:  # the first round warms up
                times[size].append(seconds)
    return {size: statistics.median(seconds) for size, seconds in times.items()}


async def throughput_by_callers(
    engine: Engine, chain_format: ChainFormat, callers: Sequence[int], memory: Path, repeats: int
) -> dict[int, float]:
    """Return evaluations a second, by how many callers wait for one each, again and again.

    A caller asks for its next evaluation when it has the last one. Every caller asks `repeats`
    times; a single one at least eight times, since few evaluations vary much.
    """
    data = demo_data()
    user = data.users[0]
    answers = list(data.candidates.values())
    rates = {}
    async with PGenRM(engine=engine, memory=memory, chain_format=chain_format) as model:
        signals = UserSignals(user_id=user.id, history=tuple(data.pairs(user)))

        async def call(seeds: Sequence[int]) -> None:
            for seed in seeds:
                scaling = Scaling(individual=CALLER_SAMPLES, prototype=0, resamples=0, seed=seed)
                try:
                    await model.ascore(
                        user.id, data.query, answers, scaling=scaling, signals=signals
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


async def seconds_of_calls(
    engine: Engine, chain_format: ChainFormat, calls: Sequence[Sequence[Prompt]]
) -> float:
    """Return how long engine calls take, one after another."""
    params = SamplingParams(max_tokens=chain_format.max_tokens(candidates=2))
    started = time.perf_counter()
    for prompts in calls:
        await engine.sample(prompts, params)
    return time.perf_counter() - started


def evaluation_prompts(
    chain_format: ChainFormat, own: int, neighbors: int, seed: int
) -> list[Prompt]:
    """Return what an evaluation with `own` chains and as many neighbors' asks of the engine."""
    data = demo_data()
    answers = list(data.candidates.values())
    first, *others = data.users
    signals: dict[str, list[PreferencePair]] = {first.id: data.pairs(first)}
    for number in range(neighbors):
        # As many different users as are asked for: a neighbor's choices in another order.
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
                query=data.query, candidates=[answers[at] for at in order], history=signals[owner]
            ),
            n=len(seeds),
            seed=seeds[0],
        )
        for (owner, order), seeds in together.items()
    ]
