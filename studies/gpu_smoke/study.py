"""The bundled model on this machine's GPU beside its CPU: the same texts, and time and memory by chains.

Nothing of LangGraph or Chroma is needed: the engine and the chain format alone do the work.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from importlib import resources
from itertools import permutations
from pathlib import Path

import torch

from pgenrm_agent.chain import ChainFormat, parse_chain
from pgenrm_agent.chain.layout import Turn
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ChainError
from pgenrm_agent.fields import Model
from pgenrm_agent.machine import describe_machine
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.schema import PreferencePair

CHAINS = (1, 8, 24, 256)
OF_A_PROMPT = 8
"""Chains of a prompt, where there are so many: an evaluation has as many."""
SAME = 24
"""Prompts whose texts are compared."""


class Sameness(Model):
    """How many texts of the device are the CPU's, at temperature 0, in a precision of the device."""

    dtype: str
    same: int
    prompts: int


class Row(Model):
    """So many chains at once: seconds, tokens written, peak memory, and how many could be read."""

    chains: int
    seconds: float
    tokens: int
    memory_mib: float
    readable: int


class Report(Model):
    """What was measured. left_out: what there was no time for."""

    machine: str
    device: str
    torch: str
    model: str
    sameness: tuple[Sameness, ...]
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]
    seconds: float


async def measure(
    device: str,
    *,
    model: Path | None = None,
    chains: Sequence[int] = CHAINS,
    same: int = SAME,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    within_s: float = 110.0,
) -> Report:
    """Compare texts and take times; what is not begun within `within_s` seconds is left out."""
    started = time.perf_counter()
    folder = model or bundled_model()
    chain_format = format_of(folder)
    turns = list(_turns(chain_format))
    left_out = []

    def over(what: str) -> bool:
        if time.perf_counter() - started < within_s:
            return False
        left_out.append(what)
        return True

    greedy = _params(chain_format, temperature=0)
    prompts = [_prompt(turn, n=1) for turn in turns[:same]]
    async with aclosing(TransformersEngine(folder, device="cpu", dtype="float32")) as engine:
        expected = [texts for (texts,) in await engine.sample(prompts, greedy)]
    sameness, rows = [], []
    for dtype in dtypes:
        if over(f"texts in {dtype}"):
            continue
        async with aclosing(_on(device, folder, dtype)) as engine:
            written = [texts for (texts,) in await engine.sample(prompts, greedy)]
        pairs = zip(expected, written, strict=True)
        equal = sum(before.text == after.text for before, after in pairs)
        sameness.append(Sameness(dtype=dtype, same=equal, prompts=len(prompts)))
    async with aclosing(_on(device, folder, dtypes[-1])) as engine:
        warm = SamplingParams(temperature=0, max_tokens=8)
        await engine.sample(prompts[:1], warm)
        for count in chains:
            if not over(f"{count} chains"):
                rows.append(await _timed(engine, chain_format, turns, count))
    return Report(
        machine=describe_machine(),
        device=device,
        torch=torch.__version__,
        model=folder.name,
        sameness=tuple(sameness),
        rows=tuple(rows),
        left_out=tuple(left_out),
        seconds=time.perf_counter() - started,
    )


def page(report: Report) -> str:
    """Return the report as a page of text."""
    lines = [
        f"{report.model} on {report.device} ({report.machine}, torch {report.torch})",
        "",
        "texts at temperature 0 that are the CPU's, to the letter",
        *(f"  {part.dtype:9} {part.same:3} of {part.prompts}" for part in report.sameness),
        "",
        f"{'chains':>8} {'seconds':>9} {'tokens':>8} {'tokens/s':>9} {'MiB':>7} {'readable':>9}",
        *(
            f"{row.chains:8} {row.seconds:9.2f} {row.tokens:8} {row.tokens / row.seconds:9.0f}"
            f" {row.memory_mib:7.0f} {row.readable:9}"
            for row in report.rows
        ),
        "",
        f"{report.seconds:.0f} s in all"
        + (f"; no time was left for: {', '.join(report.left_out)}" if report.left_out else ""),
    ]
    return "\n".join(lines)


def _on(device: str, folder: Path, dtype: str) -> TransformersEngine:
    return TransformersEngine(folder, device=device, dtype=dtype, max_batch=max(CHAINS))


def _turns(chain_format: ChainFormat) -> Iterator[Turn]:
    """What to ask for: the users of the demonstration with none to three choices, in all orders."""
    data = json.loads((resources.files("pgenrm_agent") / "demo.json").read_text(encoding="utf-8"))
    texts = list(data["candidates"].values())
    for order in permutations(range(len(texts))):
        for user in data["users"]:
            pairs = [
                PreferencePair(
                    query=data["answers"][name]["query"],
                    chosen=data["answers"][name][chosen],
                    rejected=data["answers"][name][rejected],
                )
                for name, chosen, rejected in user["choices"]
            ]
            for shown in range(4):
                yield chain_format.turn(
                    "scores",
                    query=data["query"],
                    candidates=[texts[place] for place in order],
                    history=pairs[:shown],
                )


def _prompt(turn: Turn, *, n: int, seed: int = 0) -> Prompt:
    return Prompt(
        messages=turn.messages,
        partial=turn.partial,
        json_schema=turn.json_schema,
        grammar=turn.grammar,
        n=n,
        seed=seed,
    )


def _params(chain_format: ChainFormat, *, temperature: float) -> SamplingParams:
    return SamplingParams(temperature=temperature, max_tokens=chain_format.max_tokens(3))


async def _timed(
    engine: TransformersEngine, chain_format: ChainFormat, turns: Sequence[Turn], count: int
) -> Row:
    of_each = min(OF_A_PROMPT, count)
    wanted = range(count // of_each)
    prompts = [_prompt(turns[number % len(turns)], n=of_each, seed=number) for number in wanted]
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    written = await engine.sample(prompts, _params(chain_format, temperature=1))
    seconds = time.perf_counter() - started
    every = [completion for samples in written for completion in samples]
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    return Row(
        chains=len(every),
        seconds=seconds,
        tokens=sum(completion.tokens for completion in every),
        memory_mib=peak,
        readable=sum(_readable(completion, chain_format) for completion in every),
    )


def _readable(completion: Completion, chain_format: ChainFormat) -> bool:
    try:
        parsed = parse_chain(completion.text, ("a", "b", "c"), asks_totals=chain_format.asks_totals)
    except ChainError:
        return False
    return parsed.incomplete is None
