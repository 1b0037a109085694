"""Rerankers, best-of-n and the node: LangChain's and LangGraph's own machinery around ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import SecretStr
from typing_extensions import TypedDict

from pgenrm_agent import as_node
from pgenrm_agent.errors import ConfigurationError, EngineTimeout, InvalidInput
from pgenrm_agent.integrations.langchain.best_of_n import BestOfN
from pgenrm_agent.integrations.langchain.node import EvaluationNode
from pgenrm_agent.integrations.langchain.reranker import PersonalDocumentReranker, PersonalReranker
from pgenrm_agent.reward_model import PGenRM, RerankResult
from pgenrm_agent.schema import Evaluation
from pgenrm_agent.testing import ScriptedEngine

ANSWERS = ["Fair. 5", "Good. 9", "Poor. 2"]


def test_a_reranker_keeps_the_original_places_and_scores(rm: PGenRM) -> None:
    result = PersonalReranker(reward_model=rm, user_id="ada").invoke(
        {"query": "How?", "candidates": ANSWERS}
    )
    assert [(item.index, item.score) for item in result] == [(1, 9.0), (0, 5.0), (2, 2.0)]


async def test_a_reranker_is_a_step_of_a_chain_and_takes_the_user_from_its_config(
    rm: PGenRM,
) -> None:
    def best(result: RerankResult) -> tuple[str, str]:
        return result[0].text, result.evaluation.request.user_id

    chain = PersonalReranker(reward_model=rm, top_n=1) | RunnableLambda(best)
    given: Any = {"query": "How?", "candidates": ANSWERS, "user_id": "bob"}
    assert await chain.ainvoke(given) == ("Good. 9", "bob")
    config: Any = {"configurable": {"user_id": "ada"}}
    assert chain.invoke(given, config) == ("Good. 9", "ada")
    assert len(PersonalReranker(reward_model=rm, top_n=2, user_id="ada").invoke(given)) == 2


def test_a_reranker_without_a_person_says_what_to_do(rm: PGenRM) -> None:
    with pytest.raises(ConfigurationError, match="no user is named"):
        PersonalReranker(reward_model=rm).invoke({"query": "How?", "candidates": ANSWERS})


def test_whatever_is_made_of_no_reward_model_is_refused_at_once(rm: PGenRM) -> None:
    chat = GenericFakeChatModel(messages=iter([]))
    for wrong in (None, "pgenrm-tiny", 5, PGenRM, ScriptedEngine("So."), chat):
        given: Any = {"reward_model": wrong}
        for make in (PersonalReranker, PersonalDocumentReranker):
            with pytest.raises(
                ConfigurationError, match="reward_model: a PGenRM is needed"
            ) as said:
                make(**given)
            assert "\n" not in str(said.value)
        with pytest.raises(ConfigurationError, match="reward_model: a PGenRM is needed"):
            BestOfN(model=chat, **given)
        fields = {"query": "query", "candidates": "answers", "user": "user", "to": "to"}
        for node in (as_node, EvaluationNode):
            with pytest.raises(ConfigurationError, match=r"reward_model is .*: pass a PGenRM"):
                node(**given, **fields)


@pytest.mark.parametrize(
    ("kind", "field", "wrong", "said"),
    [
        (PersonalReranker, "top_n", 0, "top_n: use 1 or more (got 0)"),
        (PersonalDocumentReranker, "fallback", "none", "fallback: use 'order' (got \"none\")"),
        (PersonalDocumentReranker, "user_id", 5, "user_id: a text is needed (got 5)"),
        (BestOfN, "n", 65, "n: use 64 or less (got 65)"),
        (BestOfN, "model", "gpt", 'model: a Runnable is needed (got "gpt")'),
    ],
)
def test_a_wrong_field_is_refused_in_our_words(
    rm: PGenRM, kind: Any, field: str, wrong: Any, said: str
) -> None:
    given = {"reward_model": rm, "model": GenericFakeChatModel(messages=iter([])), field: wrong}
    if kind is not BestOfN:
        del given["model"]
    with pytest.raises(InvalidInput) as refused:
        kind(**given)
    assert str(refused.value) == f"{kind.__name__} cannot be made: {said}"


async def test_documents_come_back_ordered_with_their_metadata_and_place(rm: PGenRM) -> None:
    documents = [Document("Fair. 5", metadata={"source": "a"}), Document(" "), Document("Good. 9")]
    reranker = PersonalDocumentReranker(reward_model=rm, user_id="ada")
    ranked = reranker.compress_documents(documents, "How?")
    assert [document.page_content for document in ranked] == ["Good. 9", "Fair. 5", " "]
    assert ranked[1].metadata == {"source": "a", "original_index": 0, "personal_score": 5.0}
    assert ranked[2].metadata == {"original_index": 1, "not_scored": "its text is blank"}
    assert documents[0].metadata == {"source": "a"}
    assert await reranker.acompress_documents(documents, "How?") == ranked
    assert reranker.compress_documents([], "How?") == []


class Shelf(BaseRetriever):
    """Finds the same documents whatever is asked."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document(text) for text in ANSWERS]


