"""Simulated users with tastes, choosing between real answers of language models.

The world is frozen under `VERSION`: change a constant and change the version. What is simulated is
the preference only; queries and answers are real text (see the data's own README for its source).

A user's utility for an answer to a query of kind k is

    U = (shared + archetype + personal + shift[k]) . x

with x the answer's twelve graded attributes (`attributes.features`) divided by `SPREAD`. They
prefer answer a to b with probability sigmoid(SHARPNESS * (U_a - U_b)): Bradley-Terry.

Archetypes lean on four *themes*, groups of attributes that go together in writing. A theme is what
a few choices can reveal; twelve free weights are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.jsonl import read_jsonl
from pgenrm_agent.schema import PreferencePair, StatedPreference
from pgenrm_agent.training.bundled.attributes import ATTRIBUTES, KINDS, features, kind_of, measure

VERSION = "styles-v1"
SHARPNESS = 1.85
SPREAD = np.array([0.69, 0.65, 0.74, 0.81, 0.71, 0.57, 0.30, 0.70, 0.56, 0.76, 0.55, 0.58])
"""Within-query standard deviation of each graded attribute over the training answers."""
CLIP = 2.5
"""Differences of x beyond this many standard deviations count no more."""
CONTRAST_DRAWS = 8
"""A pair is the most different of this many random pairs: near-twins teach nothing."""
FEWEST, SHORTEST, LONGEST = 8, 60, 560
"""Answers of a query at least, and characters of those used: eight fit a small model's context."""
SHARED_SD, PERSONAL_SD, SHIFT_SD = 0.20, 0.08, 0.08

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Theme:
    """Attributes that go together. `cap` is the highest value of the theme's reading.

    spread: standard deviation of the theme's difference within pairs, in units of x.
    """

    key: str
    more: str
    less: str
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    cap: int
    spread: float
    wishes_more: tuple[str, ...]
    wishes_less: tuple[str, ...]


THEMES: tuple[Theme, ...] = (
    Theme(
        "substance",
        "Thoroughness",
        "Brevity",
        ("length", "examples", "numbers"),
        (),
        9,
        3.73,
        (
            "Please go into depth.",
            "I like long, detailed answers with examples.",
            "Give me the full picture, with numbers.",
            "I prefer thorough answers.",
            "Don't leave out the details.",
        ),
        (
            "Please keep it short.",
            "I like brief answers.",
            "Get to the point quickly.",
            "I prefer short answers without padding.",
            "Don't go on for long.",
        ),
    ),
    Theme(
        "structure",
        "Clear structure",
        "Flowing prose",
        ("lists", "steps"),
        (),
        6,
        2.81,
        (
            "Use bullet points.",
            "I like lists and clear steps.",
            "Lay it out step by step.",
            "I prefer well structured answers.",
            "Numbered points, please.",
        ),
        (
            "No bullet points, please.",
            "I like flowing prose.",
            "Write in whole paragraphs.",
            "I prefer plain text without lists.",
            "Don't chop it into steps.",
        ),
    ),
    Theme(
        "warmth",
        "Friendly tone",
        "Formal tone",
        ("warmth", "opinion", "address", "questions"),
        ("formality",),
        9,
        5.46,
        (
            "Be warm and friendly.",
            "I like a personal tone.",
            "Talk to me like a friend.",
            "I prefer a warm, casual voice.",
            "Speak to me directly and kindly.",
        ),
        (
            "Be neutral and formal.",
            "I like a sober tone.",
            "Keep the tone professional.",
            "I prefer formal, impersonal answers.",
            "No chit-chat, please.",
        ),
    ),
    Theme(
        "caution",
        "Careful wording",
        "Confident wording",
        ("hedging", "disclaimers"),
        (),
        6,
        2.89,
        (
            "Tell me what is uncertain.",
            "I like careful, nuanced answers.",
            "Mention the caveats.",
            "I prefer cautious wording.",
            "Say when it depends.",
        ),
        (
            "Be direct and sure.",
            "I like confident answers.",
            "Skip the caveats.",
            "I prefer plain statements without hedging.",
            "Don't hedge.",
        ),
    ),
)

# Leanings (substance, structure, warmth, caution) of the six archetypes.
ARCHETYPES: dict[str, tuple[float, float, float, float]] = {
    "the thorough planner": (2.0, 1.0, 0.0, 0.0),
    "the hurried reader": (-2.0, -1.0, 0.0, 0.0),
    "the kind mentor": (1.0, 0.0, 2.0, 0.0),
    "the dry minimalist": (-1.0, 0.0, -2.0, 0.0),
    "the chatty friend": (-1.5, 0.0, 1.5, 0.0),
    "the scholar": (1.5, 0.0, -1.5, 0.0),
}

_INDEX = {attribute.key: index for index, attribute in enumerate(ATTRIBUTES)}


def _loadings() -> FloatArray:
    """(4, 12): each theme's signed attributes."""
    matrix = np.zeros((len(THEMES), len(ATTRIBUTES)))
    for row, theme in enumerate(THEMES):
        matrix[row, [_INDEX[key] for key in theme.plus]] = 1.0
        matrix[row, [_INDEX[key] for key in theme.minus]] = -1.0
    return matrix


LOADINGS = _loadings()


@dataclass(frozen=True)
class Answers:
    """Real answers grouped by query. Arrays run over all answers: `group[i]` is i's query."""

    queries: tuple[str, ...]
    kinds: npt.NDArray[np.int64]
    texts: tuple[str, ...]
    group: npt.NDArray[np.int64]
    x: FloatArray
    members: tuple[npt.NDArray[np.int64], ...]

    def subset(self, keep: Sequence[int]) -> Answers:
        """The same answers, restricted to some queries (by index)."""
        return _group([(self.queries[q], [self.texts[i] for i in self.members[q]]) for q in keep])


