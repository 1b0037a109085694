"""Text -> unit vectors, for finding similar texts."""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import replacing
from pgenrm_agent.model_files import hub_trouble
from pgenrm_agent.run_folder import digest_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Embedder",
    "HashingEmbedder",
    "ModelTokensEmbedder",
    "RememberingEmbedder",
    "SentenceTransformerEmbedder",
    "Vectors",
    "embedded",
    "vectors_of",
]

Vectors: TypeAlias = npt.NDArray[np.float32]

_WORD = re.compile(r"\w+")
_GRAM_SIZES = (3, 4, 5)
_CHARACTERS_READ = 4000  # keeps the work for one text bounded; a query says what it is about early
_EMBEDDED_AT_ONCE = 256  # texts; keeps the memory that an encoder takes bounded
_SHORT_WORD = 3  # words up to this length are mostly "the", "of", "is": they say little
_SHORT_WORD_WEIGHT = 0.3
_GRAM_WEIGHT = 0.5


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors, so that a dot product is the cosine similarity (-1..1).

    `name` identifies the vector space: two embedders with the same name give the same vectors. A
    memory remembers the name and refuses another one.
    """

    @property
    def name(self) -> str:
        """What tells this vector space from others."""
        ...

    @property
    def dimension(self) -> int:
        """The number of components of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text: float32, shape (len(texts), dimension), each of length 1."""
        ...


class HashingEmbedder:
    """Words and their character n-grams, hashed into `dimension` signed buckets.

    Needs nothing but numpy, no download, and gives the same vectors on every machine. It sees
    shared words and shared parts of words ("bake", "baking"), not meaning ("car", "automobile").
    """

    def __init__(self, dimension: int = 256) -> None:
        """`dimension`: 16 to 65536; fewer buckets mean more accidental similarity."""
        if not 16 <= dimension <= 65536:
            raise ConfigurationError(
                f"HashingEmbedder(dimension={dimension}): choose 16 to 65536 (256 is the default)"
            )
        self._dimension = dimension

    @property
    def name(self) -> str:
        """Return "hashing-1-" and the number of buckets."""
        # The number after "hashing-" changes whenever the same text would get another vector.
        return f"hashing-1-{self._dimension}"

    @property
    def dimension(self) -> int:
        """The number of buckets."""
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text; see `Embedder.embed`."""
        vectors = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for feature, weight in _features(text):
                code = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
                # The top bit gives the sign, the rest the bucket: collisions cancel on average.
                row[(code & 0x7FFFFFFF) % self._dimension] += -weight if code >> 31 else weight
        return _normalized(vectors)


