"""`python -m studies.printed`: make what the pages print anew."""

from __future__ import annotations

import difflib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.app import run
from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from studies.printed.pages import Block

app = typer.Typer()

README = "README.md"
FAILED = "FAILED"


@app.command()
def printed(
    *,
    page: Annotated[
        list[str] | None,
        typer.Option(help="Only this page, such as README or how-to/judge; repeatable."),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Tell what would change, and change nothing.")
    ] = False,
    slow: Annotated[bool, typer.Option(help="--no-slow leaves out what takes long.")] = True,
    picture: Annotated[bool, typer.Option(help="Draw the README's picture too.")] = True,
) -> None:
    """Run the blocks of README and docs, and put what they print into the pages.

    Each page runs in a folder of its own and is written when its blocks are done; a page that fails
    stays as it is, and the others go on. `--page` does some of them again. Outputs that differ in
    ids and times only stay, too.
    """
    from studies.printed.pages import blocks_of
    from studies.printed.run import BlockError

    # Ended from outside, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    summary: dict[str, str] = {}
    for name, path in _chosen(page or []).items():
        if any(block.run for block in blocks_of(path.read_text(encoding="utf-8"))):
            typer.echo(f"{name} ...", err=True)
            # Others go on when one page's block fails.
            try:
                summary[name] = _renew(name, path, slow=slow, write=not check)
            except BlockError as failure:
                summary[name] = FAILED
                typer.echo(f"{name}, {failure}", err=True)
    if picture and not check and not summary.get(README, FAILED).startswith(FAILED):
        from studies.printed.study import draw_pictures, evaluation_of

        readme = _chosen([README])[README].read_text(encoding="utf-8")
        summary["the README's picture"] = f"on {', '.join(draw_pictures(evaluation_of(readme)))}"
    for name, outcome in summary.items():
        typer.echo(f"{name}: {outcome}")
    if any(
        outcome.startswith(FAILED) or (check and " 0 changed" not in outcome)
        for outcome in summary.values()
    ):
        sys.exit(1)


def _chosen(names: list[str]) -> dict[str, Path]:
    """Return the pages that are named, by path, with or without its folder and ending; else all."""
    from studies.printed.pages import pages

    known = pages()
    chosen = {}
    for name in names:
        stem = name.removesuffix(".md")
        meant = [path for path in known if f"/{path}".endswith(f"/{stem}.md")]
        if len(meant) != 1:
            hint = f"it is one of {', '.join(meant)}" if meant else f"pages: {', '.join(known)}"
            raise ConfigurationError(f"--page {name} names no single page; {hint}")
        chosen[meant[0]] = known[meant[0]]
    return chosen or known


def _renew(name: str, path: Path, *, slow: bool, write: bool) -> str:
    """Renew a page and show how it differs; return a line on it."""
    from pgenrm_agent.files import write_text
    from studies.printed.pages import ROOT
    from studies.printed.study import renew

    before = path.read_text(encoding="utf-8")
    renewed = renew(before, slow=slow, progress=_tell)
    lines = before.splitlines(), renewed.text.splitlines()
    for line in difflib.unified_diff(*lines, name, name, n=0, lineterm=""):
        typer.echo(line)
    if write:
        if path.read_text(encoding="utf-8") != before:
            return f"{FAILED}: it was edited meanwhile"
        if renewed.changed:
            write_text(path, renewed.text)
        for picture, content in renewed.pictures.items():
            (ROOT / picture).write_bytes(content)
    return f"{renewed.outputs} outputs, {renewed.changed} changed"


def _tell(block: Block) -> None:
    typer.echo(f"  line {block.line}: {block.text.splitlines()[0]}", err=True)


if __name__ == "__main__":
    run(app)
