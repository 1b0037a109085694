"""What models really write is read, and nothing is guessed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.errors import ChainError
from pgenrm_agent.testing import write_chain

IDS = ["a", "b"]


def test_a_small_models_chain_is_read_whole(small: str) -> None:
    chain = parse_chain(small, IDS)
    assert chain.persona.text == (
        "In this how-to question this person wants clear structure, then thoroughness."
    )
    assert chain.rubric is not None
    assert [(c.name, c.weight) for c in chain.rubric.criteria] == [
        ("Clear structure", 60),
        ("Thoroughness", 40),
    ]
    assert chain.marks == {"a": (1, 8), "b": (10, 3)}
    assert chain.totals == pytest.approx({"a": 3.8, "b": 7.2})
    assert chain.reported == {"a": 4, "b": 7}
    assert (chain.totals_from, chain.repairs, chain.missing) == ("marks", (), ())


def test_a_large_models_chain_is_read_through_its_habits(large: str) -> None:
    chain = parse_chain(large, IDS)
    assert chain.persona.text == "A careful reader who double-checks claims and dislikes padding."
    assert chain.rubric is not None
    assert [c.name for c in chain.rubric.criteria] == ["Accuracy", "Brevity", "Tone"]
    assert chain.marks == {"a": (8, 6, 7), "b": (4, 9, 7)}
    assert chain.totals == pytest.approx({"a": 7.2, "b": 6.1})
    assert "number_as_text" in chain.repairs


def test_totals_are_recomputed_and_the_models_own_kept(small: str) -> None:
    chain = parse_chain(small.replace('"response_1": 4', '"response_1": 9.5'), IDS)
    assert chain.totals["a"] == pytest.approx(3.8)
    assert chain.reported["a"] == 9.5


def test_weights_that_do_not_sum_to_100_are_normalised(small: str) -> None:
    chain = parse_chain(small.replace("(40%)", "(38%)"), IDS)
    assert chain.rubric is not None
    assert sum(c.weight for c in chain.rubric.criteria) == pytest.approx(100)
    assert chain.rubric.criteria[1].reported_weight == 38
    assert "weights_normalised" in chain.repairs


@pytest.mark.parametrize(
    "breakdown",
    [
        "Response 1: Depth 8, Tone 3. Response 2: Depth 2, Tone 9.",
        "Response 1: Depth: 8/10, Tone = 3/10; Response 2: Depth: 2/10, Tone = 9/10",
        "Depth: Response 1 = 8, Response 2 = 2. Tone: Response 1 = 3, Response 2 = 9.",
        "Depth (70%): response_1 8, response_2 2\nTone (30%): response_1 3, response_2 9",
        "Response 1 gets 8 on Depth and 3 on Tone. Response 2 gets 2 on Depth and 9 on Tone.",
        "**Response 1**\n- Depth: 8\n- Tone: 3\n**Response 2**\n- Depth: 2\n- Tone: 9",
        "Response 1: depth 8 x 70% = 5.6, tone 3 x 30% = 0.9. Response 2: DEPTH 2, TONE 9.",
    ],
)
def test_marks_are_read_in_every_layout(breakdown: str) -> None:
    body = json.dumps(
        {
            "rationale": f"A. Depth 70%, Tone 30%. B. {breakdown}",
            "better_response": {"response_1": 6.5, "response_2": 4.1},
        }
    )
    text = f"### Persona\nSomeone.\n### Criteria\n1. Depth (70%): x\n2. Tone (30%): y\n<JSON_START>{body}<JSON_END>"
    assert parse_chain(text, IDS).marks == {"a": (8, 3), "b": (2, 9)}


def test_a_nested_breakdown_is_read() -> None:
    body = {
        "rationale": {
            "A": {"Depth": "70%", "Tone": "30%"},
            "B": {"response_1": {"Depth": 8, "Tone": 3}, "response_2": {"Depth": 2, "Tone": 9}},
        },
        "better_response": {"response_1": {"score": 6.5}, "response_2": {"score": 4.1}},
    }
    text = f"Someone.\n### Criteria\n1. Depth (70%)\n2. Tone (30%)\n<JSON_START>{json.dumps(body)}<JSON_END>"
    chain = parse_chain(text, IDS)
    assert chain.marks == {"a": (8, 3), "b": (2, 9)}
    assert chain.reported == {"a": 6.5, "b": 4.1}


def test_a_rubric_that_stands_only_in_the_rationale_is_found(small: str) -> None:
    start, end = small.index("### Criteria"), small.index("## Part 2")
    chain = parse_chain(small[:start] + small[end:], IDS)
    assert chain.rubric is not None
    assert [c.name for c in chain.rubric.criteria] == ["Clear structure", "Thoroughness"]
    assert "rubric_from_rationale" in chain.repairs
    assert chain.totals == pytest.approx({"a": 3.8, "b": 7.2})


def test_totals_alone_are_used_when_there_are_no_marks() -> None:
    text = 'They like it short.\n<JSON_START>{"rationale": "", "better_response": {"response_1": 3, "response_2": "8"}}'
    chain = parse_chain(text, IDS)
    assert chain.totals == {"a": 3, "b": 8}
    assert (chain.totals_from, chain.marks) == ("reported", {})


def test_a_missing_candidate_is_missing_and_an_extra_one_is_ignored(small: str) -> None:
    chain = parse_chain(small, ["a", "b", "c"])
    assert chain.missing == ("c",)
    assert "c" not in chain.totals
    only = parse_chain(small, ["a"])
    assert only.totals == pytest.approx({"a": 3.8})
    assert "extra_candidate" in only.repairs


@pytest.mark.parametrize("mark", ["0", "11", "-3", "99", "1e9"])
def test_a_mark_out_of_range_does_not_count(small: str, mark: str) -> None:
    chain = parse_chain(small.replace("Thoroughness 8", f"Thoroughness {mark}"), IDS)
    assert chain.marks["a"] == (1, None)
    assert chain.totals["a"] == 1


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", '"high"', "null", "true", "[7]", "100", "1" * 5000]
)
def test_a_total_that_is_no_number_in_range_is_not_reported(small: str, value: str) -> None:
    chain = parse_chain(small.replace('"response_1": 4', f'"response_1": {value}'), IDS)
    assert "a" not in chain.reported
    assert chain.totals["a"] == pytest.approx(3.8)


def test_truncated_output_keeps_what_was_written(small: str) -> None:
    chain = parse_chain(small[: small.index(', "response_2": 7')], IDS)
    assert chain.totals == pytest.approx({"a": 3.8, "b": 7.2})
    assert "no_end_marker" in chain.repairs


def test_the_last_json_object_after_a_start_marker_counts(small: str) -> None:
    first = small.replace("Thoroughness 8", "Thoroughness 1").replace(
        "Clear structure 10", "Clear structure 1"
    )
    chain = parse_chain(
        f"{first}\nOn second thoughts:\n{small[small.index('<JSON_START>') :]}", IDS
    )
    assert chain.marks == {"a": (1, 8), "b": (10, 3)}
    assert "repeated_marker" in chain.repairs


def test_a_code_fence_instead_of_markers_is_read(small: str) -> None:
    text = small.replace("<JSON_START>", "```json").replace("<JSON_END>", "```")
    assert parse_chain(text, IDS).marks == {"a": (1, 8), "b": (10, 3)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("I would rather not judge anyone.", "no_scores"),
        ('<JSON_START>{"better_response": {"response_1": 5}}<JSON_END>', "no_persona"),
        ("Someone.\n<JSON_START>{}<JSON_END>", "no_scores"),
        ('Someone.\n<JSON_START>{"better_response": {"response_9": 5}}<JSON_END>', "no_totals"),
        ('Someone.\n<JSON_START>{"better_response": {"response_1": 70}}<JSON_END>', "no_totals"),
    ],
)
def test_what_is_no_chain_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ChainError) as caught:
        parse_chain(text, IDS)
    assert caught.value.reason == reason


@given(
    marks=st.integers(1, 20).flatmap(
        lambda b: st.lists(
            st.lists(st.integers(1, 10), min_size=3, max_size=3), min_size=b, max_size=b
        )
    ),
    weights=st.lists(st.integers(1, 99), min_size=3, max_size=3),
)
def test_any_number_of_candidates_round_trips(marks: list[list[float]], weights: list[int]) -> None:
    criteria = list(zip(("Clarity", "Depth of detail", "Tone"), weights, strict=True))
    ids = [f"c{number}" for number in range(len(marks))]
    chain = parse_chain(write_chain(marks, criteria=criteria), ids)
    assert [chain.marks[one] for one in ids] == [tuple(row) for row in marks]
    for one, row in zip(ids, marks, strict=True):
        expected = sum(w * m for w, m in zip(weights, row, strict=True)) / sum(weights)
        assert chain.totals[one] == pytest.approx(expected)


@given(st.text(max_size=400))
def test_any_text_parses_or_is_refused(text: str) -> None:
    for wrapped in (
        text,
        f"Someone.\n<JSON_START>{text}<JSON_END>",
        f"{text}<JSON_START>" + '{"better_response"',
    ):
        try:
            chain = parse_chain(wrapped, IDS)
        except ChainError:
            continue
        assert all(0 <= total <= 10 for total in chain.totals.values())
