"""The teacher's chains are well formed and follow from what is shown."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.chain.notes import PAIR_LIMIT, UNDECIDED, UNKNOWN
from pgenrm_agent.chain.signs import CAPS, THEMES, read
from pgenrm_agent.training.bundled.teacher import TALLY_LIMIT, operands, write_chain

Values = np.ndarray[tuple[int], np.dtype[np.int64]]
NO_WISH = np.zeros(len(THEMES), dtype=np.int64)
PLAIN = np.array([3, 0, 3, 3])

values = st.tuples(*(st.integers(0, int(cap)) for cap in CAPS)).map(np.array)
wish = st.lists(st.sampled_from([-6, 0, 6]), min_size=4, max_size=4).map(np.array)
pairs = st.lists(st.tuples(values, values), max_size=6)
candidates = st.lists(values, min_size=1, max_size=4)


@given(pairs=pairs, candidates=candidates, wishes=wish)
def test_every_chain_parses_to_the_numbers_behind_it(
    pairs: list[tuple[Values, Values]], candidates: list[Values], wishes: Values
) -> None:
    chain = write_chain(pairs, wishes, candidates, stated=bool(wishes.any()))
    ids = [f"c{number}" for number in range(len(candidates))]
    parsed = parse_chain(chain.text, ids)
    assert parsed.missing == ()
    assert parsed.rubric is not None
    points = np.abs(chain.points[chain.points != 0])
    weights = [criterion.weight for criterion in parsed.rubric.criteria]
    assert weights == pytest.approx(list(100 * points / points.sum()) if points.size else [100])
    assert [parsed.totals[candidate_id] for candidate_id in ids] == pytest.approx(
        list(chain.totals)
    )
    assert parsed.notes.count("[") == 2 * len(pairs) + len(candidates)


def test_a_person_who_chose_longer_answers_gets_a_rubric_for_thoroughness() -> None:
    long, short = np.array([6, 0, 3, 3]), np.array([2, 0, 3, 3])
    chain = write_chain([(long, short)] * 3, NO_WISH, [short, long])
    assert chain.points.tolist() == [9, 0, 0, 0]
    assert chain.totals[1] > chain.totals[0]
    assert "They clearly want thorough answers." in chain.text
    assert "You can see it in choices 1, 2 and 3: the chosen answer was fuller." in chain.text


def test_a_stated_wish_counts_without_any_history() -> None:
    hedged = np.array([3, 0, 3, 8])
    chain = write_chain([], np.array([0, 0, 0, -6]), [hedged, PLAIN], stated=True)
    assert chain.totals[1] > chain.totals[0]
    assert "1. Confident wording (6): They asked for it." in chain.text


@pytest.mark.parametrize(
    ("history", "stated", "words"),
    [([], False, UNKNOWN), ([(PLAIN, PLAIN)], False, UNDECIDED), ([], True, UNDECIDED)],
)
def test_without_evidence_all_marks_are_equal_and_it_says_so(
    history: list[tuple[Values, Values]], stated: bool, words: str
) -> None:
    chain = write_chain(history, NO_WISH, [PLAIN, CAPS, np.zeros(4, dtype=int)], stated=stated)
    assert set(chain.totals) == {5.0}
    assert chain.text.count(words) == 2  # as the persona, and as the reason of the only criterion


def test_an_edited_persona_alone_makes_the_rubric() -> None:
    shorter = [(np.array([1, 0, 3, 3]), np.array([6, 0, 3, 3]))]
    edited = np.array([0, 0, 6, 0])
    chain = write_chain(shorter, NO_WISH, [PLAIN], edited=edited, persona="Be nice to me.")
    assert "### Persona\nBe nice to me.\n" in chain.text
    assert "1. Friendly tone (6): The persona says so." in chain.text
    assert "Brevity" not in chain.text
    tallies = chain.text.index("Tally:"), chain.text.index("[response")
    shown = [source for _, *sources in operands(chain.text) for source in sources]
    behind = [row for row in operands(chain.text) if row[0] > chain.text.index("### Persona")]
    assert shown
    assert behind
    assert not any(tallies[0] < source < tallies[1] for _, *two in behind for source in two)


def _number(text: str, place: int) -> int:
    match = re.compile(r"[+-]?\d").match(text, place)
    assert match is not None
    return int(match[0])


@given(pairs=pairs.filter(bool), candidates=candidates, wishes=wish)
def test_every_number_follows_from_its_operands(
    pairs: list[tuple[Values, Values]], candidates: list[Values], wishes: Values
) -> None:
    stated = bool(wishes.any())
    text = write_chain(pairs, wishes, candidates, stated=stated).text
    seen = {"Pair": 0, "Tally": 0, "Response": 0}
    for at, first, second in operands(text):
        assert max(first, second) <= at
        line = text[text.rindex("\n", 0, at) + 1 : at + 1]
        if line.startswith("Pair"):
            difference = int(text[first]) - int(text[second])
            assert _number(text, at) == np.clip(difference, -PAIR_LIMIT, PAIR_LIMIT)
        elif line.startswith("Tally"):
            before = text.count("Tally:", 0, at) > 1
            total = _number(text, second) + (_number(text, first) if before else 0)
            assert _number(text, at) == np.clip(total, -TALLY_LIMIT, TALLY_LIMIT)
        elif line.startswith("Response"):
            assert text[:first].rindex("[response") < text.index("### Persona")
        for kind in seen:
            seen[kind] += line.startswith(kind)
    assert seen["Pair"] == 4 * len(pairs)
    assert seen["Tally"] == 4 * (len(pairs) + stated)
    rubric = text.partition("### Criteria")[2].partition("### Marks")[0]
    assert ("General fit" in rubric) or seen["Response"] >= len(candidates)


def test_readings_tell_the_poles_apart_in_a_few_words() -> None:
    shown = read(
        [
            "Paris.",
            "Paris, which lies on the Seine and has about two million people, for example.",
            "1. Boil water. 2. Add salt. 3. Stir.",
            "Boil water, add salt and stir.",
            "Hey, sure thing, my friend! Have fun!",
            "Kindly await written confirmation regarding the appointment.",
            "It might rain, but it depends, I think.",
            "It will certainly rain.",
        ]
    )
    assert shown[1][0] >= shown[0][0] + 3
    assert shown[2][1] >= shown[3][1] + 2
    assert shown[4][2] >= shown[5][2] + 4
    assert shown[6][3] >= shown[7][3] + 3