async def test_langchains_compression_retriever_takes_the_document_reranker(rm: PGenRM) -> None:
    def retriever(user_id: str | None = None) -> ContextualCompressionRetriever:
        reranker = PersonalDocumentReranker(reward_model=rm, user_id=user_id, top_n=2)
        return ContextualCompressionRetriever(base_compressor=reranker, base_retriever=Shelf())

    def texts(documents: list[Document]) -> list[str]:
        return [document.page_content for document in documents]

    expected = ["Good. 9", "Fair. 5"]
    assert texts(retriever("ada").invoke("How?")) == expected
    assert texts(await retriever("ada").ainvoke("How?")) == expected
    # As a step of a chain it is run for whom the chain is run for.
    config: Any = {"configurable": {"user_id": "ada"}}
    chain = RunnableLambda(str.strip) | retriever() | RunnableLambda(texts)
    assert chain.invoke(" How? ", config) == expected
    assert await chain.ainvoke(" How? ", config) == expected
    # By itself it hands no config on, and the error says what to do.
    with pytest.raises(ConfigurationError, match="pass user_id when making the reranker"):
        retriever().invoke("How?", config)


@pytest.fixture
def down(tmp_path: Path) -> Iterator[PGenRM]:
    """A reward model whose engine cannot be reached."""
    engine = ScriptedEngine("", fail_times=1000)
    with PGenRM(engine=engine, memory=tmp_path / "memory") as reward_model:
        yield reward_model


async def test_a_model_that_is_down_leaves_the_order_if_told_so(down: PGenRM) -> None:
    given: Any = {"query": "How?", "candidates": ANSWERS, "user_id": "ada"}
    with pytest.raises(EngineTimeout):
        PersonalReranker(reward_model=down).invoke(given)
    kept = PersonalReranker(reward_model=down, fallback="order")
    for result in (kept.invoke(given), await kept.ainvoke(given)):
        assert [(item.index, item.score) for item in result] == [(0, None), (1, None), (2, None)]
        assert "told to time out" in str(result.fallback)
    documents = PersonalDocumentReranker(reward_model=down, user_id="ada", fallback="order")
    ordered = await documents.acompress_documents([Document(text) for text in ANSWERS], "How?")
    assert [document.page_content for document in ordered] == ANSWERS
    assert all("told to time out" in document.metadata["not_scored"] for document in ordered)


async def test_best_of_n_keeps_what_it_has_paid_for_where_nothing_can_be_judged(
    down: PGenRM,
) -> None:
    usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    answers = [AIMessage(text, usage_metadata=usage) for text in ("", *ANSWERS)]
    for call in ("plain", "async"):
        best = BestOfN(model=model(*answers), reward_model=down, n=4, user_id="ada")
        answer = best.invoke("How?") if call == "plain" else await best.ainvoke("How?")
        assert answer.content == ANSWERS[0]
        basis = answer.response_metadata["pgenrm"]
        assert basis["index"] == 1
        assert "could not be judged" in basis["reason"]
        assert "told to time out" in basis["reason"]
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["total_tokens"] == 12


