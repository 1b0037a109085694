"""A picture of one version: who is near whom, and how many directions the personas have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.extras import require
from pgenrm_agent.figures import literally, svg_text
from pgenrm_agent.files import replacing, write_text
from pgenrm_agent.prototypes import PrototypeSet
from pgenrm_agent.prototypes.spectrum import spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".html")

MOST_NAMED = 12


def plot_prototypes(prototypes: PrototypeSet, out: Path) -> None:
    """Two panels: members and prototypes on their first two principal axes, and the spectrum.

    The spectrum is the share of the singular values' sum that the first directions keep; users
    outnumber what a picture can name, so the largest prototypes are named. As HTML, one file with
    the picture in it and a table of all prototypes. Nobody's id is in any of them.

    Raises ConfigurationError for a file of another kind than FORMATS, for prototypes whose members are
    all gone, and when matplotlib is not installed.
    """
    if out.suffix not in FORMATS:
        raise ConfigurationError(f"{out}: name a file that ends in {', '.join(FORMATS)}")
    if not prototypes.user_ids:
        raise ConfigurationError(
            "nobody is left in the prototypes: run `pgenrm prototypes build` again"
        )
    figure = _draw(prototypes)
    if out.suffix == ".png":
        with replacing(out) as beside, literally(figure):
            figure.savefig(beside, format="png", dpi=120)
    else:
        write_text(out, _page(prototypes, figure) if out.suffix == ".html" else svg_text(figure))


def _page(prototypes: PrototypeSet, figure: Figure) -> str:
    picture = svg_text(figure)
    environment = Environment(
        loader=PackageLoader("pgenrm_agent.prototypes", "."),
        undefined=StrictUndefined,
        autoescape=True,
    )
    return environment.get_template("map.html.j2").render(
        prototypes=prototypes,
        users=len(prototypes.homes),
        # Without the XML declaration, which has no place inside a page.
        picture=picture[picture.index("<svg") :],
    )


def _draw(prototypes: PrototypeSet) -> Figure:
    require("a plot", "matplotlib")
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    directions = spectrum(prototypes.vectors)
    flat = directions.axes[:, [0, min(1, directions.axes.shape[1] - 1)]]
    middle = directions.center @ flat
    members = prototypes.vectors @ flat - middle
    places = prototypes.centroids @ flat - middle

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    colors = colormaps["tab20"](prototypes.prototype_of % 20)
    left.scatter(members[:, 0], members[:, 1], s=12, c=colors, alpha=0.6, linewidths=0)
    left.scatter(places[:, 0], places[:, 1], s=60, c="black", marker="x")
    for number in np.argsort(-prototypes.sizes, kind="stable")[:MOST_NAMED]:
        name = prototypes.labels[number] or f"prototype {number}"
        left.annotate(
            f"{name} ({prototypes.sizes[number]})",
            places[number],
            fontsize=8,
            xytext=(5, 4),
            textcoords="offset points",
            bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1},
        )
    left.set(
        title=f"{len(prototypes.homes)} users, {prototypes.k} prototypes (first two principal axes)",
        xticks=[],
        yticks=[],
    )
    kept = directions.retained
    right.plot(np.arange(1, len(kept) + 1), kept)
    right.axvline(prototypes.k, color="black", linestyle=":", label=f"k = {prototypes.k}")
    right.set(
        title="Retained spectrum",
        xlabel="directions",
        ylabel="share of singular values kept",
        ylim=(0, 1.02),
    )
    right.legend(loc="lower right")
    return figure
