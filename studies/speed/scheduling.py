"""What our way of asking an engine saves against one request a sample."""

from __future__ import annotations

import statistics

from pgenrm_agent.benchmarks.load import evaluation_prompts, seconds_of_calls
from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.sampling import derive_seed


async def time_of_scheduling(
    engine: Engine, chain_format: ChainFormat, *, own: int, neighbors: int, repeats: int
) -> tuple[float, float]:
    """Return median seconds for the same chains: ours, and one request a sample, one after another.

    Ours is one call with all prompts, and samples of one prompt share it. The other way is how
    reference research code asks: each sample on its own, the neighbors' after the user's.
    """
    ours, obvious = [], []
    for seed in range(repeats + 1):
        prompts = evaluation_prompts(chain_format, own, neighbors, seed)
        single = [
            [prompt.model_copy(update={"n": 1, "seed": derive_seed(prompt.seed, number)})]
            for prompt in prompts
            for number in range(prompt.n)
        ]
        together = await seconds_of_calls(engine, chain_format, [prompts])
        apart = await seconds_of_calls(engine, chain_format, single)
        if seed > 0:
            ours.append(together)
            obvious.append(apart)
    return statistics.median(ours), statistics.median(obvious)
