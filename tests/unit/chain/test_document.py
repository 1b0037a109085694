"""Chains as one JSON object: the schema, the turns in which they are written, and how they are read."""

from __future__ import annotations

import json
from itertools import product

import jsonschema
import pytest

from pgenrm_agent.chain import (
    SECTIONS,
    ChainFormat,
    parse_chain,
    read_criteria,
    read_persona,
    section_spans,
)
from pgenrm_agent.chain.document import write_document
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.model_files import bundled_model
from pgenrm_agent.schema import Criterion, Rubric

FORMAT = ChainFormat.load("structured-1")
IDS = ("a", "b")
PERSONA = "Somebody who wants it short."
CRITERIA = [
    {"name": "Brevity", "weight": 60, "reason": "The shorter answer was chosen."},
    {"name": "Warmth", "weight": 30, "reason": "The chosen answer was friendly."},
    {"name": "Detail", "weight": 10, "reason": "It hardly counted."},
]
SCORES = {
    "response_1": {"why": "Short and cold.", "marks": [9, 2, 1]},
    "response_2": {"why": "Long and kind.", "marks": [2, 8, 9]},
}
WHOLE = {"persona": PERSONA, "criteria": CRITERIA, "scores": SCORES}
TOTALS = {"a": 6.1, "b": 4.5}


def turn(goal: str, text: str = "", candidates: int = 2):
    return FORMAT.turn(goal, text, query="q", candidates=[f"answer {k}" for k in range(candidates)])


def dumped(**sections: object) -> str:
    return json.dumps(sections)


