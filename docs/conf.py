"""How Sphinx makes the site: `make docs`. Pages are Markdown (MyST); a warning ends the build."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version

import typer
from sphinx.application import Sphinx
from typer.cli import get_docs_for_click
from typer.main import get_command

from pgenrm_agent.cli.app import app as commands

FIELD = re.compile(r"(\w+(?:, \w+)*): (?=\S)")

project = "pgenrm-agent"
author = copyright = "the pgenrm-agent developers"
version = release = installed_version("pgenrm-agent")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build"]

myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config",
}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Docstrings put code between single backticks.
default_role = "code"
highlight_language = "text"

html_theme = "pydata_sphinx_theme"
html_title = "pgenrm-agent"
html_copy_source = False
html_theme_options = {"logo": {"text": "pgenrm-agent"}, "show_toc_level": 2}


def append_commands(app: Sphinx, page: str, source: list[str]) -> None:
    """Append to the page of the command line what each command's own help says."""
    if page == "reference/command-line":
        group = get_command(commands)
        context = typer.Context(group, info_name="pgenrm")
        told = get_docs_for_click(obj=group, ctx=context, indent=1, name="pgenrm")
        # In the lists of commands their help is cut short; it stands whole under each command.
        source[0] += "\n" + re.sub(r"^(\* `[\w-]+`): .*\.\.\.$", r"\1", told, flags=re.MULTILINE)


def list_fields(
    app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]
) -> None:
    """Make a list of the fields that a docstring tells as "name: what it is", and mark its code."""
    told: list[str] = []
    in_fields = False
    for line in lines:
        before = told[-1].strip() if told else ""
        if FIELD.match(line) and (in_fields or not before or before.endswith(".")):
            told += [] if in_fields else [""]
            told.append(FIELD.sub(r"- `\1`: ", line))
            in_fields = True
        elif in_fields and line.strip():
            told.append("  " + line.strip())
        else:
            if line.startswith("    ") and not before and told and told[-2][:1].strip():
                told += ["::", ""]  # code
            told.append(line)
            in_fields = False
    lines[:] = told


def setup(app: Sphinx) -> None:
    """Connect what is written when the site is built."""
    app.connect("autodoc-process-docstring", list_fields, priority=400)  # before napoleon
    app.connect("source-read", append_commands)
