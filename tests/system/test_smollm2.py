"""A real instruct model as a judge, in the format of any judge: every chain it writes can be read.

What SmolLM2-135M writes means nothing; that it has the form does.
"""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest
from vllm_server import Server

from pgenrm_agent import Candidate, Engine, Evaluation, EvaluationRequest, PGenRM, Scaling
from pgenrm_agent.chain import ChainFormat, read_criteria, written_persona
from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.schema import PreferencePair, UserSignals

pytestmark = pytest.mark.long

CHAINS = 5
SIGNALS = UserSignals(
    user_id="ada",
    history=(
        PreferencePair(
            query="How do I cook rice?",
            chosen="- Rinse it.\n- Boil it.",
            rejected="Rice is such a joy, and my grandmother could talk about it all day.",
        ),
    ),
)
QUERY = "How do I keep basil alive?"
ANSWERS = ("- Water it.\n- Give it light.", "Basil is a tender annual that rewards patience.")


@pytest.fixture(scope="module")
def short_chains(tmp_path_factory: pytest.TempPathFactory) -> ChainFormat:
    """The format of any judge with shorter texts: the model fills every string it is given."""
    folder = tmp_path_factory.mktemp("format") / "structured-short"
    with resources.as_file(
        resources.files("pgenrm_agent.chain") / "formats" / "structured-1"
    ) as shipped:
        shutil.copytree(shipped, folder)
    settings = json.loads((folder / "format.json").read_text())
    settings |= {
        "name": "structured-short",
        "lengths": {"persona": 40, "name": 14, "reason": 16, "why": 20},
    }
    (folder / "format.json").write_text(json.dumps(settings))
    return ChainFormat.load(folder)


@pytest.fixture(scope="module")
def in_process(smollm2: Path) -> Engine:
    from pgenrm_agent.engines.transformers import TransformersEngine

    return TransformersEngine(smollm2, device="cpu")


@pytest.fixture(scope="module")
def served(smollm2_server: Server) -> Engine:
    from pgenrm_agent.engines.openai import OpenAIEngine

    server = smollm2_server
    return OpenAIEngine(server.model, base_url=server.url, api_key=server.key, timeout_s=500)


def scored(engine: Engine, chain_format: ChainFormat, *, staged: bool) -> Evaluation:
    scaling = Scaling(individual=CHAINS, prototype=0, resamples=0, seed=1)
    with PGenRM(engine=engine, chain_format=chain_format, scaling=scaling, staged=staged) as rm:
        return rm.score("ada", QUERY, ANSWERS, signals=SIGNALS)


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


@pytest.mark.parametrize("staged", [False, True])
def test_every_chain_of_a_model_in_this_process_can_be_read(
    in_process: Engine, short_chains: ChainFormat, staged: bool
) -> None:
    check(scored(in_process, short_chains, staged=staged))


@pytest.mark.parametrize("staged", [False, True])
def test_every_chain_of_a_model_behind_a_server_can_be_read(
    served: Engine, short_chains: ChainFormat, staged: bool
) -> None:
    check(scored(served, short_chains, staged=staged))


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
