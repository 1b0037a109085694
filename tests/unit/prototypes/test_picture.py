"""The picture of the prototypes: labels are texts that a model wrote, and are drawn as they stand."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, PrototypeStore
from pgenrm_agent.prototypes.picture import plot_prototypes
from pgenrm_agent.prototypes.spectrum import spectrum

PEOPLE = ("ann", "bob", "cid")
LABELS = ("costs $x^{$", "\\frac{ $1$ & <b>", "Wants \x00\x1b[31m red\u202e")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PrototypeStore]:
    """Three people, each in a prototype of their own."""
    pytest.importorskip("matplotlib")
    embedder = HashingEmbedder()
    vectors = embedder.embed(["plain", "warm", "long"])
    with UserMemory(tmp_path / "memory") as memory:
        for user in PEOPLE:
            memory.set_consent(user, True)
        written = PrototypeStore(memory)
        members = [Member(user, i, vectors[i]) for i, user in enumerate(PEOPLE)]
        written.replace(np.asarray(vectors), members, embedder=embedder.name, labels=LABELS)
        yield written


def draw(store: PrototypeStore, out: Path) -> Path:
    version = store.current()
    assert version is not None
    plot_prototypes(version, out)
    return out


@pytest.mark.parametrize("ending", [".png", ".svg", ".html"])
def test_labels_are_no_markup(store: PrototypeStore, tmp_path: Path, ending: str) -> None:
    out = draw(store, tmp_path / "no" / "folder" / f"map{ending}")
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    if ending == ".png":
        assert out.read_bytes().startswith(b"\x89PNG")
        return
    page = out.read_text()
    drawing = page[page.index("<svg") : page.index("</svg>") + len("</svg>")]
    ET.fromstring(drawing)
    for said in ("costs $x^{$ (1)", "\\frac{ $1$ &amp; &lt;b&gt; (1)"):
        assert said in drawing


@pytest.mark.parametrize("ending", [".svg", ".html"])
def test_equal_plots_are_equal_files(store: PrototypeStore, tmp_path: Path, ending: str) -> None:
    first, second = (draw(store, tmp_path / f"{name}{ending}").read_bytes() for name in "ab")
    assert first == second
    assert b"dc:date" not in first
    assert b"Matplotlib" not in first


@pytest.mark.parametrize("ending", [".png", ".svg", ".html"])
def test_few_are_drawn_and_nobody_is_an_error(
    store: PrototypeStore, tmp_path: Path, ending: str
) -> None:
    out = tmp_path / f"map{ending}"
    for user in PEOPLE:
        assert draw(store, out).stat().st_size
        store.leave(user)
    last = out.read_bytes()
    with pytest.raises(ConfigurationError, match="nobody is left in the prototypes"):
        draw(store, out)
    assert out.read_bytes() == last


@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_the_spectrum_is_that_of_the_singular_values(rows: int) -> None:
    vectors = np.random.default_rng(rows).normal(size=(rows, 8)).astype(np.float32)
    directions = spectrum(vectors)
    centered = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    expected = np.linalg.svd(centered, compute_uv=False)
    np.testing.assert_allclose(directions.values, expected, atol=1e-6)
    lengths = np.linalg.norm(centered @ directions.axes, axis=0)
    np.testing.assert_allclose(lengths[: len(expected)], expected, atol=1e-6)
    assert directions.retained[-1] == pytest.approx(1)
