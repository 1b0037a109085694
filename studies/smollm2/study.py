"""Chains of SmolLM2-135M, whole and in three turns: how many can be read, and why others cannot.

What so small a model writes means nothing; that it has the form does.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Literal

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import ChainError
from pgenrm_agent.fields import Model
from pgenrm_agent.jsonl import RecordLog
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, PreferencePair, Scaling, UserSignals

EngineName = Literal["transformers", "vllm"]
Way = Literal["whole", "staged"]
WAYS: tuple[Way, ...] = ("whole", "staged")
RECORDS = "records.jsonl"
LENGTHS = {"persona": 40, "name": 14, "reason": 16, "why": 20}
"""Characters of the chain's texts: the model fills every string that it is given."""
SIGNALS = UserSignals(
    user_id="ada",
    history=(
        PreferencePair(
            query="How do I cook rice?",
            chosen="- Rinse it.\n- Boil it.",
            rejected="Rice is such a joy, and my grandmother could talk about it all day.",
        ),
    ),
)
QUERY = "How do I keep basil alive?"
ANSWERS = ("- Water it.\n- Give it light.", "Basil is a tender annual that rewards patience.")


class Batch(Model):
    """Chains that were sampled together. reasons: how many could not be read, by reason."""

    engine: EngineName
    way: Way
    first: int
    chains: int
    valid: int
    reasons: dict[str, int]
    tokens: int
    seconds: float


class Row(Model):
    """What came of one way with one engine."""

    engine: EngineName
    way: Way
    chains: int
    valid: int
    reasons: dict[str, int]
    tokens: int
    seconds: float


def short_format(folder: Path) -> ChainFormat:
    """Return the format of any judge with shorter texts. folder: where it is written, if it is not yet."""
    with resources.as_file(
        resources.files("pgenrm_agent.chain") / "formats" / "structured-1"
    ) as shipped:
        shutil.copytree(shipped, folder, dirs_exist_ok=True)
    file = folder / "format.json"
    settings = json.loads(file.read_text()) | {"name": "structured-short", "lengths": LENGTHS}
    file.write_text(json.dumps(settings))
    return ChainFormat.load(folder)


async def score_chains(
    engine: Engine, chain_format: ChainFormat, *, way: Way, chains: int, seed: int
) -> Evaluation:
    """Score the two answers with so many chains, none of which is sampled again."""
    scaling = Scaling(individual=chains, prototype=0, resamples=0, seed=seed)
    staged = way == "staged"
    async with PGenRM(
        engine=engine, chain_format=chain_format, scaling=scaling, staged=staged
    ) as rm:
        return await rm.ascore(SIGNALS.user_id, QUERY, ANSWERS, signals=SIGNALS)


async def measure(
    name: EngineName,
    engine: Engine,
    chain_format: ChainFormat,
    out: Path,
    *,
    chains: int,
    together: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Sample what is missing of `chains` chains a way, and keep each batch as it comes."""
    with RecordLog(out / RECORDS, Batch) as log:
        for way in WAYS:
            done = sum(b.chains for b in log.records if (b.engine, b.way) == (name, way))
            while done < chains:
                progress(done + WAYS.index(way) * chains, len(WAYS) * chains)
                count = min(together, chains - done)
                log.append(await _batch(name, engine, chain_format, way, first=done, count=count))
                done += count


async def _batch(
    name: EngineName,
    engine: Engine,
    chain_format: ChainFormat,
    way: Way,
    *,
    first: int,
    count: int,
) -> Batch:
    started = time.perf_counter()
    reasons: Counter[str] = Counter()
    tokens = 0
    try:
        evaluation = await score_chains(engine, chain_format, way=way, chains=count, seed=first)
    except ChainError as error:
        reasons.update(error.failures)
    else:
        reasons.update(failure.reason for failure in evaluation.failures)
        tokens = evaluation.usage.completion_tokens
    return Batch(
        engine=name,
        way=way,
        first=first,
        chains=count,
        valid=count - reasons.total(),
        reasons=dict(reasons),
        tokens=tokens,
        seconds=time.perf_counter() - started,
    )


def rows_of(batches: Iterable[Batch]) -> list[Row]:
    """Return a row for each engine and way that something was sampled for."""
    together: dict[tuple[EngineName, Way], list[Batch]] = {}
    for batch in batches:
        together.setdefault((batch.engine, batch.way), []).append(batch)
    return [
        Row(
            engine=engine,
            way=way,
            chains=sum(batch.chains for batch in some),
            valid=sum(batch.valid for batch in some),
            reasons=dict(sum((Counter(batch.reasons) for batch in some), Counter())),
            tokens=sum(batch.tokens for batch in some),
            seconds=sum(batch.seconds for batch in some),
        )
        for (engine, way), some in together.items()
    ]
