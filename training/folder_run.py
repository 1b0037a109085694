"""What `python FOLDER/train.py` runs, of a folder that `token_folder` made."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from pgenrm_agent.errors import PGenRMError
from pgenrm_agent.training.checkpoint import unpacked
from pgenrm_agent.training.pretrained import train_pretrained
from pgenrm_agent.training.pretrained_plan import plan_pretrained
from pgenrm_agent.training.token_folder import BASE, recipe_in


def main(folder: Path, arguments: Sequence[str] | None = None) -> None:
    """Train from a folder, or say what that would take: what its train.py runs."""
    parser = argparse.ArgumentParser(prog="train.py", description="Trains from this folder.")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the run")
    parser.add_argument("--model", help="folder or .gguf file of the base; base/ if not given")
    parser.add_argument("--minutes", type=float, help="of training, instead of the recipe's")
    parser.add_argument("--dry-run", action="store_true", help="only say what it takes")
    asked = parser.parse_args(arguments)
    try:
        recipe = recipe_in(folder)
        start = recipe.start
        assert start is not None
        if asked.minutes is not None:
            start = start.model_copy(update={"minutes": asked.minutes})
            recipe = recipe.model_copy(update={"start": start})
        own = folder / BASE
        place = asked.model or (own if own.is_dir() else start.model)
        base = unpacked(place, folder / "unpacked")
        if asked.dry_run:
            told = plan_pretrained(recipe, folder, base)
        else:
            told = train_pretrained(recipe, folder, asked.out, model=base).record
    except PGenRMError as error:
        parser.error(str(error))
    print(json.dumps(told, indent=2))
