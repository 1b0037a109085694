"""A real instruct model as a judge, in the format of any judge: every chain it writes can be read.

What SmolLM2-135M writes means nothing; that it has the form does.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vllm_server import Server

from pgenrm_agent import Candidate, Engine, Evaluation, EvaluationRequest, PGenRM, Scaling
from pgenrm_agent.chain import ChainFormat, read_criteria, written_persona
from pgenrm_agent.debugging import DebugSession
from studies.smollm2.study import (
    ANSWERS,
    QUERY,
    SIGNALS,
    WAYS,
    Way,
    score_chains,
    short_format,
)

pytestmark = pytest.mark.long

CHAINS = 5


@pytest.fixture(scope="module")
def short_chains(tmp_path_factory: pytest.TempPathFactory) -> ChainFormat:
    """The format of any judge with shorter texts: the model fills every string it is given."""
    return short_format(tmp_path_factory.mktemp("format") / "structured-short")


@pytest.fixture(scope="module")
def in_process(smollm2: Path) -> Engine:
    from pgenrm_agent.engines.transformers import TransformersEngine

    return TransformersEngine(smollm2, device="cpu")


@pytest.fixture(scope="module")
def served(smollm2_server: Server) -> Engine:
    from pgenrm_agent.engines.openai import OpenAIEngine

    server = smollm2_server
    return OpenAIEngine(server.model, base_url=server.url, api_key=server.key, timeout_s=500)


def check(evaluation: Evaluation) -> None:
    assert not evaluation.failures
    assert len(evaluation.chains) == CHAINS
    for chain in evaluation.chains:
        assert set(chain.totals) == {"answer-1", "answer-2"}
        assert chain.totals_from == "marks"
        assert chain.rubric is not None
        assert 3 <= len(chain.rubric.criteria) <= 6
        assert None not in (mark for row in chain.marks.values() for mark in row)
        assert set(chain.reasons) == {"answer-1", "answer-2"}
        assert set(chain.repairs) <= {"weights_normalized"}
    assert len({chain.text for chain in evaluation.chains}) == len(evaluation.chains)


@pytest.mark.parametrize("way", WAYS)
async def test_every_chain_of_a_model_in_this_process_can_be_read(
    in_process: Engine, short_chains: ChainFormat, way: Way
) -> None:
    check(await score_chains(in_process, short_chains, way=way, chains=CHAINS, seed=1))


@pytest.mark.parametrize("way", WAYS)
async def test_every_chain_of_a_model_behind_a_server_can_be_read(
    served: Engine, short_chains: ChainFormat, way: Way
) -> None:
    check(await score_chains(served, short_chains, way=way, chains=CHAINS, seed=1))


def test_it_is_asked_for_the_shipped_format_without_being_told(in_process: Engine) -> None:
    scaling = Scaling(individual=1, prototype=0, resamples=0, seed=1)
    with PGenRM(engine=in_process, scaling=scaling) as rm:
        (chain,) = rm.score("ada", QUERY, ANSWERS, signals=SIGNALS).chains
    assert set(json.loads(chain.text)) == {"persona", "criteria", "scores"}


def test_an_edited_persona_changes_the_rubric_and_an_unedited_one_does_not(
    in_process: Engine, short_chains: ChainFormat
) -> None:
    """Same seeds: what else the rubric depends on is the same."""
    chains = 10
    request = EvaluationRequest(
        user_id="ada",
        query=QUERY,
        candidates=tuple(Candidate(id=text[:7].strip(), text=text) for text in ANSWERS),
    )

    with DebugSession(engine=in_process, chain_format=short_chains) as session:

        def texts(run: str) -> list[str]:
            return [draft["text"] for draft in session.state(run)["chains"]]

        def rubrics(run: str) -> list[list[str]]:
            return [[item.name for item in read_criteria(text)] for text in texts(run)]

        scaling = Scaling(individual=chains, prototype=0, seed=1)
        run = session.start(request, signals=SIGNALS, scaling=scaling)
        session.resume(run, ["after:derive_persona"])
        unedited, edited = session.fork(run), session.fork(run)
        for number, text in enumerate(texts(run)):
            session.edit_persona(unedited, written_persona(text) or "", chain=number)
            persona = f"Collects jokes, number {number}, and wants every answer in rhyme."
            session.edit_persona(edited, persona, chain=number)
            asked = session.prompt(edited, number)
            assert any(persona in message.content for message in asked)
        for each in (run, unedited, edited):
            session.step(each)  # match_prototype
            session.step(each)  # generate_rubric
        before, same, after = rubrics(run), rubrics(unedited), rubrics(edited)
        assert all(before)
        assert same == before
        assert sum(old != new for old, new in zip(before, after, strict=True)) >= 9
