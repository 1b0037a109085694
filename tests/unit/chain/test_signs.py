"""Signs are counts that a person can check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pgenrm_agent.chain.signs import (
    CAPS,
    LEVELS,
    SIGNS,
    levels,
    measure,
    measure_along,
    theme_values,
)

SAMPLES = {
    "examples": "Fruit, for example apples (or pears), such as these.",
    "numbers": "In 1969, 3 people flew 384400 km.",
    "lists": "Options:\n- tea\n- coffee\n3. water",
    "layout": "Tea → cup → table; Salt: no",
    "steps": "First mix, then bake, and finally cool it.",
    "warm": "Good luck, and enjoy it, dear friend",
    "chat": "Hey, don't!",
    "address": "You can set your clock before you sleep.",
    "opinion": "I think my answer suits me.",
    "formal": "Institutional considerations necessitate comprehensive documentation.",
    "hedges": "It may rain, perhaps, and it could snow.",
    "soft": "Some can usually do it if many often would.",
    "caveats": "Sorry, but I cannot say; please consult a doctor.",
    "confident": "It will definitely work, without a doubt.",
}


def _level(text: str, key: str) -> int:
    return int(levels(measure(text))[[sign.key for sign in SIGNS].index(key)])


@pytest.mark.parametrize(("key", "text"), SAMPLES.items())
def test_each_sign_rises_on_a_text_that_shows_it(key: str, text: str) -> None:
    assert _level(text, key) >= 2
    assert _level("Paris is the capital of France.", key) <= 1


def test_length_is_told_apart_from_a_word_to_a_page() -> None:
    sizes = (3, 12, 40, 120, 220, 340, 460)
    told = [_level("x" * size, "length") + _level("x" * size, "extent") for size in sizes]
    assert told == [0, 1, 2, 3, 4, 5, 6]


def test_counts_only_grow_along_a_text_and_end_at_its_own() -> None:
    text = "Hey! 1. Perhaps you may, for example, count 22 sheep. 2. Then sleep well, my friend."
    along = measure_along(text, range(len(text) + 1))
    shares = [sign.key for sign in SIGNS].index("formal")
    grown = np.delete(np.diff(along, axis=0), shares, axis=1)
    assert (grown >= 0).all()
    assert (along[-1] == measure(text)).all()


def test_theme_readings_stay_within_their_caps() -> None:
    rows = np.random.default_rng(0).integers(0, LEVELS, size=(500, len(SIGNS)))
    readings = theme_values(rows)
    assert (readings >= 0).all()
    assert (readings <= CAPS).all()
    assert (readings.max(0) == CAPS).all()
