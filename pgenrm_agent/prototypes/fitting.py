"""The fit that prototype learning uses: choice of k, K-means, refinement, and names for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgenrm_agent.prototypes.refinement import (
    RefinementSettings,
    Samples,
    choose_k,
    cluster,
    refine,
)

NAME_WORDS = 3
FEWEST_USERS = 3
"""A name's word is used in the personas of this many users, so that it tells of no single one."""


@dataclass(frozen=True)
class Choices:
    """The choices behind n personas, embedded, and the personas themselves.

    users: (n,) whose each row is, as numbers; empty where every row is somebody else's.
    """

    samples: Samples
    texts: tuple[str, ...]
    users: tuple[int, ...] = ()


@dataclass(frozen=True)
class FittedPrototypes:
    """What a fit gives: k prototypes for n personas of d dimensions.

    prototypes: (k, d), unit length. labels: (n,), the prototype of each persona. names: (k,).
    reason: why there are k of them. centroids: (k, d), before refinement.
    """

    prototypes: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    reason: str
    centroids: NDArray[np.float32]


Fit: TypeAlias = Callable[[Choices, int | None, int], FittedPrototypes]
"""From choices, a wished number of prototypes (None chooses) and a seed."""


def fit_prototypes(choices: Choices, k: int | None = None, seed: int = 0) -> FittedPrototypes:
    """Cluster the personas by K-means, then refine attentively on the choices (Eq. 4 to 7).

    k: None takes it from the retained spectrum; more than there are different personas is clipped.
    """
    personas = choices.samples.persona
    if k is None:
        choice = choose_k(personas)
        wanted, reason = choice.k, choice.reason
    else:
        wanted, reason = k, f"k = {k} was asked for"
    different = len(np.unique(personas, axis=0))
    if wanted > different:
        reason += f"; there are {different} different personas, so k = {different}"
        wanted = different
    centroids, _ = cluster(personas, wanted, seed=seed)
    refined = refine(choices.samples, centroids, RefinementSettings(seed=seed))
    return FittedPrototypes(
        refined.prototypes,
        refined.labels,
        names_of(choices.texts, refined.labels, wanted, choices.users),
        reason,
        centroids,
    )


def names_of(
    texts: Sequence[str], labels: NDArray[np.int64], k: int, users: Sequence[int] = ()
) -> tuple[str, ...]:
    """Return for each prototype the words that its users share and others use less (TF-IDF over prototypes).

    Words of the persona's own form ("this person wants") are in no name: most users of every prototype
    share them.

    users: whose each text is; none given, each is somebody else's. A prototype of too few users
    for `FEWEST_USERS` to share a word has no name.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    together = [" ".join(t for t, j in zip(texts, labels, strict=True) if j == i) for i in range(k)]
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True)
    try:
        weights = vectorizer.fit_transform(together)
    except ValueError:  # no word of their own in any of them
        return ("",) * k
    words = vectorizer.get_feature_names_out()
    words_in = vectorizer.build_analyzer()
    users_of: list[dict[str, set[int]]] = [{} for _ in range(k)]
    members: list[set[int]] = [set() for _ in range(k)]
    for text, label, user in zip(texts, labels, users or range(len(texts)), strict=True):
        members[label].add(user)
        for word in words_in(text):
            users_of[label].setdefault(word, set()).add(user)
    filled = [i for i in range(k) if members[i]]

    def of_the_form(word: str) -> bool:
        shares = [len(users_of[i].get(word, ())) / len(members[i]) for i in filled]
        return len(filled) > 1 and min(shares) > 0.5

    names = []
    for i in range(k):
        row = weights[i].toarray()[0]
        shared = [
            j
            for j in np.flatnonzero(row)
            if len(users_of[i][words[j]]) >= FEWEST_USERS and not of_the_form(words[j])
        ]
        best = sorted(shared, key=lambda j: -row[j])[:NAME_WORDS]
        names.append(", ".join(str(words[j]) for j in best))
    return tuple(names)
