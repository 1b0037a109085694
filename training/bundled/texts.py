"""Texts of all the lengths that people judge, made of real answers: cut, joined, restyled.

Lengths are spread evenly on a logarithmic scale, from a word to a page: a model reads only what looks
like what it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pgenrm_agent.chain.signs import THEMES, read
from pgenrm_agent.training.bundled.restyle import restyle, sentences
from pgenrm_agent.training.bundled.simulation import Answers
from pgenrm_agent.training.bundled.words import WORDS

SHORTEST, LONGEST = 3, 600
FOREIGN_VALUES = np.array([4, 0, 3, 3])
"""What every text in another language is read as: of two such texts none is more of anything."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Text:
    """A text, its theme readings (4,), and whether its signs can be counted (it is English)."""

    text: str
    values: IntArray
    english: bool = True

    @classmethod
    def of(cls, text: str) -> Text:
        """Read an English text."""
        return cls(text, read([text])[0])


def draw_length(rng: np.random.Generator) -> int:
    """Draw a length in characters, log-uniform."""
    return int(np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST * 1.3))))


def cut(text: str, size: int) -> str:
    """The beginning of a text, about `size` characters: whole sentences, else words."""
    if len(text) <= size:
        return text
    kept = ""
    for part in sentences(text):
        if kept and len(kept) + len(part) > size:
            break
        kept = f"{kept} {part}" if kept else part
    if len(kept) <= 1.3 * size:
        return kept
    words = ""
    for word in kept.split():
        if words and len(words) + len(word) > size:
            break
        words = f"{words} {word}" if words else word
    return words[:LONGEST].rstrip(",;: ")


def draw_text(answers: Answers, query: int, size: int, rng: np.random.Generator) -> str:
    """A text of about `size` characters: the start of a real answer to the query, or parts of it."""
    members = answers.members[query]
    text = answers.texts[int(members[int(rng.integers(len(members)))])]
    if rng.random() < 0.4:
        parts = sentences(text)
        start = int(rng.integers(len(parts))) if parts else 0
        separator = "\n" if "\n" in text else " "
        text = separator.join(parts[start:]) or text
    if rng.random() < 0.3:  # a clause of its own
        clauses = [clause for clause in text.split(", ") if len(clause) >= SHORTEST]
        if clauses and size < 60:
            text = clauses[int(rng.integers(len(clauses)))]
            text = text[0].upper() + text[1:]
    text = cut(text, size)
    while len(text) < 0.6 * size and rng.random() < 0.7:
        more = answers.texts[int(members[int(rng.integers(len(members)))])]
        text = f"{text} {cut(more, size - len(text))}"
    if len(text) < 40 and text[-1:] not in ".!?:" and rng.random() < 0.7:
        text += "."
    return text[:LONGEST].strip() or "Yes."


def restyled(
    text: str, theme: int, pole: int, answers: Answers, query: int, rng: np.random.Generator
) -> str:
    """The text rewritten toward a pole; more substance is more of a real answer."""
    key = THEMES[theme].key
    if key == "substance" and pole > 0 and rng.random() < 0.7:
        extra = draw_text(answers, query, max(12, int(len(text) * rng.uniform(0.5, 2.5))), rng)
        return f"{text} {extra}"[:LONGEST]
    return restyle(text, key, pole, rng)[:LONGEST]


def foreign(rng: np.random.Generator) -> Text:
    """One to five sentences of another language."""
    sentences_of = WORDS["foreign"][int(rng.integers(len(WORDS["foreign"])))]
    drawn = [
        sentences_of[int(rng.integers(len(sentences_of)))] for _ in range(int(rng.integers(1, 6)))
    ]
    if rng.random() < 0.3:
        drawn = " ".join(drawn).split()
        rng.shuffle(drawn)
    return Text(" ".join(drawn), FOREIGN_VALUES, english=False)


def answers_to(answers: Answers, query: int, count: int, rng: np.random.Generator) -> list[Text]:
    """Real answers to a query, whole."""
    members = answers.members[query]
    drawn = rng.choice(members, count, replace=False)
    return [Text.of(answers.texts[int(i)]) for i in drawn]
