"""Chains behind notes: read exactly, edited part by part, and held to a grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from pathlib import Path
from shutil import copytree
from types import MappingProxyType

import pytest
import xgrammar

from pgenrm_agent.chain import (
    ChainFormat,
    parse_chain,
    read_criteria,
    read_notes,
    read_persona,
    section_spans,
    written_persona,
)
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.schema import Criterion, PreferencePair, Rubric, StatedPreference

FORMAT = ChainFormat.load("compact-2")
NOTES = """## Notes
[1 chosen] substance 2 structure 0 warmth 3 caution 3
[1 rejected] substance 6 structure 0 warmth 5 caution 4
Pair 1: substance -3 structure +0 warmth -2 caution -1
Tally: substance -3 structure +0 warmth -2 caution -1
[response 1] substance 6 structure 0 warmth 3 caution 3
[response 2] substance 1 structure 0 warmth 3 caution 3
"""
PERSONA = "### Persona\nThey want short answers, and a formal tone.\n"
CRITERIA = """### Criteria
1. Brevity (3): You can see it in choice 1: the chosen answer was shorter.
2. Formal tone (1): There is a slight sign of it in choice 1.
"""
MARKS = """### Marks
Response 1: Brevity 4, Formal tone 7.
Response 2: Brevity 9, Formal tone 7."""
CHATTY = "Great question! I just love that lovely little river, and I guess you'll love it, too!"
CHAIN = NOTES + PERSONA + CRITERIA + MARKS
CHAIN_BEGUN = NOTES + PERSONA + "### Criteria\n"


def test_totals_are_the_marks_by_their_points() -> None:
    parsed = parse_chain(CHAIN, ["a", "b"])
    assert parsed.persona.text == "They want short answers, and a formal tone."
    assert parsed.rubric is not None
    assert [criterion.weight for criterion in parsed.rubric.criteria] == [75, 25]
    assert parsed.marks == {"a": (4, 7), "b": (9, 7)}
    assert parsed.totals == {"a": 4.75, "b": 8.5}
    assert parsed.totals_from == "marks"
    assert parsed.notes.startswith("[1 chosen]")
    assert "###" not in parsed.notes


def test_every_part_is_found_in_a_chain_that_is_only_begun() -> None:
    assert FORMAT.complete_through(NOTES) is None
    assert FORMAT.complete_through(NOTES + PERSONA + "### Criteria\n") == "persona"
    assert FORMAT.complete_through(NOTES + PERSONA + CRITERIA + "### Marks\n") == "rubric"
    assert FORMAT.complete_through(CHAIN) == "scores"
    assert FORMAT.complete_through(CHAIN[:-3]) == "rubric"
    assert written_persona(NOTES + PERSONA) == "They want short answers, and a formal tone."
    assert read_persona(NOTES) is None
    assert read_notes(NOTES).count("\n") == 5
    assert [item.name for item in read_criteria(NOTES + PERSONA + CRITERIA)] == [
        "Brevity",
        "Formal tone",
    ]
    start, end = section_spans(CHAIN)["scores"]
    assert CHAIN[start:end].strip().startswith("Response 1")
    assert section_spans(NOTES) == section_spans(f"{NOTES}1. Brevity (60%), Tone (40%)") == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (NOTES, "no_persona"),
        (NOTES + PERSONA, "no_rubric"),
        (NOTES + PERSONA + CRITERIA, "no_scores"),
        (NOTES + PERSONA + CRITERIA + "### Marks\nResponse 1: Brevity 4.", "no_totals"),
        (
            CHAIN.replace("4, Formal tone 7", "11, Formal tone 7").replace("9, F", "0, F"),
            "no_totals",
        ),
        (CHAIN.replace("2. Formal tone (1)", "2. Brevity (1)"), "no_rubric"),
        (CHAIN.replace("(3)", "(a lot)"), "no_rubric"),
        (CHAIN.replace("(3)", "(101)"), "no_rubric"),
        (CHAIN.replace("(3)", "(0)").replace("(1)", "(0.0)"), "no_rubric"),
    ],
)
def test_what_is_not_written_in_full_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ChainError) as caught:
        parse_chain(text, ["a", "b"])
    assert caught.value.reason == reason


def test_a_response_without_all_marks_is_missing() -> None:
    parsed = parse_chain(CHAIN.replace("Response 2: Brevity 9, ", "Response 2: "), ["a", "b"])
    assert parsed.missing == ("b",)
    assert parsed.totals == {"a": 4.75}


def test_the_first_marks_of_a_response_count() -> None:
    parsed = parse_chain(CHAIN + "\nResponse 1: Brevity 10, Formal tone 10.", ["a", "b"])
    assert parsed.totals["a"] == 4.75


def test_an_edited_persona_keeps_the_notes_and_drops_the_rest() -> None:
    edited = FORMAT.with_persona(CHAIN, "Be nice\nto me.")
    assert edited == NOTES + "### Persona\nBe nice to me.\n### Criteria\n"
    with pytest.raises(ConfigurationError, match="heading"):
        FORMAT.with_persona(CHAIN, "### Criteria")
    cut = FORMAT.with_persona(NOTES[:200], "Be nice.")
    assert cut == "## Notes\n### Persona\nBe nice.\n### Criteria\n"


def test_an_edited_rubric_is_read_back_and_only_marks_are_asked_for() -> None:
    odd = Rubric.normalized(
        tuple(Criterion(name=f"C{weight}", weight=weight) for weight in (14, 1, 0.001))
    )
    again = read_criteria(FORMAT.with_rubric(CHAIN, odd))
    assert [item.weight for item in again] == pytest.approx(
        [item.weight for item in odd.criteria], abs=1e-3
    )
    rubric = Rubric(
        criteria=(Criterion(name='Says "why"', weight=80), Criterion(name="Rhymes", weight=20))
    )
    edited = FORMAT.with_rubric(CHAIN, rubric)
    assert [(item.name, item.weight) for item in read_criteria(edited)] == [
        ('Says "why"', 80),
        ("Rhymes", 20),
    ]
    grammar = _turn("scores", edited)
    assert _allows(
        grammar,
        'Response 1: Says "why" 10, Rhymes 2.\nResponse 2: Says "why" 1, Rhymes 3.',
    )
    assert not _allows(grammar, "Response 1: Brevity 10.\nResponse 2: Brevity 1.")
    with pytest.raises(ConfigurationError, match="no rubric"):
        FORMAT.with_rubric(NOTES + PERSONA, rubric)


def _turn(goal: str, text: str = "", *, choices: int = 1, wishes: int = 0) -> str:
    pair = PreferencePair(query="q", chosen="It is four miles long.", rejected=CHATTY)
    turn = FORMAT.turn(
        goal,  # type: ignore[arg-type]
        text,
        query="q",
        candidates=["a", "b"],
        history=[pair] * choices,
        stated=[StatedPreference(text="w")] * wishes,
    )
    assert turn.partial == text
    assert turn.grammar is not None
    return turn.grammar


def _allows(grammar: str, text: str) -> bool:
    vocabulary = xgrammar.TokenizerInfo([chr(code) for code in range(128)])
    compiled = xgrammar.GrammarCompiler(vocabulary).compile_grammar(grammar)
    matcher = xgrammar.GrammarMatcher(compiled, terminate_without_stop_token=True)
    return bool(matcher.accept_string(text) and matcher.is_terminated())


def test_the_grammar_allows_whole_chains_and_stages_of_them() -> None:
    assert _allows(_turn("scores"), CHAIN)
    assert _allows(_turn("persona"), (NOTES + PERSONA).rstrip())
    begun = NOTES + PERSONA + "### Criteria\n"
    assert _allows(_turn("rubric", begun), CRITERIA.partition("\n")[2])
    begun = NOTES + PERSONA + CRITERIA + "### Marks\n"
    assert _allows(_turn("scores", begun), MARKS.partition("\n")[2])


@pytest.mark.parametrize(
    "text",
    [
        CHAIN.replace("\nResponse 2: Brevity 9, Formal tone 7.", ""),
        CHAIN.replace("Response 2: Brevity 9, Formal tone 7", "Response 2: Brevity 9"),
        CHAIN.replace("Formal tone 7.", "Friendly tone 7."),
        CHAIN.replace("choice 1: the", "choice 2: the"),
        CHAIN.replace(
            "You can see it in choice 1: the chosen answer was shorter", "They asked for it"
        ),
        CHAIN.replace("was shorter", "was fuller"),
        CHAIN.replace("structure 0", "structure 7"),
        CHAIN.replace("They want short answers, and a formal tone", "They like it short"),
        NOTES + "### Persona\nNothing is known of this person yet.\n" + CRITERIA + MARKS,
    ],
)
def test_the_grammar_allows_nothing_that_could_not_be_read_or_cannot_be_so(text: str) -> None:
    assert not _allows(_turn("scores"), text)


def _pair(chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(query="q", chosen=chosen, rejected=rejected)


PLAIN, CAREFUL = "It rains.", "It might rain, but perhaps not."
LISTED = "- It rains.\n- Take a coat.\n- Take boots."


CONFIDENT = "Confident wording (2): You can see it in choice 1: the chosen answer was more certain."
CAREFULLY = "Careful wording (2): There is a slight sign of it in"
STRUCTURED = "Clear structure (9): You can see it in"
LAID_OUT = "the chosen answer was more clearly laid out."
LISTS = [(LISTED, PLAIN), (PLAIN, CAREFUL), (LISTED, CAREFUL)]


@pytest.mark.parametrize(
    ("pairs", "reason", "allowed"),
    [
        ([(PLAIN, CAREFUL)], CONFIDENT, True),
        ([(CAREFUL, PLAIN)], CONFIDENT, False),
        ([(PLAIN, CAREFUL)], f"{STRUCTURED} choice 1: {LAID_OUT}", False),
        ([(PLAIN, CAREFUL), *2 * [(CAREFUL, PLAIN)]], f"{CAREFULLY} choices 2 and 3.", True),
        ([(PLAIN, CAREFUL), *2 * [(CAREFUL, PLAIN)]], f"{CAREFULLY} choices 1 and 2.", False),
        ([(PLAIN, CAREFUL), *2 * [(CAREFUL, PLAIN)]], CONFIDENT, False),  # two against one
        ([(PLAIN, CAREFUL), (CAREFUL, PLAIN)], f"{CAREFULLY} choice 2.", False),  # one against one
        (LISTS, f"{STRUCTURED} choices 1 and 3: {LAID_OUT}", True),
        (LISTS, f"{STRUCTURED} choices 1, 2 and 3: {LAID_OUT}", False),
    ],
)
def test_only_choices_that_show_a_taste_by_count_can_be_cited(
    pairs: list[tuple[str, str]], reason: str, allowed: bool
) -> None:
    history = [_pair(*texts) for texts in pairs]
    turn = FORMAT.turn("rubric", CHAIN_BEGUN, query="q", candidates=["a", "b"], history=history)
    assert turn.grammar is not None
    assert _allows(turn.grammar, f"1. {reason}\n") is allowed


def test_a_persona_names_only_what_some_choice_shows() -> None:
    history = [_pair(PLAIN, CAREFUL)]
    turn = FORMAT.turn("persona", query="q", candidates=["a", "b"], history=history)
    assert turn.grammar is not None
    for wanted, allowed in {
        "They want confident wording.": True,
        "They want confident wording, and short answers.": True,
        "They want confident wording, and confident wording.": False,
        "They want confident wording, and careful wording.": False,
        "They clearly want a friendly tone.": False,
        "What they chose and said shows no clear taste.": True,
    }.items():
        assert _allows(turn.grammar, f"{NOTES}### Persona\n{wanted}") is allowed, wanted


def test_choices_between_texts_that_cannot_be_told_apart_show_no_taste() -> None:
    alike = [
        ("It is four.", "It is five."),
        ("Das ist nicht gut, und es regnet.", "Ja, das ist so!"),
    ]
    for texts in alike:
        turn = FORMAT.turn("persona", query="q", candidates=["a", "b"], history=[_pair(*texts)])
        assert turn.grammar is not None
        assert "They " not in turn.grammar
        undecided = f"{NOTES}### Persona\nWhat they chose and said shows no clear taste."
        assert _allows(turn.grammar, undecided)


def test_past_choices_are_shown_and_numbered_oldest_first() -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    pairs = [
        PreferencePair(
            query=f"q{n}", chosen=PLAIN, rejected=CAREFUL, created_at=day + n * timedelta(1)
        )
        for n in range(8)
    ]
    given = [pairs[n] for n in (5, 0, 7, 3, 6, 2, 4, 1)]
    shown, _ = FORMAT.fitting("q", ["a"], given, [])
    assert "".join(pair.query for pair in shown) == "q0q2q3q5q6q7"  # the first six that were given
    messages = FORMAT.messages(query="q", candidates=["a"], history=given)
    prompt = "".join(message.content for message in messages)
    assert prompt.index("User: q0") < prompt.index("User: q2") < prompt.index("User: q7")


def test_of_somebody_unknown_only_that_can_be_said() -> None:
    unknown = "Nothing is known of this person yet."
    readings = NOTES[NOTES.index("[response 1]") :]
    general = f"### Criteria\n1. General fit (1): {unknown}\n### Marks\n"
    marks = "Response 1: General fit 5.\nResponse 2: General fit 5."
    text = f"## Notes\n{readings}### Persona\n{unknown}\n{general}{marks}"
    grammar = _turn("scores", choices=0)
    assert _allows(grammar, text)
    assert not _allows(
        grammar, text.replace("Response 2: General fit 5", "Response 2: General fit 6")
    )
    assert set(parse_chain(text, ["a", "b"]).totals.values()) == {5.0}


def test_what_was_stated_is_noted() -> None:
    stated = "Stated: substance -6 structure +0 warmth +0 caution +0\n"
    text = CHAIN.replace(
        "[response 1]",
        f"{stated}Tally: substance -9 structure +0 warmth -2 caution -1\n[response 1]",
    )
    text = text.replace("You can see", "They asked for it, and you can see")
    assert _allows(_turn("scores", wishes=1), text)
    assert not _allows(_turn("scores", wishes=0), text)


def test_an_edited_persona_is_followed_in_any_words() -> None:
    begun = FORMAT.with_persona(CHAIN, 'Wants \t "less" — \\ 简短!')
    text = "1. Brevity (6): The persona says so.\n### Marks\n"
    text += "Response 1: Brevity 4.\nResponse 2: Brevity 9."
    vocabulary = xgrammar.TokenizerInfo([chr(code) for code in range(128)])
    compiled = xgrammar.GrammarCompiler(vocabulary).compile_grammar(_turn("scores", begun))
    matcher = xgrammar.GrammarMatcher(compiled, terminate_without_stop_token=True)
    assert matcher.accept_string(text)
    assert matcher.is_terminated()


def test_behind_criteria_that_cannot_be_read_there_is_no_grammar() -> None:
    begun = NOTES + PERSONA + "### Criteria\n- Brevity: good\n### Marks\n"
    turn = FORMAT.turn("scores", begun, query="q", candidates=["a"], history=[])
    assert turn.grammar is None
    with pytest.raises(ChainError, match="no criterion"):
        parse_chain(begun + "Response 1: Brevity 4.", ["a"])


def _own_format(
    folder: Path, theme: Mapping[str, object] = MappingProxyType({}), **settings: object
) -> Path:
    """A copy of the format with other settings, some of them of its first theme."""
    with as_file(files("pgenrm_agent.chain") / "formats" / "compact-2") as shipped:
        copytree(shipped, folder, dirs_exist_ok=True)
    file = folder / "format.json"
    written = json.loads(file.read_text())
    written["themes"][0].update(theme)
    file.write_text(json.dumps(written | settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"theme": {"cap": 12}}, "cap"),
        ({"theme": {"cap": 0}}, "cap"),
        ({"theme": {"key": "plain words"}}, "key"),
        ({"theme": {"key": "größe"}}, "key"),
        ({"theme": {"key": "warmth"}}, "'warmth' stands twice"),
        ({"theme": {"more": "Brevity"}}, "'Brevity' stands twice"),
        ({"theme": {"wants_more": "short\nanswers"}}, "wants_more"),
        ({"theme": {"less": " "}}, "less"),
        ({"max_history": None}, "max_history"),
        ({"max_history": 13}, "max_history"),
        ({"language": "German"}, "language"),
        ({"language": "english"}, "language"),
    ],
)
def test_settings_that_no_grammar_could_hold_to_are_refused(
    tmp_path: Path, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ChainFormat.load(_own_format(tmp_path / "wrong", **settings))
    assert ChainFormat.load(_own_format(tmp_path / "right", theme={"key": "length_2", "cap": 1}))


def test_a_dozen_choices_are_not_taken_for_the_first_two(tmp_path: Path) -> None:
    folder = _own_format(tmp_path / "own", max_history=12, room=None)
    texts = [*2 * [(LISTED, PLAIN)], *9 * [(PLAIN, "It rains!")], (CAREFUL, PLAIN)]
    history = [_pair(*pair) for pair in texts]
    turn = ChainFormat.load(folder).turn(
        "rubric", CHAIN_BEGUN, query="q", candidates=["a"], history=history
    )
    assert turn.grammar is not None
    for reason, allowed in {
        f"{STRUCTURED} choices 1 and 2: {LAID_OUT}": True,
        f"{STRUCTURED} choice 12: {LAID_OUT}": False,
        f"{CAREFULLY} choice 12.": True,
        f"{CAREFULLY} choices 1 and 2.": False,
    }.items():
        assert _allows(turn.grammar, f"1. {reason}\n") is allowed, reason
