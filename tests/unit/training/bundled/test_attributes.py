"""Attributes are counts that a person can check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pgenrm_agent.training.bundled.attributes import (
    ATTRIBUTES,
    KINDS,
    features,
    kind_of,
    measure,
)

SAMPLES = {
    "lists": "Options:\n- tea\n- coffee\n3. water",
    "examples": "Fruit, for example apples (or pears), such as these.",
    "hedging": "It may rain, perhaps, and it could snow.",
    "warmth": "Great question! I hope you enjoy it!",
    "formality": "Institutional considerations necessitate comprehensive documentation.",
    "questions": "Which one? And when?",
    "numbers": "In 1969, 3 people flew 384400 km.",
    "opinion": "I think my answer suits me.",
    "disclaimers": "Sorry, as an AI I cannot say; please consult a doctor.",
    "steps": "First mix, then bake, and finally cool it.",
    "address": "You can set your clock before you sleep.",
}


@pytest.mark.parametrize(("key", "text"), SAMPLES.items())
def test_each_attribute_rises_on_a_text_that_shows_it(key: str, text: str) -> None:
    index = [attribute.key for attribute in ATTRIBUTES].index(key)
    assert features(measure(text))[index] >= 1.9
    assert features(measure("Paris is the capital of France."))[index] < 2


def test_length_counts_characters() -> None:
    index = [attribute.key for attribute in ATTRIBUTES].index("length")
    graded = [features(measure("x" * size))[index] for size in (0, 120, 220, 340, 1000)]
    assert graded == [0, 1, 2, 3, 3]


def test_features_are_whole_numbers_at_the_thresholds() -> None:
    for index, attribute in enumerate(ATTRIBUTES):
        for level, threshold in enumerate(attribute.thresholds, start=1):
            raw = np.zeros(len(ATTRIBUTES))
            raw[index] = threshold
            assert features(raw)[index] == pytest.approx(level)


def test_features_never_fall_when_a_count_rises() -> None:
    grid = np.tile(np.linspace(0, 500, 2001)[:, None], (1, len(ATTRIBUTES)))
    assert (np.diff(features(grid), axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("How do I descale a kettle?", "how-to"),
        ("What is the capital of Peru?", "factual"),
        ("Which phone would you recommend?", "advice"),
        ("Write a poem about rain.", "writing"),
        ("Tell me more.", "other"),
    ],
)
def test_queries_fall_into_their_kind(query: str, kind: str) -> None:
    assert KINDS[kind_of(query)] == kind
