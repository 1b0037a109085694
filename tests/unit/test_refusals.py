"""Every public method refuses what it cannot use with an error of this library, in one line."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import pgenrm_agent
from pgenrm_agent import (
    Candidate,
    ChainFormat,
    ConfigurationError,
    Evaluation,
    EvaluationCache,
    EvaluationRequest,
    InvalidInput,
    Message,
    PGenRM,
    PGenRMError,
    PreferencePair,
    RerankResult,
    Rubric,
    Scaling,
    StatedPreference,
    UserMemory,
    UserSignals,
    as_node,
    as_reward_func,
    as_tool,
    load_engine,
)
from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.fields import Model
from pgenrm_agent.integrations.langchain.memory import memory_tools
from pgenrm_agent.testing import ScriptedEngine, write_chain

ANSWERS = ["So.", "Not so."]
PAIR = PreferencePair(query="How?", chosen="So.", rejected="Not so.")
REQUEST = EvaluationRequest(
    user_id="ada",
    query="How?",
    candidates=tuple(Candidate(id=text, text=text) for text in ANSWERS),
)

# Of types and shapes that no parameter expects, or that only some do.
WRONG: tuple[Any, ...] = (
    object(),
    7,
    -1,
    True,
    float("nan"),
    b"bytes",
    "",
    "a\0b",
    [],
    [None],
    [object()],
    {},
    {"query": "How?"},
    {1: 2},
    (1, 2),
    iter([3]),
)

VALID: dict[str, Any] = {
    "entry_id": "an entry",
    "new": PreferencePair(query="How?", chosen="So.", rejected="Not so."),
    "user_id": "ada",
    "query": "How?",
    "candidates": ANSWERS,
    "pair": PAIR,
    "pairs": [PAIR],
    "stated": StatedPreference(text="Be brief."),
    "consent": True,
    "user_ids": ["ada"],
    "requests": [REQUEST],
    "request": REQUEST,
    "memory": None,
    "rows": [],
    "key": "k",
    "limit": 3,
    "count": 1,
    "candidate_id": "So.",
    "persona": "This person is in a hurry.",
    "criteria": [("Brevity", 100, "why")],
    "history": [PAIR],
    "names": [],
    "to": 1,
    "chain": 0,
    "before": None,
}
# What a parameter may take although no type of ours is meant, and methods that end an object.
SKIPPED = {"close", "aclose", "shared_store", "prepare", "edges"}


@pytest.fixture
def rm(tmp_path: Path) -> Iterator[PGenRM]:
    with PGenRM(engine=engine(), memory=tmp_path / "m", scaling=Scaling(individual=1)) as made:
        yield made


def engine() -> Engine:
    return ScriptedEngine(lambda prompt, sample: write_chain([7, 3]))


def refused_in_one_line(call: Callable[[], object], what: str) -> None:
    """The call may work; if it does not, the error is ours."""
    try:
        value = call()
        if inspect.isgenerator(value):
            list(value)
    except PGenRMError as error:
        said = str(error)
        assert said.strip(), what
        assert "\n" not in said, (what, said)
        assert "pydantic" not in said, (what, said)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def public_methods(holder: type) -> Iterator[str]:
    inherited = [vars(kind) for kind in holder.mro() if kind.__module__.startswith("pgenrm_agent")]
    members = {name: value for own in reversed(inherited) for name, value in own.items()}
    for name, value in members.items():
        twin = f"a{name}" in members
        public = callable(value) and not name.startswith("_") and name not in SKIPPED
        if public and (twin or not inspect.iscoroutinefunction(inspect.unwrap(value))):
            yield name


def walk(holder: object, given: dict[str, Any], only: str | None = None) -> int:
    """Call every public method with one wrong argument at a time; returns how many calls that were."""
    calls = 0
    for name in public_methods(type(holder)):
        if only not in (None, name):
            continue
        method = getattr(holder, name)
        parameters = inspect.signature(method).parameters
        valid = {
            parameter.name: given[parameter.name]
            for parameter in parameters.values()
            if parameter.default is parameter.empty
        }
        for parameter, wrong in itertools.product(parameters, WRONG):
            what = f"{type(holder).__name__}.{name}({parameter}={wrong!r})"
            refused_in_one_line(lambda: method(**{**valid, parameter: wrong}), what)  # noqa: B023
            calls += 1
    return calls


def test_the_memory_refuses_in_our_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with UserMemory(tmp_path / "memory") as memory:
        assert walk(memory, VALID | {"path": tmp_path / "rows.jsonl"}) > 100


def test_the_reward_model_refuses_in_our_words(rm: PGenRM, tmp_path: Path) -> None:
    for name in ("score", "rerank", "score_many", "remember", "state_preference", "forget"):
        assert walk(rm, VALID, only=name) >= len(WRONG)
    for parameter in ("k", "queries", "seed"):
        for wrong in ("x", -1, True, 0.5):
            with pytest.raises(ConfigurationError, match=parameter):
                rm.learn_prototypes(**{parameter: wrong})


def test_a_debug_session_refuses_in_our_words(tmp_path: Path) -> None:
    with DebugSession(engine=engine()) as session:
        run = session.start(REQUEST, scaling=Scaling(individual=1))
        while session.step(run).node != "generate_rubric":
            pass
        given = VALID | {"run": run, "left": run, "right": run, "text": "{}", "before": None}
        assert walk(session, given) > 200


@pytest.mark.parametrize(
    "make",
    [
        PGenRM,
        UserMemory,
        DebugSession,
        EvaluationCache,
        as_tool,
        memory_tools,
        as_node,
        as_reward_func,
        load_engine,
        ChainFormat.load,
    ],
)
def test_whatever_is_made_of_wrong_arguments_is_refused_in_our_words(
    rm: PGenRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path / "home"))
    given = {"reward_model": rm, "path": tmp_path / "c.sqlite", "name": "transformers"}
    given |= {"model": "./nowhere", "name_or_folder": "published"}
    parameters = inspect.signature(make).parameters

    def call(**arguments: Any) -> None:
        made = make(**arguments)
        if hasattr(made, "close"):
            made.close()

    for parameter, wrong in itertools.product(parameters.values(), WRONG):
        if parameter.kind is not parameter.VAR_KEYWORD:
            valid = {
                name: given[name]
                for name, needed in parameters.items()
                if needed.default is needed.empty and needed.kind is not needed.VAR_KEYWORD
            }
            what = f"{make.__qualname__}({parameter.name}={wrong!r})"
            refused_in_one_line(lambda: call(**{**valid, parameter.name: wrong}), what)  # noqa: B023


def test_every_public_model_refuses_in_our_words() -> None:
    models = [
        value
        for name in pgenrm_agent.__all__
        if isinstance(value := getattr(pgenrm_agent, name), type) and issubclass(value, Model)
    ]
    assert len(models) > 15
    for model in models:
        for field, wrong in itertools.product(model.model_fields, WRONG):
            what = f"{model.__name__}({field}={wrong!r})"
            refused_in_one_line(lambda: model(**{field: wrong}), what)  # noqa: B023
            refused_in_one_line(lambda: model.model_validate({field: wrong}), what)  # noqa: B023
        for wrong in WRONG:
            refused_in_one_line(lambda: model.model_validate(wrong), model.__name__)  # noqa: B023
        for text in ("", "{", "[]", "7", '{"id": 7}', b"\xff"):
            refused_in_one_line(lambda: model.model_validate_json(text), model.__name__)  # noqa: B023


def test_a_refusal_names_the_place_inside_a_model_and_the_value() -> None:
    with pytest.raises(InvalidInput, match=r"candidates\.1\.text: .*\(got 5\)") as refused:
        EvaluationRequest(
            user_id="ada",
            query="How?",
            candidates=[{"id": "a", "text": "So."}, {"id": "b", "text": 5}],  # type: ignore[arg-type]
        )
    assert refused.value.place == "candidates.1.text"
    assert isinstance(refused.value, ConfigurationError)
    assert isinstance(refused.value, ValueError)
    assert not isinstance(refused.value, ValidationError)
    with pytest.raises(InvalidInput, match=r"^this preference pair cannot be used: chosen and"):
        PreferencePair(query="How?", chosen="So.", rejected="So.")


def test_an_unknown_engine_is_refused_in_the_constructor() -> None:
    for wrong in ("vlm", "", "Transformers"):
        with pytest.raises(ConfigurationError, match=r"no engine named .*: use transformers, vllm"):
            PGenRM(engine=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="engine is 5"):
        PGenRM(engine=5)  # type: ignore[arg-type]


def test_a_history_takes_what_is_remembered_and_fields_as_well_as_objects(rm: PGenRM) -> None:
    fields: Any = {"query": "How?", "chosen": "So.", "rejected": "Not so.", "id": "c"}
    assert rm.remember("ada", fields) == "c"
    (kept,) = rm.memory.history("ada")
    told: Any = {"user_id": "ada", "history": [fields], "stated": [{"text": "Be brief."}]}
    for signals in (
        told,
        UserSignals.model_validate(told),
        UserSignals(user_id="ada", history=(kept,)),
    ):
        rm.score("ada", "How?", ANSWERS, signals=signals)
    asked: Any = [{"role": "user", "content": "Hello."}]
    turns = rm.score("ada", "How?", ANSWERS, conversation=asked).request.conversation
    assert turns == (Message(role="user", content="Hello."),)
    with DebugSession(engine=engine()) as session:
        run = session.start(REQUEST, scaling=Scaling(individual=1), signals=told)
        session.step(run)
        session.edit_history(run, [fields, kept], stated=[{"text": "In verse."}])  # type: ignore[list-item]
        known = session.state(run)["signals"]["ada"]
    assert [pair["id"] for pair in known["history"]] == ["c", "c"]
    assert known["stated"][0]["text"] == "In verse."


def test_what_is_asked_of_a_result_and_is_not_there_is_refused(rm: PGenRM) -> None:
    result: RerankResult = rm.rerank("ada", "How?", ANSWERS)
    evaluation: Evaluation = result.evaluation
    for wrong in WRONG:
        refused_in_one_line(lambda: evaluation.score_of(wrong), "score_of")  # noqa: B023
        refused_in_one_line(lambda: result.top(wrong), "top")  # noqa: B023
    with pytest.raises(ConfigurationError, match="no candidate has the id 'x'"):
        evaluation.score_of("x")
    for wrong in ((), [None], 5):
        refused_in_one_line(lambda: Rubric.normalized(wrong), "normalized")  # type: ignore[arg-type]  # noqa: B023


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\x1c", "\x85", "\ufeff", "\u3000", "\u2028"])
def test_what_is_blank_is_blank_in_every_dialect(text: str) -> None:
    with pytest.raises(InvalidInput, match="query: it is blank"):
        PreferencePair(query=text, chosen="So.", rejected="Not so.")
    described = PreferencePair.model_json_schema()["properties"]["query"]["pattern"]
    assert not re.search(described, text)
