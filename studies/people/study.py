"""Prototypes on real people: what does the prior of Eq. 5 know that the crowd does not?

Each user agreed with some statements of a public consultation and disagreed with others; a choice
is a statement of each kind. Users are held out. The first half of a held-out user's choices is their
past, and the second half is predicted from the first few of it:

    majority      the statement that more of the other users agreed with
    own history   the statement nearer to the sum of their own past choices
    centroids     the statement nearer to their prototype, as K-means leaves it
    refined       Delta of Eq. 6, with z of Eq. 5 after the attentive refinement (Eq. 4 to 7)
    factor model  votes by identity, without text: what there is to be known (`reference`)

No language model is involved: a persona is the sum of a user's past choices' embeddings, chosen minus
rejected. What is chosen here is opinion, not style, so the encoder has to know English. Statements
that answer one question are much alike to it; `Setting.whiten` takes out what they have in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pgenrm_agent.embedding import Embedder, RememberingEmbedder, Vectors
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow
from pgenrm_agent.evaluation.datasets.sources import load_rows
from pgenrm_agent.evaluation.metrics import (
    Accuracy,
    MeanError,
    credit,
    joined_error,
    mean_error,
    strict,
)
from pgenrm_agent.fields import Model
from pgenrm_agent.jsonl import RecordLog
from pgenrm_agent.prototypes.refinement import RefinementSettings, Samples, cluster, nearest, refine
from studies.people.reference import VoteFactors, fit_vote_factors

METHODS = ("majority", "own history", "centroids", "refined", "factor model")
RESERVED = 0.2
"""Share of the users that settings are chosen on; they are never tested."""
FOLDS = 5
"""The others are tested once each: seed s holds out fold s."""
PROTOCOL = 4
"""Of split and count. Until 3 errors were over seeds; until 2 ties were one half in the only figure;
in 1 draws overlapped and validation users were tested."""
LEAST_VARIANCE = 1e-6
"""Directions with less than this share of the variance are not blown up to unit length."""

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Setting(Model):
    """How prototypes are learned, and on how many past choices they are tried.

    Constants that differ from the reference implementation's were chosen on validation users.
    """

    k: int = Field(default=50, ge=1, description="prototypes")
    pasts: tuple[int, ...] = Field(
        default=(0, 1, 2, 5, 10), min_length=1, description="past choices shown, at most"
    )
    drawn: int = Field(default=10, ge=1, description="past choices drawn in training, at most")
    whiten: bool = Field(default=True, description="whiten the embeddings by the training texts")
    refinement: RefinementSettings = RefinementSettings(batch=64, epochs=12)


class Figures(Model):
    """How often each method is right; the errors are over users.

    against: of the choices against the majority; empty where nobody made one.
    gain: refined minus majority, strict, paired.
    """

    past: int
    everything: dict[str, Accuracy]
    against: dict[str, Accuracy]
    gain: MeanError


class Measured(Model):
    """One setting and one fold of held-out users.

    choices: that were predicted. against: those of them in which the user chose the statement
    that fewer others agreed with. data: digest of the choices that were read.
    """

    data: str
    encoder: str
    validation: bool
    setting: Setting
    seed: int
    choices: int
    against: int
    figures: tuple[Figures, ...]
    protocol: int = Field(description="PROTOCOL")

    @property
    def key(self) -> tuple[object, ...]:
        """What there is one measurement of."""
        setting = self.setting.model_dump_json()
        return self.data, self.encoder, self.validation, setting, self.seed, self.protocol


class Row(Model):
    """The figures of all folds together, whose users are different ones."""

    setting: Setting
    past: int
    everything: dict[str, Accuracy]
    against: dict[str, Accuracy]
    gain: MeanError


class PeopleReport(Model):
    """Each seed holds out users of its own. held_out: of all seeds together."""

    users: int
    held_out: int
    choices: int = Field(description="predicted, of all seeds together")
    against: int = Field(description="of these against the majority")
    encoder: str
    seeds: int
    validation: bool
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _Data:
    """vectors: (t, d) of every text. choices: by user (n, 3), indices of query, chosen, rejected."""

    vectors: Vectors
    choices: tuple[IntArray, ...]
    digest: str


def evaluate_people(
    source: str,
    embedder: Embedder,
    out: Path,
    *,
    settings: Sequence[Setting],
    seeds: int = 5,
    validation: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PeopleReport:
    """Measure every setting with every seed; `out` keeps each measurement, and none is made twice.

    source: as `load_rows` reads it; its splits are not used, each seed holds out users of its own.
    out: folder of measured.jsonl and of the embeddings.
    validation: hold out the users who are never tested instead, for choosing settings.
    progress: told the epochs done, and how many there are in all.

    Raises ConfigurationError for data that cannot be read, fewer than ten users, more seeds than
    FOLDS, or another process that writes to the folder.
    """
    if not settings or seeds < 1:
        raise ConfigurationError("there is nothing to measure: name a setting and a seed at least")
    if seeds > FOLDS:
        raise ConfigurationError(
            f"{seeds} seeds are asked for, and everybody is held out once in {FOLDS}: take fewer"
        )
    data = _encoded(load_rows(source), embedder, out)
    epochs = [setting.refinement.epochs for setting in settings]
    total, done = seeds * sum(epochs), 0
    with RecordLog(out / "measured.jsonl", Measured) as log:
        known = {measured.key: measured for measured in log.records}
        wanted: dict[tuple[int, int], Measured] = {}
        for seed in range(seeds):
            split = _split(data, seed, validation)
            for number, setting in enumerate(settings):
                text = setting.model_dump_json()
                key = data.digest, embedder.name, validation, text, seed, PROTOCOL
                measured = known.get(key)
                if measured is None:
                    measured = _measure(
                        data,
                        embedder.name,
                        setting,
                        split,
                        lambda epoch, done=done: progress(done + epoch, total),  # type: ignore[misc]
                    )
                    log.append(measured)
                wanted[number, seed] = measured
                done += epochs[number]
                progress(done, total)
    rows = [
        _row(setting, at, [wanted[number, seed] for seed in range(seeds)])
        for number, setting in enumerate(settings)
        for at in range(len(setting.pasts))
    ]
    return PeopleReport(
        users=len(data.choices),
        held_out=sum(
            len(held_out_users(len(data.choices), seed, validation=validation)[1])
            for seed in range(seeds)
        ),
        choices=sum(wanted[0, seed].choices for seed in range(seeds)),
        against=sum(wanted[0, seed].against for seed in range(seeds)),
        encoder=embedder.name,
        seeds=seeds,
        validation=validation,
        rows=tuple(rows),
    )


def _measure(
    data: _Data,
    encoder: str,
    setting: Setting,
    split: _Split,
    progress: Callable[[int], None],
) -> Measured:
    seed = split.seed
    training, testing = split.training, split.testing
    vectors = _whitened(data.vectors, training) if setting.whiten else data.vectors

    def drawn(epoch: int) -> Samples:
        progress(epoch)
        return _training_samples(
            vectors, training, setting.drawn, np.random.default_rng([seed, 78, epoch])
        )

    first = drawn(0)
    centroids, _ = cluster(first.persona, min(setting.k, len(first)), seed=seed)
    del first
    refined = refine(drawn, centroids, setting.refinement.model_copy(update={"seed": seed}))

    asked = np.concatenate([own[len(own) // 2 :] for own in testing])
    crowd = split.liked[asked[:, 1]] - split.liked[asked[:, 2]]
    against = crowd < 0
    users = np.repeat(np.arange(len(testing)), [len(own) - len(own) // 2 for own in testing])
    figures = []
    for past in setting.pasts:
        shown = [own[: min(past, len(own) // 2)] for own in testing]
        repeated = [
            known for known, own in zip(shown, testing, strict=True) for _ in own[len(own) // 2 :]
        ]
        test = _samples(vectors, asked, _padded(repeated, max(past, 1)))
        difference = test.chosen - test.rejected
        margins: dict[str, NDArray[np.floating]] = {
            "majority": crowd,
            "own history": (difference * test.persona).sum(1) * test.past.any(1),
            "centroids": (difference * centroids[nearest(test.persona, centroids)]).sum(1),
            "refined": refined.model.predict(test, nearest(test.persona, refined.prototypes)),
            "factor model": np.concatenate(
                [
                    split.factors.margins(known, own[len(own) // 2 :])
                    for known, own in zip(shown, testing, strict=True)
                ]
            ),
        }
        figures.append(
            Figures(
                past=past,
                everything=_count(margins, users, np.full(len(asked), True)),
                against=_count(margins, users, against),
                gain=_gain(margins, users),
            )
        )
    return Measured(
        data=data.digest,
        encoder=encoder,
        validation=split.validation,
        setting=setting,
        seed=seed,
        choices=len(asked),
        against=int(against.sum()),
        figures=tuple(figures),
        protocol=PROTOCOL,
    )


def _count(
    margins: Mapping[str, NDArray[np.floating]], users: IntArray, which: NDArray[np.bool_]
) -> dict[str, Accuracy]:
    """Count by method over the choices of `which`; empty where there are none."""
    if not which.any():
        return {}
    return {
        name: Accuracy.of(
            [credit(float(margin)) for margin in margins[name][which]],
            clusters=users[which].tolist(),
        )
        for name in METHODS
    }


def _gain(margins: Mapping[str, NDArray[np.floating]], users: IntArray) -> MeanError:
    refined, majority = (
        strict([credit(float(margin)) for margin in margins[name]])
        for name in ("refined", "majority")
    )
    return mean_error(np.subtract(refined, majority).tolist(), users.tolist())


@dataclass(frozen=True)
class _Split:
    """The choices that one seed learns from, and those that it holds out."""

    seed: int
    validation: bool
    training: Sequence[IntArray]
    testing: Sequence[IntArray]
    texts: int

    @cached_property
    def liked(self) -> FloatArray:
        """How much the crowd likes each statement, by what is learned from."""
        return _majority(self.training, self.texts)

    @cached_property
    def factors(self) -> VoteFactors:
        """The factor model of what is learned from."""
        return fit_vote_factors(self.training, self.texts, seed=self.seed)


def _split(data: _Data, seed: int, validation: bool) -> _Split:
    rng = np.random.default_rng([seed, 77])
    trained, tested = held_out_users(len(data.choices), seed, validation=validation)
    return _Split(
        seed=seed,
        validation=validation,
        training=[data.choices[int(i)] for i in trained],
        # In what order somebody met the statements is not told, so it is drawn.
        testing=[rng.permutation(data.choices[int(i)]) for i in tested],
        texts=len(data.vectors),
    )


def held_out_users(count: int, seed: int, *, validation: bool) -> tuple[IntArray, IntArray]:
    """Return indices of `count` users: those to learn from, and those held out.

    Nobody is held out by two seeds, so that the seeds' users are independent of each other; with
    `validation` all seeds hold out the same users, whom no test ever holds out.
    """
    order = np.random.default_rng(77).permutation(count)
    reserved, rest = np.split(order, [round(count * RESERVED)])
    held = reserved if validation else np.array_split(rest, FOLDS)[seed]
    return np.setdiff1d(order, held), held


def _majority(choices: Sequence[IntArray], statements: int) -> FloatArray:
    """Return (statements,) share of comparisons that each won, drawn toward one half."""
    every = np.concatenate(choices)
    won = 1.0 + np.bincount(every[:, 1], minlength=statements)
    lost = 1.0 + np.bincount(every[:, 2], minlength=statements)
    return np.asarray(won / (won + lost), dtype=np.float64)


def _whitened(vectors: Vectors, choices: Sequence[IntArray]) -> Vectors:
    """Return all vectors (t, d), uncorrelated over the texts that training users saw; unit length."""
    seen = vectors[np.unique(np.concatenate(choices))].astype(np.float64)
    mean = seen.mean(0)
    values, directions = np.linalg.eigh((seen - mean).T @ (seen - mean) / len(seen))
    scales = 1 / np.sqrt(np.maximum(values, LEAST_VARIANCE * values.sum()))
    return _unit((vectors - mean) @ (directions * scales))


def _training_samples(
    vectors: Vectors, choices: Sequence[IntArray], most: int, rng: np.random.Generator
) -> Samples:
    """Return every choice, with up to `most` of the user's others as its past: how many is drawn, too.

    A user who is met later may bring any number of them, and prototypes learned with many do
    badly by somebody who has few.
    """
    asked, shown = [], []
    for own in choices:
        for at in range(len(own)):
            others = rng.permutation(np.delete(own, at, axis=0))
            shown.append(others[: rng.integers(min(most, len(others)) + 1)])
        asked.append(own)
    return _samples(vectors, np.concatenate(asked), _padded(shown, most))


def _padded(shown: Sequence[IntArray], most: int) -> IntArray:
    """(n, most, 3); rows of -1 where there are fewer past choices."""
    padded = np.full((len(shown), most, 3), -1, dtype=np.int64)
    for row, own in zip(padded, shown, strict=True):
        row[: len(own)] = own
    return padded


def _samples(vectors: Vectors, asked: IntArray, shown: IntArray) -> Samples:
    """asked: (n, 3). shown: (n, h, 3), -1 where there is no past choice."""
    past: NDArray[np.bool_] = np.asarray(shown[:, :, 0] >= 0)
    past_query = np.where(past[..., None], vectors[shown[:, :, 0]], np.float32(0))
    past_difference = np.where(
        past[..., None], vectors[shown[:, :, 1]] - vectors[shown[:, :, 2]], np.float32(0)
    )
    query = vectors[asked[:, 0]]
    # Somebody without a past is placed by the question alone.
    persona = np.where(past.any(axis=1, keepdims=True), past_difference.sum(1), query)
    return Samples(
        persona=_unit(persona),
        query=query,
        chosen=vectors[asked[:, 1]],
        rejected=vectors[asked[:, 2]],
        past_query=past_query,
        past_difference=past_difference,
        past=past,
    )


def _unit(rows: NDArray[np.floating]) -> Vectors:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), dtype=np.float32)


def _encoded(rows: Sequence[PreferenceRow], embedder: Embedder, out: Path) -> _Data:
    """Return vectors of every text, kept in the folder, and each user's choices by index."""
    by_user: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        pair = row.pair
        by_user.setdefault(row.user_id, []).append((pair.query, pair.chosen, pair.rejected))
    # Who chose only once has nothing that could be predicted from a past.
    kept = {user: own for user, own in by_user.items() if len(own) > 1}
    if len(kept) < 10:
        raise ConfigurationError(
            f"{len(kept)} users with two choices or more: at least ten are needed to hold some out"
        )
    texts = list(dict.fromkeys(text for own in kept.values() for choice in own for text in choice))
    place = {text: number for number, text in enumerate(texts)}
    choices = tuple(
        np.array([[place[text] for text in choice] for choice in own], dtype=np.int64)
        for own in kept.values()
    )
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    for own in choices:
        digest.update(own.tobytes() + b"\0")
    remembered = RememberingEmbedder(embedder, out / "embeddings.npz")
    vectors = remembered.embed(texts)
    remembered.save()
    return _Data(vectors, choices, digest.hexdigest())


def _row(setting: Setting, at: int, seeds: Sequence[Measured]) -> Row:
    figures = [measured.figures[at] for measured in seeds]
    return Row(
        setting=setting,
        past=setting.pasts[at],
        everything=_joined([figure.everything for figure in figures]),
        against=_joined([figure.against for figure in figures]),
        gain=joined_error(
            [
                (figure.gain, measured.choices)
                for figure, measured in zip(figures, seeds, strict=True)
            ]
        ),
    )


def _joined(by_seed: Sequence[Mapping[str, Accuracy]]) -> dict[str, Accuracy]:
    there = [accuracies for accuracies in by_seed if accuracies]
    return {
        name: Accuracy.joined([accuracies[name] for accuracies in there])
        for name in METHODS
        if there
    }
