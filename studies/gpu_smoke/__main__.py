"""`python -m studies.gpu_smoke`: does the bundled model write on a GPU what it writes on a CPU?

One page of output in under two minutes, for any machine with a GPU. Needs torch, transformers, peft,
pydantic, jinja2 and xgrammar alone.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import torch

from studies.gpu_smoke.study import CHAINS, measure, page


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    arguments = argparse.ArgumentParser(prog="python -m studies.gpu_smoke", description=__doc__)
    arguments.add_argument("--device", help="cuda where there is one, else cpu, if not given")
    arguments.add_argument("--model", type=Path, help="folder; the bundled model if not given")
    arguments.add_argument("--chains", type=int, nargs="+", default=list(CHAINS))
    arguments.add_argument("--json", action="store_true", help="print JSON instead of a page")
    return arguments


def main() -> None:
    """Measure, and print."""
    asked = parser().parse_args()
    device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    report = asyncio.run(measure(device, model=asked.model, chains=asked.chains))
    print(report.model_dump_json(indent=2) if asked.json else page(report))


if __name__ == "__main__":
    main()