def test_best_of_n_gives_the_first_answer_where_no_chain_scores_enough_of_them(
    rm: PGenRM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unranked(*given: Any, **options: Any) -> Evaluation:
        evaluation = PGenRM.score(rm, *given, **options)
        return evaluation.model_copy(update={"ranking": (), "best": None})

    monkeypatch.setattr(rm, "score", unranked)
    best = BestOfN(model=model(*ANSWERS), reward_model=rm, n=3, user_id="ada")
    answer = best.invoke("How?")
    assert answer.content == ANSWERS[0]
    assert "scored enough" in answer.response_metadata["pgenrm"]["reason"]


def model(*answers: AIMessage | str) -> GenericFakeChatModel:
    # A list's iterator, because the n answers are fetched from several threads.
    made = [AIMessage(answer) if isinstance(answer, str) else answer for answer in answers]
    return GenericFakeChatModel(messages=iter(made))


async def test_best_of_n_returns_what_the_person_likes_best_with_the_evaluation(
    rm: PGenRM,
) -> None:
    asked = [
        SystemMessage("Be kind."),
        HumanMessage("Hello"),
        AIMessage("Hi."),
        HumanMessage("How?"),
    ]
    for call in ("invoke", "ainvoke"):
        best = BestOfN(model=model(*ANSWERS), reward_model=rm, n=3, user_id="ada")
        answer = best.invoke(asked) if call == "invoke" else await best.ainvoke(asked)
        assert answer.content == "Good. 9"
        told = answer.response_metadata["pgenrm"]
        evaluation = Evaluation.model_validate(told["evaluation"])
        assert (told["n"], told["index"]) in {(3, 0), (3, 1), (3, 2)}
        assert evaluation.request.query == "How?"
        assert [turn.role for turn in evaluation.request.conversation] == [
            "system",
            "user",
            "assistant",
        ]


async def test_nobody_gets_another_users_answer_from_a_cache(rm: PGenRM) -> None:
    cache = InMemoryCache()
    set_llm_cache(cache)
    try:
        for user in ("ada", "ben"):
            best = BestOfN(model=model(*ANSWERS), reward_model=rm, n=3, user_id=user)
            for answer in (
                best.invoke("How?"),
                await best.model_copy(update={"model": model(*ANSWERS)}).ainvoke("How?"),
            ):
                told = answer.response_metadata["pgenrm"]["evaluation"]
                assert told["request"]["user_id"] == user
        assert cache._cache == {} or all("best-of-n" not in key[1] for key in cache._cache)
        named = [
            BestOfN(
                model=model(*ANSWERS), reward_model=rm, n=3, user_id=user, cache=InMemoryCache()
            )
            for user in ("ada", "ben")
        ]
        assert named[0]._get_llm_string() != named[1]._get_llm_string()
    finally:
        set_llm_cache(None)


def test_a_model_that_counts_its_calls_goes_on_counting(rm: PGenRM) -> None:
    inner = FakeListChatModel(responses=["Fair. 5", "Good. 9", "Poor. 2", "Fine. 7"])
    best = BestOfN(model=inner, reward_model=rm, n=2, user_id="ada")
    assert [best.invoke("How?").content, best.invoke("How?").content] == ["Good. 9", "Fine. 7"]


def test_who_streams_messages_gets_the_answer_and_not_the_drafts(rm: PGenRM) -> None:
    best = BestOfN(model=model(*ANSWERS), reward_model=rm, n=3, user_id="ada")

    def respond(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [best.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("respond", respond)
    builder.add_edge(START, "respond")
    graph = builder.compile()
    asked: Any = {"messages": [HumanMessage("How?")]}
    shown = "".join(
        str(message.content) for message, _ in graph.stream(asked, stream_mode="messages")
    )
    assert shown == "Good. 9"


def test_best_of_n_shows_what_tools_returned_as_context(rm: PGenRM) -> None:
    asked = [
        HumanMessage([{"type": "text", "text": "Coat?"}]),
        AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "1"}]),
        ToolMessage("7 degrees", name="weather", tool_call_id="1"),
    ]
    best = BestOfN(model=model(*ANSWERS), reward_model=rm, n=3, user_id="ada")
    told = best.invoke(asked).response_metadata["pgenrm"]["evaluation"]["request"]
    assert told["query"] == "Coat?"
    assert [turn["content"] for turn in told["conversation"]] == [
        '(calls weather: {"city": "Oslo"})',
        "(weather returned: 7 degrees)",
    ]
    assert [each["text"] for each in told["candidates"]] == ANSWERS