class SentenceTransformerEmbedder:
    """A sentence-transformers model: sees meaning, needs the package and a model."""

    def __init__(
        self,
        model: str | Path | SentenceTransformer,
        *,
        device: str | None = None,
        name: str | None = None,
    ) -> None:
        """`model`: a model id, a local folder, or a model already loaded (then give `name`).

        The model is loaded by the first call that needs it. Raises ConfigurationError when the
        package is missing or the model cannot be loaded.
        """
        self._source = model if isinstance(model, str | Path) else None
        self._model = None if isinstance(model, str | Path) else model
        if name is None:
            if self._source is None:
                raise ConfigurationError(
                    "SentenceTransformerEmbedder of a loaded model needs a name that identifies "
                    "it: SentenceTransformerEmbedder(model, name='...')"
                )
            folder = Path(self._source)
            name = _encoder_in(folder) if folder.is_dir() else str(self._source)
        self._name = f"sentence-transformers:{name}"
        self._device = device
        self._lock = threading.Lock()  # PyTorch tokenizers are not safe to share between threads

    @property
    def name(self) -> str:
        """Return "sentence-transformers:" and the model's id, or its folder's name and a hash."""
        return self._name

    @property
    def dimension(self) -> int:
        """The number of components of a vector; loads the model."""
        with self._lock:
            dimension = self._loaded().get_embedding_dimension()
        if dimension is None:
            raise ConfigurationError(f"the model of {self._name} does not state its dimension")
        return int(dimension)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text; see `Embedder.embed`."""
        with self._lock:
            model = self._loaded()
            if not texts:
                dimension = model.get_embedding_dimension() or 0
                return np.zeros((0, dimension), dtype=np.float32)
            vectors = model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return _normalized(np.asarray(vectors, dtype=np.float32))

    def _loaded(self) -> SentenceTransformer:
        if self._model is None:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise ConfigurationError(
                    "SentenceTransformerEmbedder needs the package sentence-transformers: "
                    "pip install sentence-transformers"
                ) from error
            try:
                named = not Path(str(self._source)).exists()
                self._model = SentenceTransformer(
                    str(self._source),
                    # A hub that cannot be reached would be asked for more than a minute.
                    local_files_only=named and bool(hub_trouble(str(self._source), "modules.json")),
                    device=self._device,
                    model_kwargs={"use_safetensors": True},  # a pickle could run code
                )
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"cannot load the sentence-transformers model {str(self._source)!r}:"
                    f" {str(error).splitlines()[0]}"
                ) from error
        return self._model


class RememberingEmbedder:
    """Another embedder's vectors, each text embedded once; and kept in a file, if told one.

    What is asked for in one call is embedded together, by which an encoder is quicker by far.
    """

    def __init__(self, embedder: Embedder, file: Path | None = None) -> None:
        """`file`: an .npz; vectors there are taken if they are of an embedder of this name."""
        self._embedder = embedder
        self._file = file
        self._vectors: dict[str, Vectors] = {}
        self._saved = 0
        if file is not None and file.is_file():
            with np.load(file) as kept:
                if str(kept["encoder"]) == embedder.name:
                    self._vectors = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))
        self._saved = len(self._vectors)

    @classmethod
    def around(cls, embedder: Embedder) -> RememberingEmbedder:
        """Return the embedder itself if it remembers already."""
        return embedder if isinstance(embedder, cls) else cls(embedder)

    @property
    def name(self) -> str:
        """The other embedder's name."""
        return self._embedder.name

    @property
    def dimension(self) -> int:
        """The number of components of a vector."""
        return self._embedder.dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text; see `Embedder.embed`."""
        keys = [_key(text) for text in texts]
        missing = {
            key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors
        }
        vectors = vectors_of(self._embedder, missing.values())
        self._vectors |= {key: vectors[text] for key, text in missing.items()}
        if not keys:
            return self._embedder.embed([])
        return np.stack([self._vectors[key] for key in keys])

    def save(self) -> None:
        """Write what is remembered to the file, where there is one and anything is new."""
        if self._file is None or len(self._vectors) == self._saved:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._file) as beside, beside.open("wb") as archive:
            np.savez(
                archive,
                encoder=np.array(self.name),
                texts=np.array(list(self._vectors)),
                vectors=np.stack(list(self._vectors.values())),
            )
        self._saved = len(self._vectors)


class ModelTokensEmbedder:
    """A weighted mean of a causal model's token embeddings over a text, as a unit vector.

    Needs no other model than the one that judges. The states of later layers would serve worse: in a
    small causal model they tell what comes next more than what was said (figures: docs/notebook/scaling.md).
    Tokenizers learn frequent pieces first, so a later id is a rarer piece and says more: a token
    weighs log(id + 2) squared.
    """

    def __init__(self, model: str | Path) -> None:
        """`model`: a folder, loaded by the first call that needs it.

        Raises ConfigurationError when there is no model in the folder.
        """
        self._folder = Path(model)
        weights = sorted(self._folder.glob("*.safetensors"))
        if not weights:
            raise ConfigurationError(f"{self._folder} holds no model (*.safetensors)")
        digest = hashlib.sha256()
        for file in weights:
            digest.update(file.read_bytes())
        # Other weights are another space, whatever the folder's name.
        self._name = f"tokens:{self._folder.name}:{digest.hexdigest()[:12]}"
        self._loaded: tuple[PreTrainedTokenizerBase, Vectors] | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Return "tokens:", the folder's name and a hash of the weights."""
        return self._name

    @property
    def dimension(self) -> int:
        """The number of components of a vector; loads the model."""
        return int(self._tokens()[1].shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text; see `Embedder.embed`."""
        tokenizer, table = self._tokens()
        rows = np.zeros((len(texts), table.shape[1]), dtype=np.float32)
        for row, text in enumerate(texts):
            ids = tokenizer(text[:_CHARACTERS_READ], add_special_tokens=False)["input_ids"]
            if ids:
                rows[row] = np.log(np.asarray(ids) + 2.0) ** 2 @ table[ids]
        return _normalized(rows)

    def _tokens(self) -> tuple[PreTrainedTokenizerBase, Vectors]:
        """Return the tokenizer, and the embedding of each token (v, d), of unit length."""
        with self._lock:
            if self._loaded is None:
                from transformers import AutoModel, AutoTokenizer

                try:
                    tokenizer = AutoTokenizer.from_pretrained(self._folder)
                    model = AutoModel.from_pretrained(
                        self._folder, dtype="float32", use_safetensors=True
                    )
                except (OSError, ValueError) as error:
                    raise ConfigurationError(f"cannot load {self._folder}: {error}") from error
                table = model.get_input_embeddings().weight.detach().numpy()
                self._loaded = tokenizer, _normalized(table)
            return self._loaded


def _encoder_in(folder: Path) -> str:
    """Return a name for the encoder in a folder, which stays when the folder is moved.

    Other weights, or another pooling of their vectors, are another space; so a folder's name is not enough.
    """
    modules = sorted(folder.glob("[0-9]*_*"))
    files = [
        file
        for place in (folder, *modules)
        for pattern in ("*.safetensors", "*.bin", "*.json", "vocab.txt")
        for file in sorted(place.glob(pattern))
    ]
    return f"{folder.resolve().name}:{digest_of(files)}"


def _key(text: str) -> str:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
    return digest.hexdigest()


def _features(text: str) -> Iterator[tuple[str, float]]:
    plain = unicodedata.normalize("NFKC", text[:_CHARACTERS_READ]).casefold()
    counts = Counter(_WORD.findall(plain))
    for word, count in counts.items():
        # A word said ten times is not ten times as telling.
        weight = 1.0 + float(np.log(count))
        if len(word) <= _SHORT_WORD and not word.isdigit():
            yield word, weight * _SHORT_WORD_WEIGHT
            continue
        yield word, weight
        framed = f"<{word[:64]}>"
        grams = [framed[i : i + n] for n in _GRAM_SIZES for i in range(len(framed) - n + 1)]
        for gram in grams:
            # Together a word's parts weigh half as much as the word, however long it is.
            yield f"#{gram}", weight * _GRAM_WEIGHT / len(grams) ** 0.5


def embedded(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Return the vectors of texts, whatever kind of numbers an embedder gives and however long they are.

    Returns: float32, (len(texts), dimension), each of length 1.

    Raises:
        ConfigurationError: The embedder does not give a vector of its dimension for each text.
    """
    given = embedder.embed(texts)
    try:
        vectors = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"embedder {embedder.name} gives what is no array of numbers ({error}): let embed(texts)"
            " return one row a text"
        ) from error
    wanted = (len(texts), embedder.dimension)
    if vectors.shape != wanted or not np.isfinite(vectors).all():
        raise ConfigurationError(
            f"embedder {embedder.name} gives an array of shape {vectors.shape} for {len(texts)} texts:"
            f" let embed(texts) return {wanted} finite numbers"
        )
    off = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) > 1e-3
    if off.any():
        vectors = np.where(off[:, None], _normalized(vectors), vectors)
    return vectors


def vectors_of(
    embedder: Embedder,
    texts: Iterable[str],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Vectors]:
    """Return the vector of each text: each is embedded once, and some together.

    on_progress: called with how many different texts are embedded, and how many there are.

    Raises:
        ConfigurationError: As `embedded` does.
    """
    every = list(dict.fromkeys(texts))
    vectors: dict[str, Vectors] = {}
    for start in range(0, len(every), _EMBEDDED_AT_ONCE):
        some = every[start : start + _EMBEDDED_AT_ONCE]
        vectors.update(zip(some, embedded(embedder, some), strict=True))
        on_progress(len(vectors), len(every))
    return vectors


def _normalized(vectors: Vectors) -> Vectors:
    """Rows of length 1. A row without direction (no words at all) becomes the first axis."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    empty = lengths[:, 0] < 1e-12
    unit = np.asarray(vectors / np.where(lengths < 1e-12, 1.0, lengths), dtype=np.float32)
    unit[empty, 0] = 1.0
    return unit