def reason_of(text: str) -> str:
    with pytest.raises(ChainError) as caught:
        parse_chain(text, IDS)
    return caught.value.reason


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(WHOLE),
        json.dumps(WHOLE, indent=4),
        write_document(WHOLE),
        f"```json\n{json.dumps(WHOLE, indent=1)}\n```",
        f"Here is my evaluation.\n\n{json.dumps(WHOLE)}\n\nI hope this helps {{you}}.",
        dumped(persona=PERSONA, evaluation={"criteria": CRITERIA, "scores": SCORES}),
        f"<think>{dumped(persona='No', criteria=CRITERIA, scores={})}</think>{json.dumps(WHOLE)}",
        f"{dumped(persona='A first try')}\n{json.dumps(WHOLE)}",
        json.dumps({**WHOLE, "comment": "an extra key"}),
        json.dumps(WHOLE).replace("wants it short", "wants\nit short"),
        *(
            before + json.dumps({**WHOLE, "comment": "shows </think> and [/THINK] in a text"})
            for before in (
                "",
                "\ufeff",
                "```json\n",
                "Here: ",
                "<think>hm</think>",
                "hm\n</think>\n",
            )
        ),
        f'<think>{{"persona": "a </think> b"}}\n</think>{json.dumps(WHOLE)}',
    ],
)
def test_a_whole_chain_is_read(text: str) -> None:
    chain = parse_chain(text, IDS)
    assert chain.persona.text == PERSONA
    assert chain.totals == pytest.approx(TOTALS)
    assert chain.totals_from == "marks"
    assert chain.reported == {}
    assert chain.reasons == {"a": "Short and cold.", "b": "Long and kind."}
    assert chain.missing == ()
    assert read_persona(text) == PERSONA
    assert [criterion.name for criterion in read_criteria(text)] == ["Brevity", "Warmth", "Detail"]


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"criteria": CRITERIA, "scores": SCORES}, "no_persona"),
        ({"persona": "  ", "criteria": CRITERIA, "scores": SCORES}, "no_persona"),
        ({"persona": ["x"], "criteria": CRITERIA, "scores": SCORES}, "no_persona"),
        ({"persona": PERSONA, "scores": SCORES}, "no_rubric"),
        ({"persona": PERSONA, "criteria": [], "scores": SCORES}, "no_rubric"),
        ({"persona": PERSONA, "criteria": [{"name": "Brevity"}], "scores": SCORES}, "no_rubric"),
        (
            {"persona": PERSONA, "criteria": [{"name": "A", "weight": "much"}], "scores": SCORES},
            "no_rubric",
        ),
        (
            {"persona": PERSONA, "criteria": [{"name": "A", "weight": -5}], "scores": SCORES},
            "no_rubric",
        ),
        ({"persona": PERSONA, "criteria": CRITERIA}, "no_scores"),
        ({"persona": PERSONA, "criteria": CRITERIA, "scores": [1, 2]}, "no_scores"),
        ({"persona": PERSONA, "criteria": CRITERIA, "scores": {}}, "no_totals"),
        ({"persona": PERSONA, "criteria": CRITERIA, "scores": {"response_1": 8}}, "no_totals"),
        (
            {"persona": PERSONA, "criteria": CRITERIA, "scores": {"response_1": [8, 2]}},
            "no_totals",
        ),
        (
            {"persona": PERSONA, "criteria": CRITERIA, "scores": {"response_1": [80, 20, 10]}},
            "no_totals",
        ),
        (
            {"persona": PERSONA, "criteria": CRITERIA, "scores": {"response_1": [True, 2, 1]}},
            "no_totals",
        ),
        (
            {"persona": PERSONA, "criteria": CRITERIA, "scores": {"response_1": ["8", "7", "?"]}},
            "no_totals",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(
    sections: dict[str, object], reason: str
) -> None:
    assert reason_of(json.dumps(sections)) == reason


def test_numbers_beyond_any_float_and_half_an_emoji_are_one_chains_trouble() -> None:
    huge = json.dumps(WHOLE).replace('"marks": [9,', f'"marks": [{10**400},')
    assert parse_chain(huge, IDS).missing == ("a",)
    weight = json.dumps(WHOLE).replace('"weight": 60', f'"weight": {10**400}')
    assert reason_of(weight) == "no_rubric"
    for place in (PERSONA, "Brevity", "Short and cold."):
        half = json.dumps(WHOLE).replace(place, place + "\\ud83d")
        chain = parse_chain(half, IDS)
        assert chain.totals == pytest.approx(TOTALS)
        assert chain.model_dump_json()
        assert FORMAT.join("", half, "scores").encode()


FIVES = {
    "response_1": {"why": "Short.", "marks": [4, 5, 3]},
    "response_2": {"why": "Long.", "marks": [2, 3, 5]},
}


@pytest.mark.parametrize(
    "sections",
    [
        {"scale": "1-5", "criteria": CRITERIA, "scores": FIVES},
        {"scoring_scale": "1-5", "criteria": CRITERIA, "scores": FIVES},
        {"criteria": CRITERIA, "scores": {"scale": "1-5", **FIVES}},
        {"criteria": CRITERIA, "scores": {**FIVES, "rating_scale": [1, 5]}},
        {"criteria": [{**row, "scale": "1 to 5"} for row in CRITERIA], "scores": FIVES},
        {"criteria": [{**row, "max": 5} for row in CRITERIA], "scores": FIVES},
        {
            "criteria": {row["name"]: {"weight": row["weight"], "max": 5} for row in CRITERIA},
            "scores": FIVES,
        },
        {
            "criteria": [{**row, "max": 10} for row in CRITERIA],
            "scores": {label: {**score, "scale": "1-5"} for label, score in FIVES.items()},
        },
    ],
)
def test_a_scale_counts_wherever_it_stands(sections: dict[str, object]) -> None:
    chain = parse_chain(dumped(persona=PERSONA, **sections), IDS)
    assert chain.totals == pytest.approx({"a": 8.4, "b": 5.2})


@pytest.mark.parametrize(
    "sections",
    [
        {"criteria": CRITERIA, "scores": {"max_score": 5, **FIVES}},
        {"criteria": CRITERIA, "scores": {"scale": "good to bad", **FIVES}},
        {"criteria": [{**CRITERIA[0], "max": 5}, *CRITERIA[1:]], "scores": FIVES},
    ],
)
def test_a_scale_that_leaves_marks_in_doubt_refuses_the_chain(sections: dict[str, object]) -> None:
    assert reason_of(dumped(persona=PERSONA, **sections)) == "no_totals"


@pytest.mark.parametrize("name", ["Range", "Scale", "Max"])
def test_a_criterion_that_is_called_like_a_scale_has_marks(name: str) -> None:
    criteria = [{"name": name, "weight": 50}, {"name": "Depth", "weight": 50}]
    scores = {"response_1": {name: 8, "Depth": 7}, "response_2": {name: 9, "Depth": 8}}
    chain = parse_chain(dumped(persona=PERSONA, criteria=criteria, scores=scores), IDS)
    assert chain.totals == pytest.approx({"a": 7.5, "b": 8.5})


@pytest.mark.parametrize("winner", ["response_2", "Response B", 2])
def test_a_winner_within_the_scores_is_compared_with_the_marks(winner: object) -> None:
    scores = {**SCORES, "winner": winner}
    assert reason_of(dumped(persona=PERSONA, criteria=CRITERIA, scores=scores)) == "contradictory"
    agreeing = {**SCORES, "winner": "response_1"}
    text = dumped(persona=PERSONA, criteria=CRITERIA, scores=agreeing)
    assert parse_chain(text, IDS).totals == pytest.approx(TOTALS)


def test_braces_and_other_objects_before_a_chain_do_not_hide_it() -> None:
    for before in ("{x} " * 20, '{"a": 1} ' * 20):
        assert parse_chain(before + json.dumps(WHOLE), IDS).totals == pytest.approx(TOTALS)


@pytest.mark.parametrize("depth", [15, 30, *range(300, 1100, 7)])
def test_an_object_that_is_nested_deep_is_one_chains_trouble(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    text = json.dumps(WHOLE).replace(json.dumps(CRITERIA), nested)
    assert reason_of(text) in ("no_rubric", "no_scores")


def test_a_zero_character_reaches_no_store() -> None:
    text = json.dumps({**WHOLE, "persona": "Some\0body"}).replace("Brevity", "Brev\\u0000ity")
    chain = parse_chain(text, IDS)
    assert "\0" not in chain.persona.text + chain.rubric.criteria[0].name
    assert "\\u0000" not in FORMAT.join("", text, "scores")


def test_prose_whose_object_has_scores_under_another_key_is_prose() -> None:
    text = (
        "## Part 1: Analysis\n### Persona\nWants it short.\n### Criteria\n1. Brevity (100%): so\n"
        "## Part 2: Scoring\n<JSON_START>\n"
        '{"rationale": "A. Brevity 100%. B. Response 1: Brevity 8. Response 2: Brevity 3.",'
        ' "scores": {"response_1": 8, "response_2": 3}}\n<JSON_END>'
    )
    assert parse_chain(text, IDS).totals == {"a": 8, "b": 3}
    assert read_persona(text) == "Wants it short."


@pytest.mark.parametrize("end", [1, 20, 200, -1])
def test_a_cut_object_is_no_chain(end: int) -> None:
    assert reason_of(json.dumps(WHOLE)[:end])


def test_marks_by_the_criterions_name_are_read() -> None:
    scores = {"response_1": {"marks": {"warmth": 2, "brevity": 9, "Detail": 1}}}
    chain = parse_chain(dumped(persona=PERSONA, criteria=CRITERIA, scores=scores), IDS)
    assert chain.totals == pytest.approx({"a": 6.1})
    assert chain.missing == ("b",)
    assert "marks_incomplete" in chain.repairs


@pytest.mark.parametrize("row", [[9, 2], [9, 2, 1, 1], [9, 2, "?"], [9, 2, None], "9"])
def test_a_candidate_without_a_mark_for_every_criterion_has_no_total(row: object) -> None:
    scores = {**SCORES, "response_2": {"why": "", "marks": row}}
    chain = parse_chain(dumped(persona=PERSONA, criteria=CRITERIA, scores=scores), IDS)
    assert chain.totals == pytest.approx({"a": 6.1})
    assert chain.missing == ("b",)


@pytest.mark.parametrize("row", [[9, 2, 0], [9, 2, 11], [90, 2, 1], [0.9, 0.2, 1]])
def test_a_mark_off_the_scale_refuses_the_chain_since_the_others_may_be_on_that_scale_too(
    row: list[float],
) -> None:
    scores = {**SCORES, "response_2": {"why": "", "marks": row}}
    assert reason_of(dumped(persona=PERSONA, criteria=CRITERIA, scores=scores)) == "no_totals"


def test_keys_and_numbers_in_other_forms_are_read() -> None:
    criteria = [{**criterion, "weight": f"{criterion['weight']}%"} for criterion in CRITERIA]
    scores = {
        label.replace("_", " ").title(): {"marks": [f"{mark}/10" for mark in score["marks"]]}
        for label, score in SCORES.items()
    }
    chain = parse_chain(dumped(persona=PERSONA, criteria=criteria, scores=scores), IDS)
    assert chain.totals == pytest.approx(TOTALS)


def test_weights_that_do_not_sum_to_100_are_scaled_and_that_is_noted() -> None:
    criteria = [{**criterion, "weight": criterion["weight"] / 2} for criterion in CRITERIA]
    chain = parse_chain(dumped(persona=PERSONA, criteria=criteria, scores=SCORES), IDS)
    assert chain.totals == pytest.approx(TOTALS)
    assert "weights_normalized" in chain.repairs
    assert chain.rubric is not None
    assert chain.rubric.criteria[0].reported_weight == 30


# --- the schema ---


@pytest.mark.parametrize(("candidates", "criteria"), list(product((1, 2, 8), (3, 4, 6))))
def test_the_longest_chain_fits_its_schema_and_its_token_limit(
    candidates: int, criteria: int
) -> None:
    from transformers import AutoTokenizer

    lengths = FORMAT.settings.lengths
    assert lengths is not None
    word = "plain words "
    rows = [
        {
            "name": (word * 9)[: lengths.name],
            "weight": 100,
            "reason": (word * 20)[: lengths.reason],
        }
    ] * criteria
    scores = {
        f"response_{k}": {"why": (word * 20)[: lengths.why], "marks": [10] * criteria}
        for k in range(1, candidates + 1)
    }
    longest = {
        "persona": (word * 40)[: lengths.persona],
        "evaluation": {"criteria": rows, "scores": scores},
    }
    schema = turn("scores", candidates=candidates).json_schema
    jsonschema.validate(longest, schema)
    text = json.dumps(longest)
    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    assert len(tokenizer(text)["input_ids"]) <= FORMAT.max_tokens(candidates)
    assert len(text) <= FORMAT.max_tokens(candidates)
    for place in ("persona", "name", "reason", "why"):
        longer = json.loads(text.replace(f'"{place}": "', f'"{place}": "x', 1))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(longer, schema)


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole["evaluation"]["scores"]["response_1"]["marks"].append(5),
        lambda whole: whole["evaluation"]["scores"]["response_1"]["marks"].pop(),
        lambda whole: whole["evaluation"]["scores"]["response_2"].pop("why"),
        lambda whole: whole["evaluation"]["scores"].pop("response_2"),
        lambda whole: whole["evaluation"]["criteria"].pop(),
        lambda whole: whole.pop("persona"),
        lambda whole: whole["evaluation"]["scores"]["response_1"].update(marks=[11, 1, 1]),
        lambda whole: whole["evaluation"]["scores"]["response_1"].update(marks=[1.5, 1, 1]),
    ],
)
def test_the_schema_refuses_a_chain_that_could_not_be_scored(change) -> None:
    whole = {"persona": PERSONA, "evaluation": {"criteria": CRITERIA, "scores": SCORES}}
    schema = turn("scores").json_schema
    jsonschema.validate(whole, schema)
    whole = json.loads(json.dumps(whole))
    change(whole)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, schema)