def test_best_of_n_judges_for_whom_the_call_names(rm: PGenRM) -> None:
    best = BestOfN(model=model(*ANSWERS), reward_model=rm, n=3, user_id="ada")
    answer = best.invoke("How?", user_id="bob")
    assert answer.response_metadata["pgenrm"]["evaluation"]["request"]["user_id"] == "bob"


def test_best_of_n_adds_up_what_all_answers_cost(rm: PGenRM) -> None:
    usage: Any = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    answers = [AIMessage(text, usage_metadata=usage) for text in ANSWERS]
    answer = BestOfN(model=model(*answers), reward_model=rm, n=3, user_id="ada").invoke("How?")
    assert answer.usage_metadata == {"input_tokens": 9, "output_tokens": 6, "total_tokens": 15}


def test_best_of_n_lets_an_agents_tool_call_pass(rm: PGenRM) -> None:
    call: Any = {"name": "look_up", "args": {}, "id": "1", "type": "tool_call"}
    wrapped = BestOfN(
        model=model(*[AIMessage("", tool_calls=[call])] * 2), reward_model=rm, n=2, user_id="ada"
    )
    answer = wrapped.invoke("How?")
    assert isinstance(answer, AIMessage)
    assert answer.tool_calls
    assert answer.response_metadata["pgenrm"]["reason"] == "the first answer calls a tool"


class Flaky(GenericFakeChatModel):
    """Answers from a list in which some answers are errors."""

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        answer = next(self.messages)
        if isinstance(answer, Exception):
            raise answer
        return ChatResult(generations=[ChatGeneration(message=answer)])


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (TimeoutError("no answer within 60 s"), "TimeoutError: .*no answer within 60 s"),
        (ValueError({"message": "rate limited", "code": 429}), "ValueError: rate limited"),
        (RuntimeError("key sk-abcdefgh1234 refused"), r"RuntimeError: key \*\*\* refused"),
        (AIMessage(""), "it has no text"),
        (AIMessage("", additional_kwargs={"refusal": "I cannot."}), "it has no text"),
    ],
)
async def test_best_of_n_does_without_an_answer_that_is_lost(
    rm: PGenRM, lost: AIMessage | Exception, reason: str
) -> None:
    for call in ("invoke", "ainvoke"):
        answers = iter([lost, *(AIMessage(text) for text in ANSWERS)])
        best = BestOfN(model=Flaky(messages=answers), reward_model=rm, n=4, user_id="ada")  # type: ignore[arg-type]
        answer = best.invoke("How?") if call == "invoke" else await best.ainvoke("How?")
        assert answer.content == "Good. 9"
        told = answer.response_metadata["pgenrm"]
        assert told["n"] == 4
        [why] = told["left_out"].values()
        assert re.search(reason, why)
        assert len(told["evaluation"]["request"]["candidates"]) == len(ANSWERS)


class Keyed(Flaky):
    """A chat model with a key, as integrations have it."""

    provider_key: SecretStr = SecretStr("0f9e8d7c6b5a")


@pytest.mark.parametrize("bound", [False, True])
def test_best_of_n_tells_no_part_of_the_models_key(rm: PGenRM, bound: bool) -> None:
    lost = RuntimeError("401: 0f9e8d7c6b5a is not valid, nor 0f9e8d7c")
    keyed: Any = Keyed(messages=iter([lost, *map(AIMessage, ANSWERS)]))  # type: ignore[arg-type]
    model = keyed.bind(tag="x").with_retry(stop_after_attempt=1) if bound else keyed
    answer = BestOfN(model=model, reward_model=rm, n=4, user_id="ada").invoke("How?")
    [why] = answer.response_metadata["pgenrm"]["left_out"].values()
    assert "is not valid" in why
    assert "0f9e" not in why


def test_best_of_n_gives_the_only_answer_that_came(rm: PGenRM) -> None:
    answers = iter([OSError("gone"), AIMessage("So."), OSError("gone")])
    best = BestOfN(model=Flaky(messages=answers), reward_model=rm, n=3, user_id="ada")  # type: ignore[arg-type]
    answer = best.invoke("How?")
    assert answer.content == "So."
    assert answer.response_metadata["pgenrm"]["reason"] == "only one answer can be used"


