"""The set of obvious cases: its shape, and that nothing in it is a text that the model learns from."""

from __future__ import annotations

import ast
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
CHOICES = ROOT / "examples" / "choices.jsonl"
TASTES = {
    "brief",
    "thorough",
    "structured",
    "flowing",
    "friendly",
    "formal",
    "careful",
    "confident",
}
LENGTHS = {"long": (30, 500), "short": (3, 70)}
LENGTH_IS_THE_TASTE = {"brief", "thorough"}
Case = dict[str, Any]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    file = resources.files("pgenrm_agent.evaluation.datasets") / "obvious.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(cases: list[Case]) -> list[Case]:
    """The cases that were written for this set; the others are the pages' examples."""
    return [case for case in cases if case["group"] != "pages"]


def candidate_texts(case: Case) -> list[str]:
    return [candidate["text"] for candidate in case["candidates"]]


def past_texts(case: Case) -> list[str]:
    return [choice[side] for choice in case["history"] for side in ("chosen", "rejected")]


def preferred_text(case: Case) -> str:
    (text,) = (
        candidate["text"]
        for candidate in case["candidates"]
        if candidate["id"] == case["preferred"]
    )
    return str(text)


def test_every_taste_has_as_many_long_cases_as_short_ones(written: list[Case]) -> None:
    assert len(written) >= 96
    counts = Counter((case["taste"], case["group"]) for case in written)
    assert counts == {(taste, group): 6 for taste in TASTES for group in LENGTHS}


def test_ids_and_texts_appear_once(cases: list[Case], written: list[Case]) -> None:
    assert len({case["id"] for case in cases}) == len(cases)
    queries = [
        query
        for case in written
        for query in (case["query"], *(choice["query"] for choice in case["history"]))
    ]
    assert len(set(queries)) == len(queries), "a query is asked twice"
    texts = Counter(text for case in written for text in candidate_texts(case) + past_texts(case))
    assert {text for text, count in texts.items() if count > 1} <= {"Yes."}


@pytest.mark.parametrize("group", LENGTHS)
def test_texts_have_the_lengths_of_their_half(written: list[Case], group: str) -> None:
    shortest, longest = LENGTHS[group]
    for case in written:
        if case["group"] == group:
            for text in candidate_texts(case) + past_texts(case):
                assert shortest <= len(text) <= longest, (case["id"], text)
                assert text == text.strip()


@pytest.mark.parametrize("group", LENGTHS)
def test_half_of_the_cases_have_three_past_choices_and_half_have_two_candidates(
    written: list[Case], group: str
) -> None:
    half = [case for case in written if case["group"] == group]
    past = Counter(len(case["history"]) for case in half)
    assert past[3] == len(half) / 2
    assert past[1] >= len(half) / 3
    assert past[1] + past[2] == len(half) / 2
    offered = Counter(len(case["candidates"]) for case in half)
    assert offered[2] == len(half) / 2
    assert offered[3] >= offered[4] >= len(half) / 8
    assert offered[3] + offered[4] == len(half) / 2


@pytest.mark.parametrize("group", LENGTHS)
@pytest.mark.parametrize("offered", [2, 3, 4])
def test_the_preferred_candidate_stands_in_each_place_equally_often(
    written: list[Case], group: str, offered: int
) -> None:
    places = Counter(
        [candidate["id"] for candidate in case["candidates"]].index(case["preferred"])
        for case in written
        if case["group"] == group and len(case["candidates"]) == offered
    )
    assert set(places) == set(range(offered))
    assert max(places.values()) - min(places.values()) <= 1


def test_length_does_not_tell_the_answer_where_it_is_not_the_taste(written: list[Case]) -> None:
    """Nor does a rule win that follows the lengths of the past choices."""
    asked = [case for case in written if case["taste"] not in LENGTH_IS_THE_TASTE]
    chance = sum(1 / len(case["candidates"]) for case in asked) / len(asked)
    rules = dict.fromkeys(("longest", "shortest", "as in the past"), 0)
    for case in asked:
        texts = candidate_texts(case)
        gained = sum(len(choice["chosen"]) - len(choice["rejected"]) for choice in case["history"])
        rules["longest"] += max(texts, key=len) == preferred_text(case)
        rules["shortest"] += min(texts, key=len) == preferred_text(case)
        rules["as in the past"] += (max if gained > 0 else min)(texts, key=len) == preferred_text(
            case
        )
    for rule, right in rules.items():
        assert right / len(asked) < chance + 0.1, rule
    for taste in TASTES - LENGTH_IS_THE_TASTE:
        past = [
            len(choice["chosen"]) > len(choice["rejected"])
            for case in written
            if case["taste"] == taste
            for choice in case["history"]
        ]
        assert 0.3 < sum(past) / len(past) < 0.7, taste


def sentences(text: str) -> set[str]:
    """The sentences and lines of a text that are long enough to be somebody's own."""
    parts = re.split(r"[.!?]\s+|\n", text.casefold())
    return {part.strip(" .!?") for part in parts if len(part) >= 30}


def test_nothing_in_it_is_a_sentence_of_the_training_answers(
    written: list[Case], responses: Path
) -> None:
    lines = [
        line
        for name in ("train.jsonl.gz", "val.jsonl.gz")
        for line in gzip.decompress((responses / name).read_bytes()).splitlines()
    ]
    learned = sentences(
        "\n".join(answer["text"] for line in lines for answer in json.loads(line)["responses"])
    )
    assert len(learned) > 1000
    for case in written:
        for text in candidate_texts(case) + past_texts(case):
            assert not sentences(text) & learned, case["id"]


def strings(node: object) -> Iterator[str]:
    """Every text in a JSON document."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from strings(inner)


def printed_texts(page: str) -> set[str]:
    """Every text in a page's Python and JSON, or in a Python, JSON or JSONL file."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page.endswith(".md"):
        python = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        documents = re.findall(r"^\{.*\}$", text, re.MULTILINE)
        documents += re.findall(r"-d '(\{.*?\n\})'", text, re.DOTALL)
    elif page.endswith(".py"):
        python, documents = [text], []
    else:
        python, documents = [], text.splitlines() if page.endswith(".jsonl") else [text]
    constants = {
        node.value
        for block in python
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return constants.union(*(strings(json.loads(document)) for document in documents))


def test_the_examples_of_the_pages_are_what_the_pages_print(cases: list[Case]) -> None:
    examples = [case for case in cases if case["group"] == "pages"]
    assert len(examples) >= 10
    past = printed_texts("examples/choices.jsonl")
    for case in examples:
        for page in case["pages"]:
            texts = printed_texts(page)
            for text in (case["query"], *candidate_texts(case)):
                assert text in texts, (case["id"], page, text)
            for text in past_texts(case):
                assert text in texts | past, (case["id"], page, text)
    named = {page for case in examples for page in case["pages"]}
    for page in (
        "README.md",
        "docs/how-to/server.md",
        "examples/mcp_client.py",
        "docs/how-to/debugging.md",
    ):
        assert page in named
