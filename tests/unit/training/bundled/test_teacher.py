"""The teacher's chains are well formed and follow from what is shown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.training.bundled.attributes import ATTRIBUTES, KINDS, LEVELS
from pgenrm_agent.training.bundled.simulation import THEMES
from pgenrm_agent.training.bundled.teacher import (
    PAIR_LIMIT,
    TALLY_LIMIT,
    operands,
    theme_values,
    write_chain,
)

Levels = np.ndarray[tuple[int], np.dtype[np.int64]]
NO_WISH = np.zeros(len(THEMES), dtype=np.int64)

answer = st.lists(
    st.integers(0, LEVELS - 1), min_size=len(ATTRIBUTES), max_size=len(ATTRIBUTES)
).map(lambda values: np.array(values, dtype=np.int64))


@given(
    kind=st.integers(0, len(KINDS) - 1),
    pairs=st.lists(st.tuples(answer, answer), max_size=6),
    candidates=st.lists(answer, min_size=1, max_size=4),
    wishes=st.lists(st.sampled_from([-6, 0, 6]), min_size=4, max_size=4),
)
def test_every_chain_parses_to_the_numbers_behind_it(
    kind: int, pairs: list[tuple[Levels, Levels]], candidates: list[Levels], wishes: list[int]
) -> None:
    chain = write_chain(kind, pairs, np.array(wishes), candidates)
    ids = [f"c{number}" for number in range(len(candidates))]
    parsed = parse_chain(chain.text, ids)
    assert parsed.missing == ()
    assert parsed.rubric is not None
    assert sum(criterion.weight for criterion in parsed.rubric.criteria) == pytest.approx(100)
    assert [parsed.totals[candidate_id] for candidate_id in ids] == pytest.approx(
        list(chain.totals)
    )
    # The reported totals are rounded to one decimal.
    assert [parsed.reported[candidate_id] for candidate_id in ids] == pytest.approx(
        list(chain.totals), abs=0.0501
    )


def test_a_person_who_chose_longer_answers_gets_a_rubric_for_thoroughness() -> None:
    long, short = np.zeros(12, dtype=np.int64), np.zeros(12, dtype=np.int64)
    long[0] = 3
    chain = write_chain(0, [(long, short)] * 3, NO_WISH, [short, long])
    assert chain.weights.tolist() == [100, 0, 0, 0]
    assert chain.totals[1] > chain.totals[0]
    assert "wants thoroughness." in chain.text


def test_a_stated_wish_counts_without_any_history() -> None:
    wishes = np.array([0, 0, 0, -6])
    plain, hedged = np.zeros(12, dtype=np.int64), np.zeros(12, dtype=np.int64)
    hedged[3] = 3
    chain = write_chain(1, [], wishes, [hedged, plain])
    assert chain.totals[1] > chain.totals[0]
    assert "1. Confident wording (100%)" in chain.text


def test_nothing_known_gives_equal_weights() -> None:
    chain = write_chain(1, [], NO_WISH, [np.zeros(12, dtype=np.int64)])
    assert chain.weights.tolist() == [25, 25, 25, 25]
    assert "nothing is known" in chain.text


def test_theme_readings_stay_within_their_caps() -> None:
    highest = theme_values(np.full(12, LEVELS - 1))
    lowest = theme_values(np.zeros(12, dtype=np.int64))
    assert all(
        0 <= low <= high <= theme.cap
        for low, high, theme in zip(lowest, highest, THEMES, strict=True)
    )


def _number(text: str, place: int) -> int:
    """The number with its sign that ends at a digit."""
    sign = -1 if text[place - 1] == "-" else 1
    return sign * int(text[place])


@given(
    pairs=st.lists(st.tuples(answer, answer), min_size=1, max_size=6),
    candidates=st.lists(answer, min_size=1, max_size=4),
    wishes=st.lists(st.sampled_from([-6, 0, 6]), min_size=4, max_size=4),
)
def test_every_number_follows_from_its_operands(
    pairs: list[tuple[Levels, Levels]], candidates: list[Levels], wishes: list[int]
) -> None:
    text = write_chain(0, pairs, np.array(wishes), candidates).text
    seen = {"Pair": 0, "Tally": 0, "marks": 0}
    for at, first, second in operands(text):
        assert max(first, second) < at
        line = text[text.rindex("\n", 0, at) + 1 : at + 1]
        if not text[at].isdigit():
            continue
        if line.startswith("Pair"):
            seen["Pair"] += 1
            difference = int(text[first]) - int(text[second])
            assert _number(text, at) == np.clip(difference, -PAIR_LIMIT, PAIR_LIMIT)
        elif line.startswith("Tally"):
            seen["Tally"] += 1
            total = _number(text, first) + _number(text, second)
            assert _number(text, at) == np.clip(total, -TALLY_LIMIT, TALLY_LIMIT)
        elif "B. Response" in line:
            seen["marks"] += 1
            assert text[:first].rindex("[response") > text.index("## Part 2")
        elif line.startswith("{"):
            assert text[at] == text[first]  # a weight, copied from the criteria
    tallies = len(pairs) + any(wishes)
    assert seen["Pair"] == 4 * len(pairs)
    assert seen["Tally"] == 4 * tallies
    assert seen["marks"] >= len(candidates)