def test_best_of_n_raises_what_the_model_raises_where_every_answer_fails(rm: PGenRM) -> None:
    answers = iter([OSError("gone"), OSError("gone")])
    best = BestOfN(model=Flaky(messages=answers), reward_model=rm, n=2, user_id="ada")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="gone"):
        best.invoke("How?")


class WithTools(GenericFakeChatModel):
    """Answers with the names of the tools that are bound to it."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        names = ", ".join(tool.name for tool in tools)
        return WithTools(messages=iter([AIMessage(f"{names}. {mark}") for mark in (4, 9)]))


def test_tools_are_bound_to_the_wrapped_model(rm: PGenRM) -> None:
    @tool
    def look_up(word: str) -> str:
        """Look a word up."""
        return word

    best = BestOfN(model=WithTools(messages=iter([])), reward_model=rm, n=2, user_id="ada")
    answer = best.bind_tools([look_up]).invoke("How?")
    assert answer.content == "look_up. 9"
    bound = BestOfN(model=RunnableLambda(lambda _: AIMessage("So.")), reward_model=rm)
    with pytest.raises(ConfigurationError, match="bind them before wrapping it"):
        bound.bind_tools([look_up])


def test_best_of_n_without_a_person_or_a_question_says_so(rm: PGenRM) -> None:
    with pytest.raises(ConfigurationError, match="no user is named"):
        BestOfN(model=model("So."), reward_model=rm, n=1).invoke("How?")
    for messages in ([AIMessage("Hi.")], [HumanMessage(" ")]):
        with pytest.raises(ConfigurationError, match="no question"):
            BestOfN(model=model("So."), reward_model=rm, n=1, user_id="ada").invoke(messages)


class Own(TypedDict, total=False):
    person: str
    query: str
    drafts: list[str]
    evaluation: dict[str, object]


def own_graph(rm: PGenRM, checkpointer: InMemorySaver | None = None) -> Any:
    graph = StateGraph(Own)
    graph.add_node("draft", lambda state: {"drafts": ANSWERS})
    graph.add_node("judge", as_node(rm, candidates="drafts", user="person"))
    graph.add_edge(START, "draft")
    graph.add_edge("draft", "judge")
    graph.add_edge("judge", END)
    return graph.compile(checkpointer=checkpointer)


async def test_a_graph_of_ones_own_embeds_the_evaluation_graph(rm: PGenRM) -> None:
    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "1"}}
    stages = []
    async for path, part in own_graph(rm, saver).astream(
        {"person": "ada", "query": "How?"}, config, subgraphs=True, stream_mode="updates"
    ):
        stages += list(part) if path else []
    assert stages == [
        "recall",
        "derive_persona",
        "match_prototype",
        "generate_rubric",
        "sample_scores",
        "aggregate",
    ]
    kept = await own_graph(rm, saver).aget_state(config)
    assert Evaluation.model_validate(kept.values["evaluation"]).best == "answer-2"


def test_a_plain_graph_runs_the_same_node(rm: PGenRM) -> None:
    done = own_graph(rm).invoke({"person": "ada", "query": "How?"})
    assert Evaluation.model_validate(done["evaluation"]).best == "answer-2"


def test_a_state_without_a_field_is_named(rm: PGenRM) -> None:
    with pytest.raises(ConfigurationError, match="has no person"):
        own_graph(rm).invoke({"query": "How?"})


@pytest.mark.parametrize(
    "given", ["How?", {"question": "How?", "candidates": ANSWERS}, {"query": "q"}]
)
async def test_a_rerankers_input_without_query_or_candidates_is_refused(
    rm: PGenRM, given: Any
) -> None:
    reranker = PersonalReranker(reward_model=rm, user_id="ada")
    with pytest.raises(ConfigurationError, match=r'pass {"query": \.\.\., "candidates": '):
        reranker.invoke(given)
    with pytest.raises(ConfigurationError, match=r'pass {"query": \.\.\., "candidates": '):
        await reranker.ainvoke(given)
