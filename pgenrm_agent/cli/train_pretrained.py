"""`pgenrm train tokens` and `pgenrm train join`: what a run from a checkpoint takes, and what it brings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgenrm_agent.cli.options import AnswersOption, JsonOption, RecipeOption
from pgenrm_agent.cli.output import print_summary


def tokens(
    *,
    data: AnswersOption,
    out: Annotated[
        Path, typer.Option(help="Folder to take along; an unfinished one is gone on with.")
    ],
    recipe: RecipeOption = "smollm2-gpu",
    choices: Annotated[
        list[str] | None,
        typer.Option(help="Real people's choices, such as people:FILE; repeat for several."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The checkpoint: its folder, or a .gguf file, which goes along in parts. What the"
            " recipe names if not given."
        ),
    ] = None,
    held_out: Annotated[
        int, typer.Option(min=1, help="Choices of each dataset to ask about in the end.")
    ] = 250,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many make examples; one a core if not given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the folder that a recipe with a `start` is trained from: tokens, choices and code.

    On the machine with the GPU: python FOLDER/train.py --out OUT, or --dry-run first.
    """
    from pgenrm_agent.evaluation.datasets.sources import load_rows
    from pgenrm_agent.progress import counting
    from pgenrm_agent.training.recipe import PsiRecipe
    from pgenrm_agent.training.token_folder import make_folder

    with counting("tokens") as progress:
        about = make_folder(
            PsiRecipe.load(recipe),
            data,
            {source: load_rows(source) for source in choices or ()},
            out,
            model=model,
            choices=held_out,
            processes=processes,
            progress=progress,
        )
    about.pop("recipe")
    megabytes = round(about.pop("bytes") / 1e6, 1)
    summary = {"folder": str(out), **about, "megabytes": megabytes}
    print_summary(summary, f"tokens for {recipe}", as_json=as_json)


def join(
    folder: Annotated[
        Path, typer.Argument(help="Folder with the parts of files, and their index.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Put files together that came in parts, such as an adapter's weights, checked by their hash."""
    from pgenrm_agent.training.parts import join_parts

    files = [path.name for path in join_parts(folder)]
    print_summary({"folder": str(folder), "files": files}, "joined", as_json=as_json)