def load_answers(path: Path) -> Answers:
    """Read a gzipped JSONL of {query, responses: [{text, ...}]}.

    Keeps answers of 60 to 560 characters, and queries with at least FEWEST of them.

    Raises:
        ConfigurationError: the file is missing, or a line lacks a field (file, line and field).
    """
    if not path.is_file():
        raise ConfigurationError(
            f"{path}: no such file. The training answers are not part of the project: `pgenrm train"
            " answers` makes their folder. Name it with --data."
        )
    rows: list[tuple[str, list[str]]] = []
    for where, record in read_jsonl(path):
        try:
            query = str(record["query"])
            texts = [str(response["text"]) for response in cast(list[Any], record["responses"])]
        except (KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{where}: {type(error).__name__} {error}; each line needs"
                " query (text) and responses (a list of objects with text)"
            ) from error
        texts = [text for text in texts if SHORTEST <= len(text) <= LONGEST]
        if len(texts) >= FEWEST:
            rows.append((query, texts))
    return _group(rows)


def _group(rows: Sequence[tuple[str, list[str]]]) -> Answers:
    texts = [text for _, answers in rows for text in answers]
    group = np.repeat(np.arange(len(rows)), [len(answers) for _, answers in rows])
    raw = np.array([measure(text) for text in texts]).reshape(len(texts), len(ATTRIBUTES))
    return Answers(
        queries=tuple(query for query, _ in rows),
        kinds=np.array([kind_of(query) for query, _ in rows]),
        texts=tuple(texts),
        group=group,
        x=features(raw) / SPREAD,
        members=tuple(np.flatnonzero(group == index) for index in range(len(rows))),
    )


@dataclass(frozen=True)
class SimulatedUser:
    """One simulated user. `taste` is their weight vector (12,), without the shift by kind."""

    user_id: str
    archetype: str
    taste: FloatArray


@dataclass(frozen=True)
class Comparison:
    """One choice: indices into Answers of the preferred and the other answer."""

    query: int
    chosen: int
    rejected: int


class World:
    """The frozen tastes that all simulated users share, and the users drawn from them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(20261)
        self.shared = rng.normal(0.0, SHARED_SD, len(ATTRIBUTES))
        self.shift = rng.normal(0.0, SHIFT_SD, (len(KINDS), len(ATTRIBUTES)))
        spreads = np.array([theme.spread for theme in THEMES])
        self._lean = LOADINGS / spreads[:, None]

    def users(self, split: str, count: int) -> Iterator[SimulatedUser]:
        """Draw the users of one split; the same name and index is always the same user."""
        names = tuple(ARCHETYPES)
        for index in range(count):
            rng = np.random.default_rng([_stable(split), index])
            name = names[int(rng.integers(len(names)))]
            personal = rng.normal(0.0, PERSONAL_SD, len(ATTRIBUTES))
            taste = self.shared + np.array(ARCHETYPES[name]) @ self._lean + personal
            yield SimulatedUser(f"{split}-{index:05d}", name, taste)

    def margin(self, user: SimulatedUser, answers: Answers, query: int, a: int, b: int) -> float:
        """U_a - U_b, times SHARPNESS: the log-odds that they prefer a."""
        difference = np.clip(answers.x[a] - answers.x[b], -CLIP, CLIP)
        return float(SHARPNESS * (user.taste + self.shift[answers.kinds[query]]) @ difference)

    def compare(
        self, user: SimulatedUser, answers: Answers, query: int, rng: np.random.Generator
    ) -> Comparison:
        """Draw a pair of answers to `query`, and their (noisy) choice between them."""
        a, b = contrasting_pair(answers, query, rng)
        odds = self.margin(user, answers, query, a, b)
        if rng.random() < 1.0 / (1.0 + np.exp(-odds)):
            return Comparison(query, a, b)
        return Comparison(query, b, a)


def contrasting_pair(answers: Answers, query: int, rng: np.random.Generator) -> tuple[int, int]:
    """The most different of CONTRAST_DRAWS random pairs of answers to one query."""
    members = answers.members[query]
    first = rng.integers(len(members), size=CONTRAST_DRAWS)
    second = (first + rng.integers(1, len(members), size=CONTRAST_DRAWS)) % len(members)
    a, b = members[first], members[second]
    distance = np.abs(np.clip(answers.x[a] - answers.x[b], -2.0, 2.0)).sum(-1)
    # Two answers with the same text would be no choice at all.
    distance[[answers.texts[i] == answers.texts[j] for i, j in zip(a, b, strict=True)]] = -1.0
    best = int(distance.argmax())
    return int(a[best]), int(b[best])


def stated_preference(user: SimulatedUser, rng: np.random.Generator) -> StatedPreference:
    """What they say they want: their strongest theme in words."""
    lean = LOADINGS @ user.taste
    index = int(np.argsort(-np.abs(lean))[0])
    phrases = THEMES[index].wishes_more if lean[index] > 0 else THEMES[index].wishes_less
    return StatedPreference(text=phrases[int(rng.integers(len(phrases)))])


def as_pair(answers: Answers, comparison: Comparison) -> PreferencePair:
    """A comparison as the library's own PreferencePair."""
    return PreferencePair(
        query=answers.queries[comparison.query],
        chosen=answers.texts[comparison.chosen],
        rejected=answers.texts[comparison.rejected],
    )


def _stable(name: str) -> int:
    """A number for a split's name that does not change between runs (unlike hash()).

    It comes from the last four characters alone, so names that share them are the same users. Frozen
    with VERSION; a new name has to differ there from the splits that it must not meet.
    """
    return int.from_bytes(name.encode(), "big") % 2**31
