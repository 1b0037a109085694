"""The LangChain tool: LangChain's standard tool tests, and what ours promises beyond them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from pgenrm_agent import as_tool
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import InvalidInput
from pgenrm_agent.integrations.langchain.memory import memory_tools
from pgenrm_agent.integrations.langchain.tool import PGenRMTool
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, Scaling
from pgenrm_agent.testing import ScriptedEngine

MARKS = {"red": 3.0, "green": 8.0}


def answer(prompt: Prompt, _: int) -> str:
    """Gives each color its mark, and no mark to any other answer."""
    texts = re.findall(r"Start of Response \d+\]\s*(\S+)", prompt.messages[-1].content)
    totals = {k: MARKS[text] for k, text in enumerate(texts, start=1) if text in MARKS}
    marks = ", ".join(f"Response {k}: Fit {total:g}" for k, total in totals.items())
    block = {
        "rationale": f"A. Fit 100%. B. {marks}.",
        "better_response": {f"response_{k}": total for k, total in totals.items()},
    }
    return (
        "## Part 1: Analysis\n### Persona\nWants short answers.\n### Criteria\n1. Fit (100%)\n"
        f"## Part 2: Scoring\n<JSON_START>\n{json.dumps(block)}\n<JSON_END>"
    )


@pytest.fixture(scope="module")
def rm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PGenRM]:
    memory = tmp_path_factory.mktemp("memory")
    scaling = Scaling(individual=2, resamples=0, seed=1)
    with PGenRM(engine=ScriptedEngine(answer), memory=memory, scaling=scaling) as reward_model:
        yield reward_model


class StandardTool:
    """What both standard suites are told about the tool."""

    made: BaseTool

    @pytest.fixture(autouse=True)
    def _make(self, rm: PGenRM) -> None:
        self.made = as_tool(rm)

    @property
    def tool_constructor(self) -> BaseTool:
        return self.made

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "Which color?", "candidates": ["red", "green"], "user_id": "ada"}


class TestToolUnit(StandardTool, ToolsUnitTests):
    pass


class TestToolIntegration(StandardTool, ToolsIntegrationTests):
    pass


def call(tool: PGenRMTool, **arguments: object) -> ToolMessage:
    message = tool.invoke(ToolCall(name=tool.name, args=arguments, id="1", type="tool_call"))
    assert isinstance(message, ToolMessage)
    return message


def test_the_text_is_a_short_ranking_and_the_artifact_the_evaluation(rm: PGenRM) -> None:
    message = call(as_tool(rm), query="Which?", candidates=["red", "green"], user_id="ada")
    assert message.content == (
        "Answers as ada would like them, best first:\n"
        "1. answer-2: 8.00 ± 0.00 of 10: green\n"
        "2. answer-1: 3.00 ± 0.00 of 10: red\n"
        "Judged by 0 past choices and 0 statements of 'ada'; nothing is known of user 'ada': is the"
        " name right?"
    )
    assert Evaluation.model_validate(message.artifact).best == "answer-2"
    assert message.artifact["best"] == "answer-2"


def test_answers_that_were_not_scored_are_named_in_the_text(tmp_path: Path) -> None:
    """Five answers are two groups for this format, and of one of them nothing can be read."""
    scaling = Scaling(individual=2, resamples=0, seed=1)
    with PGenRM(
        engine=ScriptedEngine(answer), memory=tmp_path, scaling=scaling, chain_format="compact-2"
    ) as reward_model:
        five = ["red", "green", "red", "green", "mauve"]
        message = call(as_tool(reward_model), query="Which?", candidates=five, user_id="ada")
    assert "Not scored: answer-5 (" in message.content
    assert "5 candidates are more than a prompt of format compact-2 holds (4)" in message.content


def test_a_tie_is_told(rm: PGenRM) -> None:
    message = call(as_tool(rm), query="Which?", candidates=["red", "red"], user_id="ada")
    assert "The first places are tied." in message.content


def test_bad_input_comes_back_as_a_tool_error_in_one_line(rm: PGenRM) -> None:
    for arguments in (
        {"query": " ", "candidates": ["red"], "user_id": "ada"},
        {"query": "Which?", "candidates": [], "user_id": "ada"},
        {"query": "Which?", "candidates": ["red"]},
        {"query": "Which?", "user_id": "ada"},
        {"query": "Which?", "candidates": "red", "user_id": "ada"},
        {"query": "Which?", "candidates": [None], "user_id": "ada"},
        {"query": 5, "candidates": ["red"], "user_id": 5},
        {},
    ):
        message = call(as_tool(rm), **arguments)
        assert message.status == "error"
        assert "\n" not in message.content
        assert "pydantic" not in message.content


def test_wrong_arguments_are_told_to_the_model_in_our_words(rm: PGenRM) -> None:
    told = call(as_tool(rm), query=5, candidates="red", user_id="ada").content
    assert told == (
        "these arguments cannot be used: query: a text is needed (got 5); candidates: a list is needed"
        ' (got "red")'
    )
    for tool in memory_tools(rm, user_id="ada"):
        said = tool.invoke({"query": "Which?"})
        assert re.fullmatch(r"these arguments cannot be used: \w+: it is missing.*", said), said


@pytest.mark.parametrize(
    ("field", "wrong", "said"),
    [
        ("reward_model", "pgenrm-tiny", 'reward_model: a PGenRM is needed (got "pgenrm-tiny")'),
        ("reward_model", None, "reward_model: a PGenRM is needed (got null)"),
        ("bound_user", 5, "bound_user: a text is needed (got 5)"),
        ("user_from", "x", "user_from: use 'argument', 'config' or 'state' (got \"x\")"),
    ],
)
def test_a_tool_made_with_a_wrong_field_is_refused_in_our_words(
    rm: PGenRM, field: str, wrong: Any, said: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^PGenRMTool cannot be made: {re.escape(said)}$"):
        PGenRMTool(**{"reward_model": rm, field: wrong})


def test_a_model_that_writes_no_chain_is_a_tool_error_not_a_score(rm: PGenRM) -> None:
    message = call(as_tool(rm), query="Which?", candidates=["mauve"], user_id="ada")
    assert message.status == "error"
    assert "not scored" in message.content


async def test_a_bound_tool_judges_for_its_person_and_hides_the_argument(rm: PGenRM) -> None:
    tool = as_tool(rm, user_id="ada")
    assert set(tool.args) == {"query", "candidates"}
    asked = {"query": "Which?", "candidates": ["red"], "user_id": "bob"}
    made = ToolCall(name=tool.name, args=asked, id="1", type="tool_call")
    message = await tool.ainvoke(made)
    assert message.artifact["request"]["user_id"] == "ada"
    assert set(as_tool(rm).args) == {"query", "candidates", "user_id"}