# --- in turns ---


def test_a_chain_is_written_in_three_turns_and_is_the_chain_that_is_written_at_once() -> None:
    text = ""
    written = {"persona": PERSONA, "criteria": CRITERIA, "scores": SCORES}
    for section, key in zip(SECTIONS, written, strict=True):
        asked = turn(section, text)
        assert asked.partial == ""
        assert asked.stop == ()
        jsonschema.validate({key: written[key]}, asked.json_schema)
        text = FORMAT.join(text, dumped(**{key: written[key]}), section)
        assert FORMAT.complete_through(text) == section
    assert text == FORMAT.join("", json.dumps(WHOLE), "scores")
    assert parse_chain(text, IDS).totals == pytest.approx(TOTALS)
    roles = [message.role for message in turn("scores", text).messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


def test_what_stands_beside_a_section_is_kept_between_turns() -> None:
    text = FORMAT.join("", dumped(persona=PERSONA), "persona")
    weights = {row["name"]: row["weight"] for row in CRITERIA}
    text = FORMAT.join(text, dumped(criteria=[*weights], weights=weights), "rubric")
    assert [criterion.weight for criterion in read_criteria(text)] == [60, 30, 10]
    assert '"weights"' in turn("scores", text).messages[4].content
    whole = FORMAT.join(text, dumped(scale="1-5", scores=FIVES), "scores")
    assert parse_chain(whole, IDS).totals == pytest.approx({"a": 8.4, "b": 5.2})
    winner = FORMAT.join(text, dumped(scores=SCORES, winner="response_2"), "scores")
    assert reason_of(winner) == "contradictory"
    # Weights of criteria that stand already are repeated, and change nothing.
    again = dumped(criteria=["Wit"], weights={"Wit": 100}, scores=SCORES)
    assert parse_chain(FORMAT.join(text, again, "scores"), IDS).totals == pytest.approx(TOTALS)


def test_each_turn_shows_what_stands_and_asks_for_the_rest() -> None:
    begun = write_document({"persona": PERSONA})
    rest = turn("scores", begun)
    assert PERSONA in rest.messages[2].content
    assert set(rest.json_schema["properties"]) == {"evaluation"}
    rubric = turn("rubric", begun)
    assert set(rubric.json_schema["properties"]) == {"criteria"}
    both = turn("rubric")
    assert set(both.json_schema["properties"]) == {"persona", "criteria"}
    assert "persona" not in rubric.messages[-1].content


def test_scores_are_asked_for_as_many_criteria_as_an_edited_rubric_has() -> None:
    begun = write_document({"persona": PERSONA, "criteria": CRITERIA})
    rubric = Rubric(criteria=(Criterion(name="Wit", weight=75), Criterion(name="Tact", weight=25)))
    edited = FORMAT.with_rubric(begun, rubric)
    assert [criterion.name for criterion in read_criteria(edited)] == ["Wit", "Tact"]
    asked = turn("scores", edited)
    assert "Wit" in asked.messages[4].content
    assert "Brevity" not in str(asked.messages)
    marks = asked.json_schema["properties"]["scores"]["properties"]["response_1"]["properties"]
    assert (marks["marks"]["minItems"], marks["marks"]["maxItems"]) == (2, 2)


def test_an_edited_persona_stands_in_the_request_and_drops_what_followed() -> None:
    text = write_document(WHOLE)
    edited = FORMAT.with_persona(text, 'Wants "quotes"\nand ### Criteria')
    assert FORMAT.complete_through(edited) == "persona"
    assert "short" not in edited
    assert json.loads(turn("rubric", edited).messages[2].content) == {
        "persona": 'Wants "quotes"\nand ### Criteria'
    }


def test_a_rubric_that_is_not_there_cannot_be_replaced() -> None:
    rubric = Rubric(criteria=(Criterion(name="Wit", weight=100),))
    with pytest.raises(ConfigurationError, match="no rubric"):
        FORMAT.with_rubric(write_document({"persona": PERSONA}), rubric)


def test_a_turn_that_brings_nothing_leaves_the_section_missing() -> None:
    begun = write_document({"persona": PERSONA})
    text = FORMAT.join(begun, "I would rather not.", "rubric")
    assert FORMAT.complete_through(text) == "persona"
    assert FORMAT.join(begun, dumped(persona="Somebody else"), "rubric") == begun


def test_spans_are_those_of_the_values() -> None:
    text = write_document({"persona": 'A "persona":', "criteria": CRITERIA})
    spans = section_spans(text)
    assert json.loads(text[slice(*spans["persona"])]) == 'A "persona":'
    assert json.loads(text[slice(*spans["rubric"])]) == CRITERIA
    assert "scores" not in spans
