"""Prompts as they are rendered, and sections as they are continued."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pgenrm_agent.chain import ChainFormat, split_sections
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Message, PreferencePair, StatedPreference

GOLDEN = Path(__file__).parent / "golden"
HISTORY = (
    PreferencePair(
        query="How do I boil an egg?", chosen="Eight minutes.", rejected="It depends, friend!"
    ),
    PreferencePair(
        query="And rice?",
        chosen="One to two with water.",
        rejected="- wash\n- boil",
        conversation=(
            Message(role="user", content="Hello"),
            Message(role="assistant", content="Hi."),
        ),
    ),
)


@pytest.mark.parametrize("name", ["published", "compact-1"])
@pytest.mark.parametrize("case", ["full", "bare"])
def test_prompts_match_their_golden_files(name: str, case: str) -> None:
    full = case == "full"
    messages = ChainFormat.load(name).messages(
        query="How long does pasta take?",
        candidates=["Ten minutes.", "Look at the packet.\nThen taste.", "Al dente: nine."]
        if full
        else ["Ten minutes."],
        history=HISTORY if full else (),
        stated=(StatedPreference(text="Short, please."),) if full else (),
        conversation=(Message(role="user", content="I am cooking."),) if full else (),
    )
    text = "".join(f"=== {message.role}\n{message.content}\n" for message in messages)
    path = GOLDEN / f"{name}-{case}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_long_texts_are_cut_in_the_short_format_only() -> None:
    long = "word " * 400
    for name, cut in (("compact-1", True), ("published", False)):
        _, user = ChainFormat.load(name).messages(query="q", candidates=[long])
        assert (" ..." in user.content) is cut


def test_each_section_is_continued_from_where_it_ended(small: str) -> None:
    chain_format = ChainFormat.load("compact-1")
    text, through = "", []
    for section in ("persona", "rubric", "scores"):
        rest = small[len(text) :]
        ends = [rest.index(stop) for stop in chain_format.stop(section) if stop in rest]  # type: ignore[arg-type]
        text = chain_format.finish(section, text + rest[: min(ends)])  # type: ignore[arg-type]
        assert chain_format.finish(section, text) == text  # type: ignore[arg-type]
        through.append(chain_format.complete_through(text))
        assert small.startswith(text)
    assert text == small
    assert through == ["persona", "rubric", "scores"]


def test_sections_are_found_under_many_headings() -> None:
    for persona, rubric, scores in (
        ("## Part 1: Analysis\n### Persona", "### Criteria", "## Part 2: Scoring"),
        (
            "**Part 1. Analysis**\n**User Persona:**",
            "**Evaluation Criteria:**",
            "**Part 2. Scores**",
        ),
        ("Part I - Analysis\nPersona:", "Scoring rubric:", "Part II - Scoring"),
        ("# PART 1\n#### 1. Persona", "#### 2. Weighted criteria", "# PART 2"),
    ):
        found = split_sections(f"{persona}\nWho.\n{rubric}\n1. What (100%)\n{scores}\nHow.")
        assert (found.persona, found.rubric, found.scores) == ("Who.", "1. What (100%)", "How.")


def test_too_many_candidates_for_a_format_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="5 candidates"):
        ChainFormat.load("compact-1").messages(query="q", candidates=["x"] * 5)
    with pytest.raises(ConfigurationError, match="no candidates"):
        ChainFormat.load("published").messages(query="q", candidates=[])


def test_a_format_of_your_own_is_loaded_from_a_folder(tmp_path: Path) -> None:
    settings = {
        "name": "mine", "max_candidates": 2, "max_history": None, "max_tokens": 10, "clip": None,
        "headings": {"rubric": "### Criteria", "scores": "## Part 2"},
    }  # fmt: skip
    (tmp_path / "format.json").write_text(json.dumps(settings))
    (tmp_path / "system.j2").write_text("{{ history | length }} choices")
    (tmp_path / "user.j2").write_text("{{ query }}")
    system, user = ChainFormat.load(tmp_path).messages(query="Q", candidates=["x"], history=HISTORY)
    assert (system.content, user.content) == ("2 choices", "Q")


@pytest.mark.parametrize("broken", ["format.json", "system.j2", "user.j2"])
def test_a_broken_format_is_named(tmp_path: Path, broken: str) -> None:
    for file in ("format.json", "system.j2", "user.j2"):
        (tmp_path / file).write_text("{% if %}" if file == broken else "{}")
    with pytest.raises(ConfigurationError, match="format"):
        ChainFormat.load(tmp_path)


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="compact-1, published"):
        ChainFormat.load("compact-9")
