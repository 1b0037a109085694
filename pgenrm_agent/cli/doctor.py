"""`pgenrm doctor`: what is installed, which engines work here, which settings are in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pgenrm_agent.cli.options import JsonOption
from pgenrm_agent.cli.output import show
from pgenrm_agent.progress import waiting

if TYPE_CHECKING:
    from pgenrm_agent.cli.diagnosis import DoctorReport


def doctor(*, as_json: JsonOption = False) -> None:
    """Show what is installed, which engines work here, which settings are in force, and from where."""
    from pgenrm_agent.cli.diagnosis import examine

    with waiting("looking"):
        report = examine()
    show(report, as_json, _print)
    if not report.works:
        raise typer.Exit(1)


def _print(report: DoctorReport) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    packages = Table("package", "version", "needed for")
    for package in report.packages:
        packages.add_row(package.name, package.version or "[red]missing[/red]", package.needed_for)
    console.print(packages)
    extras = Table("extra", "installed", "needed for")
    for extra in report.extras:
        missing = f"[red]no[/red], without {escape(', '.join(extra.missing))}"
        extras.add_row(extra.name, missing if extra.missing else "yes", extra.needed_for)
    console.print(extras)
    engines = Table("engine", "works here", "")
    for engine in report.engines:
        engines.add_row(engine.name, "yes" if engine.works else "no", escape(engine.detail))
    console.print(engines)
    settings = Table("setting", "value", "from")
    for setting in report.settings:
        settings.add_row(
            setting.name,
            escape("-" if setting.value is None else setting.value),
            escape(setting.source),
        )
    console.print(settings)
    console.print(f"device   {report.device}", markup=False)
    console.print(f"threads  {report.threads}", markup=False)
    console.print(f"model    {report.model}", markup=False)
    console.print(f"memory   {report.memory}", markup=False)
