"""Where a chain's sections begin and end, whatever a model makes of its headings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm_agent.chain import split_sections

PERSONA, RUBRIC = "She likes lists.", "1. Lists (100%)"


@pytest.mark.parametrize(
    ("part_one", "persona", "rubric", "part_two"),
    [
        ("## Part 1: Analysis\n", "### Persona\n", "### Criteria\n", "## Part 2: Scoring\n"),
        ("**Part 1: Analysis**\n", "**Persona**\n", "**Criteria**\n", "**Part 2: Scoring**\n"),
        ("# PART ONE\n", "Persona:\n", "Criteria:\n", "# PART TWO\n"),
        ("Part I – Analysis\n", "__Persona:__\n", "Rubric:\n", "Part II – Scoring\n"),
        ("", "1. **Persona**\n", "2. **Weighted Criteria**\n", "### Part 2\n"),
        ("Part 1:\r\n", "### Persona ###\r\n", "### Evaluation Rubric\r\n", "Part 2:\r\n"),
        ("", "**Persona:** ", "**Criteria:** ", "## Scoring\n"),
        ("", "### User's persona analysis\n", "Criteria: ", "Scores:\n"),
        ("", "", "### Criteria and weights\n", ""),
    ],
)
def test_headings_are_recognized_in_their_variants(
    part_one: str, persona: str, rubric: str, part_two: str
) -> None:
    text = f"{part_one}{persona}{PERSONA}\n{rubric}{RUBRIC}\n{part_two}<JSON_START>{{}}"
    sections = split_sections(text)
    assert sections.persona is not None
    assert sections.persona.strip() == PERSONA
    assert sections.rubric is not None
    assert sections.rubric.strip() == RUBRIC
    assert sections.scores is not None
    assert sections.scores.strip().startswith("<JSON_START>{}")


def test_prose_about_parts_and_criteria_is_no_heading() -> None:
    persona = (
        "Part 2 of their history shows a taste for lists.\n"
        "Their criteria are strict, and the scoring follows.\n"
        "Persona matters to them."
    )
    sections = split_sections(f"### Persona\n{persona}\n### Criteria\n{RUBRIC}")
    assert sections.persona == persona
    assert sections.rubric == RUBRIC
    assert sections.scores is None


def test_text_without_headings_is_persona_up_to_its_marker() -> None:
    sections = split_sections("She likes lists.\n<JSON_START>{}")
    assert (sections.persona, sections.rubric, sections.scores) == (PERSONA, None, "<JSON_START>{}")


def test_repeated_headings_keep_the_first() -> None:
    sections = split_sections(
        "### Persona\na\n### Criteria\nb\n### Criteria\nc\n## Part 2\nd\n### Persona\ne\n## Part 2\nf"
    )
    assert sections.persona == "a"
    assert sections.rubric == "b\n### Criteria\nc"
    assert sections.scores == "d\n### Persona\ne\n## Part 2\nf"


PIECES = st.sampled_from(
    ["### Persona", "Persona: x", "### Criteria", "## Part 1", "## Part 2", "<JSON_START>", "\n"]
)


@given(st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=12).map("\n".join))
def test_spans_are_in_order_and_cut_out_the_texts(text: str) -> None:
    sections = split_sections(text)
    reached = 0
    for section in ("persona", "rubric", "scores"):
        body = getattr(sections, section)
        assert (body is None) == (section not in sections.spans)
        if body is None:
            continue
        start, end = sections.spans[section]
        assert reached <= start <= end <= len(text)
        assert body == text[start:end].strip("\r\n")
        reached = end
