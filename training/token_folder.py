"""One folder to take along to a machine with a GPU: all that a run from a checkpoint needs.

    tokens.npz.xz   what is learned from, and what reading is measured on
    choices.jsonl   people's choices, held out, to ask about
    about.json      the recipe, and what it was all made of
    base/           the checkpoint, in parts, where it is a single file
    code/           the package, without its models
    train.py        `python FOLDER/train.py --out OUT`

The machine needs torch, transformers, accelerate, peft, jinja2, pydantic, xgrammar, scipy, matplotlib and
PyYAML, and gguf for a base of that kind. Nothing has to be installed from here, or fetched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow
from pgenrm_agent.files import write_json, write_text
from pgenrm_agent.training.bundled.simulation import load_answers
from pgenrm_agent.training.checkpoint import unpacked
from pgenrm_agent.training.choices import HeldOut, held_out, write_held_out
from pgenrm_agent.training.parts import split_file
from pgenrm_agent.training.recipe import PsiRecipe
from pgenrm_agent.training.token_file import (
    GROUPS,
    MADE_BY,
    TOKENS,
    Source,
    tokenizer_digest,
    write_token_file,
)

CHOICES = "choices.jsonl"
ABOUT = "about.json"
BASE = "base"
BASE_PART = 50_000_000
HELD_OUT_HISTORY = 3
LEFT_OUT = ("models", "__pycache__", "static", "*.pyc")
ENTRY = '''"""Trains from this folder: python train.py --out OUT; --help tells more."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "code"))

from pgenrm_agent.training.folder_run import main  # noqa: E402

main(HERE)
'''


def make_folder(
    recipe: PsiRecipe,
    data: Path,
    datasets: Mapping[str, Sequence[PreferenceRow]],
    out: Path,
    *,
    model: str | Path | None = None,
    choices: int = 250,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Make the folder for a recipe with a `start`, and return what `about.json` says.

    Args:
        recipe: with a `start`.
        data: the folder with train.jsonl.gz and val.jsonl.gz; held-out texts are from the second.
        datasets: real people's choices by name: "train" rows to learn from, "test" rows to ask about.
        out: where to; what is there of an unfinished folder is used.
        model: the checkpoint: its folder, or a .gguf file, which then goes along in parts; what the
            recipe names if not given.
        choices: held-out choices of each dataset.
        processes: that make examples; as many as there are cores if not given.
        progress: told how many tokens there are, of how many.

    Raises ConfigurationError for a recipe without a `start`, data that cannot be read, or an unfinished
    folder that was begun with something else.
    """
    if recipe.start is None:
        raise ConfigurationError(f"recipe {recipe.name} has no start: it makes its data as it runs")
    place = model or recipe.start.model
    out.mkdir(parents=True, exist_ok=True)
    base = unpacked(place, out.with_name(f"{out.name}-base"))
    tokenizer = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(base))
    chain_format = ChainFormat.load(recipe.chain_format)
    rows = [row for several in datasets.values() for row in several]
    source = Source(load_answers(data / "train.jsonl.gz"), chain_format, tokenizer, rows)
    file = write_token_file(
        recipe,
        source,
        load_answers(data / "val.jsonl.gz"),
        out,
        processes=processes,
        progress=progress,
    )
    asked = [
        choice
        for name, several in datasets.items()
        for choice in held_out(
            name, several, choices=choices, history=HELD_OUT_HISTORY, seed=recipe.seed
        )
    ]
    # One of each in turn, so that the first few, or those that there is time for, are of every dataset.
    in_turn = sorted(_numbered(asked), key=lambda numbered: numbered[0])
    write_held_out(out / CHOICES, [choice for _, choice in in_turn])
    if Path(place).suffix == ".gguf":
        split_file(Path(place), BASE_PART, out / BASE)
    shutil.rmtree(out / "code", ignore_errors=True)
    with resources.as_file(resources.files("pgenrm_agent")) as package:
        shutil.copytree(
            package, out / "code" / "pgenrm_agent", ignore=shutil.ignore_patterns(*LEFT_OUT)
        )
    write_text(out / "train.py", ENTRY)
    about = {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "format": chain_format.digest,
        "tokenizer": tokenizer_digest(tokenizer),
        "tokens": file.tokens(),
        "examples": [len(phase) for phase in file.phases],
        "held_out_examples": len(file.held_out),
        "choices": {name: sum(c.source == name for c in asked) for name in datasets},
        "bytes": sum(
            path.stat().st_size
            for path in out.rglob("*")
            if path.is_file() and path.parent not in (out / BASE, out / GROUPS)
        ),
    }
    write_json(out / ABOUT, about)
    shutil.rmtree(out / GROUPS)
    return about


def _numbered(choices: Sequence[HeldOut]) -> list[tuple[int, HeldOut]]:
    """Each choice with how many of its dataset stand before it."""
    before: dict[str, int] = {}
    numbered = []
    for choice in choices:
        numbered.append((before.setdefault(choice.source, 0), choice))
        before[choice.source] += 1
    return numbered


def recipe_in(folder: Path) -> PsiRecipe:
    """Return the recipe that a folder was made for.

    Raises ConfigurationError for a folder that is none of `make_folder`, or is not finished.
    """
    return PsiRecipe.model_validate(_about(folder)["recipe"])


def refuse_other_data(
    folder: Path, recipe: PsiRecipe, chain_format: ChainFormat, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Raises ConfigurationError for a folder that was made for something else, saying for what."""
    about = _about(folder)
    asked = recipe.model_dump(mode="json")
    assert recipe.start is not None
    wanted = {
        "tokenizer": tokenizer_digest(tokenizer),
        "format": chain_format.digest,
        "start.context": recipe.start.context,
        **{name: asked[name] for name in MADE_BY},
    }
    there = {
        "tokenizer": about["tokenizer"],
        "format": about["format"],
        "start.context": about["recipe"]["start"]["context"],
        **{name: about["recipe"][name] for name in MADE_BY},
    }
    for name, value in wanted.items():
        if there[name] != value:
            raise ConfigurationError(
                f"{folder} was made with {name} = {there[name]!r}, and {value!r} is asked for: make"
                " it anew with pgenrm train tokens"
            )


def _about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    if not path.is_file():
        raise ConfigurationError(
            f"{folder} holds no {ABOUT} beside {TOKENS}: make the folder with pgenrm train tokens"
        )
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return about
