"""A picture of one version: who is near whom, and how many directions the personas have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.prototypes import PrototypeSet

__all__ = ["plot_prototypes"]

MOST_NAMED = 12


def plot_prototypes(found: PrototypeSet, out: Path) -> None:
    """Two panels: members and prototypes on their first two principal axes, and the spectrum.

    The spectrum is the share of the singular values' sum that the first directions keep; people
    outnumber what a picture can name, so the largest prototypes are named.

    Raises ConfigurationError when matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigurationError("plots need pip install 'pgenrm-agent[training]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    centre = found.vectors.mean(axis=0)
    _, values, axes = np.linalg.svd(found.vectors - centre, full_matrices=False)
    flat = axes[:2].T if len(axes) > 1 else np.repeat(axes[:1].T, 2, axis=1)
    people = (found.vectors - centre) @ flat
    places = (found.centroids - centre) @ flat

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5.5), width_ratios=[2, 1])
    colours = pyplot.get_cmap("tab20")(found.prototype_of % 20)
    left.scatter(people[:, 0], people[:, 1], s=12, c=colours, alpha=0.6, linewidths=0)
    left.scatter(places[:, 0], places[:, 1], s=60, c="black", marker="x")
    for one in np.argsort(-found.sizes, kind="stable")[:MOST_NAMED]:
        name = found.labels[one] or f"prototype {one}"
        left.annotate(
            f"{name} ({found.sizes[one]})", places[one], fontsize=8, xytext=(5, 4),
            textcoords="offset points", bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1},
        )  # fmt: skip
    left.set(
        title=f"{len(set(found.user_ids))} people, {found.k} prototypes (first two principal axes)",
        xticks=[], yticks=[],
    )  # fmt: skip
    kept = np.cumsum(values) / values.sum() if values.sum() > 0 else np.ones(len(values))
    right.plot(np.arange(1, len(kept) + 1), kept)
    right.axvline(found.k, color="black", linestyle=":", label=f"k = {found.k}")
    right.set(
        title="Retained spectrum", xlabel="directions", ylabel="share of singular values kept",
        ylim=(0, 1.02),
    )  # fmt: skip
    right.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(out, dpi=120)
    pyplot.close(figure)
