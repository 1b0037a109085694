"""The picture of the prototypes: labels are texts that a model wrote, and are drawn as they stand."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, PrototypeStore
from pgenrm_agent.prototypes.picture import plot_prototypes

LABELS = ("costs $x^{$", "\\frac{ $1$ & <b>", "Wants \x00\x1b[31m red\u202e")


@pytest.mark.parametrize("ending", [".png", ".svg", ".html"])
def test_labels_are_no_markup(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    embedder = HashingEmbedder()
    vectors = embedder.embed(["plain", "warm", "long"])
    with UserMemory(tmp_path / "memory") as memory:
        for user in ("ann", "bob", "cid"):
            memory.set_consent(user, True)
        store = PrototypeStore(memory)
        members = [Member(user, i, vectors[i]) for i, user in enumerate(("ann", "bob", "cid"))]
        store.replace(np.asarray(vectors), members, embedder=embedder.name, labels=LABELS)
        version = store.current()
    assert version is not None
    out = tmp_path / f"map{ending}"
    plot_prototypes(version, out)
    if ending == ".png":
        assert out.read_bytes().startswith(b"\x89PNG")
        return
    page = out.read_text()
    drawing = page[page.index("<svg") : page.index("</svg>") + len("</svg>")]
    ET.fromstring(drawing)
    for said in ("costs $x^{$ (1)", "\\frac{ $1$ &amp; &lt;b&gt; (1)"):
        assert said in drawing
