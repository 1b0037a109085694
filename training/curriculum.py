"""The hard-negative curriculum (paper 4.1.3): how hard each choice is for a model, and which comes when.

Hardness is measured with the model that the stage starts from, before it starts; a line for each choice
is kept, so that a run that was cut off measures only what is missing and follows the same schedule.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.protocol import Engine, SamplingParams
from pgenrm_agent.evaluation.datasets.rows import Example
from pgenrm_agent.fields import Model
from pgenrm_agent.jsonl import RecordLog
from pgenrm_agent.progress import counting
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.training.chain_dataset import choice_turn, prompt_of
from pgenrm_agent.training.recipe import GrpoRecipe
from pgenrm_agent.training.rewards import read_chain
from pgenrm_agent.training.run import is_main_process, own_device, process_number, processes

AT_ONCE = 64
"""Choices in one call of the engine, and so the most that a killed run measures again."""


class Hardness(Model):
    """Mean margin of the chosen answer of choice number `choice`; None where no chain was read."""

    choice: int
    margin: float | None


async def measure_hardness(
    engine: Engine,
    choices: Sequence[tuple[int, Example]],
    chain_format: ChainFormat,
    recipe: GrpoRecipe,
) -> list[float | None]:
    """Mean margin of the chosen answer over a few chains of the present model, by choice.

    None where no chain could be read. Both answer orders are sampled equally often.
    choices: each with its number among those of the run, which its chains are drawn from.
    """
    able = engine.capabilities
    turns = [
        (number, first, choice_turn(choice, chain_format, chosen_first=first, stated=False))
        for number, choice in choices
        for first in (True, False)
    ]
    prompts = [
        prompt_of(
            turn,
            able,
            n=-(-recipe.curriculum.chains // 2),
            seed=derive_seed(recipe.seed, "hardness", number, int(first)),
        )
        for number, first, turn in turns
    ]
    params = SamplingParams(
        temperature=recipe.temperature,
        max_tokens=recipe.max_tokens,
        stop=turns[0][2].stop,  # the same for every choice
    )
    answers = await engine.sample(prompts, params)
    hardness: list[float | None] = []
    for place in range(len(choices)):
        margins = []
        for first, completions in zip((True, False), answers[2 * place :], strict=False):
            for completion in completions:
                if completion.finish_reason == "length":
                    continue
                chain = read_chain(
                    chain_format.join("", completion.text, "scores"),
                    chosen_first=first,
                    asks_totals=chain_format.asks_totals,
                )
                if chain is not None:
                    margins.append(chain.totals["chosen"] - chain.totals["rejected"])
        hardness.append(sum(margins) / len(margins) if margins else None)
    return hardness


def measure_missing(
    recipe: GrpoRecipe,
    model: Path,
    choices: Sequence[Example],
    chain_format: ChainFormat,
    folder: Path,
) -> None:
    """This process's share of what nobody has measured yet, kept in `folder`/hardness-N.jsonl.

    The first process tells its progress on the error stream.
    """
    known = _known(folder)
    # By number: what others write meanwhile does not change whose a choice is.
    own = [
        (number, choice)
        for number, choice in enumerate(choices)
        if number not in known and number % processes() == process_number()
    ]
    if not own:
        return
    from pgenrm_agent.engines import load_engine

    async def measure(log: RecordLog[Hardness], tell: Callable[[int, int], None]) -> None:
        async with aclosing(load_engine("transformers", model, device=own_device())) as engine:
            tell(0, len(own))
            for start in range(0, len(own), AT_ONCE):
                some = own[start : start + AT_ONCE]
                margins = await measure_hardness(engine, some, chain_format, recipe)
                for (number, _), margin in zip(some, margins, strict=True):
                    log.append(Hardness(choice=number, margin=margin))
                tell(start + len(some), len(own))

    with (
        RecordLog(folder / f"hardness-{process_number()}.jsonl", Hardness) as log,
        counting("choices measured", shown=is_main_process()) as tell,
    ):
        asyncio.run(measure(log, tell))


def read_hardness(folder: Path, count: int) -> list[float | None]:
    """The margins of a run's choices, once all processes have measured theirs."""
    known = _known(folder)
    return [known[number] for number in range(count)]


def _known(folder: Path) -> dict[int, float | None]:
    known = {}
    for file in sorted(folder.glob("hardness-*.jsonl")):
        for line in file.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):  # else it was being written when the run was cut off
                measured = Hardness.model_validate_json(line)
                known[measured.choice] = measured.margin
    return known


def scheduled(margins: Sequence[float | None], recipe: GrpoRecipe) -> list[int]:
    """Which choice comes when, for the whole run: hard ones more and more often.

    Hard: a mean margin of at most `curriculum.margin`, a mistake included, or nothing readable.
    Within each kind every choice comes once before any comes again. With one kind alone, all are it.
    """
    plan = recipe.curriculum
    hard = [i for i, margin in enumerate(margins) if margin is None or margin <= plan.margin]
    easy = sorted(set(range(len(margins))) - set(hard))
    rng = random.Random(recipe.seed)
    queues = {True: _endless(hard or easy, rng), False: _endless(easy or hard, rng)}
    order = []
    for step in range(recipe.steps):
        share = plan.start + (plan.end - plan.start) * step / max(1, recipe.steps - 1)
        count = round(share * recipe.choices_per_step)
        kinds = [True] * count + [False] * (recipe.choices_per_step - count)
        rng.shuffle(kinds)
        order += [next(queues[kind]) for kind in kinds]
    return order


def _endless(items: Sequence[int], rng: random.Random) -> Iterator[int]:
    while True:
        yield from rng.sample(items, len(items))
