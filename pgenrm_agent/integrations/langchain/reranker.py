"""Rerankers for LangChain: over candidate answers, and over a retriever's documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
    Callbacks,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.langchain.refusals import RefusesInOurWords
from pgenrm_agent.integrations.langchain.user import user_of_run
from pgenrm_agent.ranking import Fallback, RerankResult
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Candidate, Message, UserSignals
from pgenrm_agent.user_ids import valid_user_id

__all__ = ["PersonalDocumentReranker", "PersonalReranker", "RerankInput"]

TopN = Annotated[int, Field(ge=1)]


class RerankInput(TypedDict):
    """What `PersonalReranker` is invoked with; the fields are the arguments of `PGenRM.rerank`."""

    query: str
    candidates: Sequence[str | Candidate]
    user_id: NotRequired[str]
    conversation: NotRequired[Sequence[Message]]
    signals: NotRequired[UserSignals]


class PersonalReranker(RefusesInOurWords, RunnableSerializable[RerankInput, RerankResult]):
    """Candidate answers in, the same answers out, what one user would like best first.

    Every item keeps its place in the input (`index`) and its `score`. Those that could not be
    scored come last and say why. Raises ConfigurationError when it is made with a field that is of no
    use or nobody is named, and what `PGenRM.rerank` raises.

    Attributes:
        reward_model: What judges.
        user_id: Whose taste counts. Left out: `config["configurable"]["user_id"]` or the `context`
            of the run, else the input's.
        top_n: How many items to return; None means all.
        fallback: "order" for the order given, where the model cannot be asked.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reward_model: PGenRM = Field(exclude=True, repr=False)
    user_id: str | None = None
    top_n: TopN | None = None
    fallback: Fallback | None = None

    def invoke(
        self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RerankResult:
        """Return the candidates in order, best first."""
        return self._call_with_config(self._rerank, input, config, **kwargs)

    async def ainvoke(
        self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RerankResult:
        """Return the candidates in order, best first."""
        return await self._acall_with_config(self._arerank, input, config, **kwargs)

    def _rerank(
        self, given: RerankInput, run_manager: CallbackManagerForChainRun, config: RunnableConfig
    ) -> RerankResult:
        given = _asked(given)
        return self._cut(
            self.reward_model.rerank(
                _user(self.user_id, config, given.get("user_id")),
                given["query"],
                given["candidates"],
                conversation=given.get("conversation", ()),
                signals=given.get("signals"),
                fallback=self.fallback,
            )
        )

    async def _arerank(
        self,
        given: RerankInput,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> RerankResult:
        given = _asked(given)
        return self._cut(
            await self.reward_model.arerank(
                _user(self.user_id, config, given.get("user_id")),
                given["query"],
                given["candidates"],
                conversation=given.get("conversation", ()),
                signals=given.get("signals"),
                fallback=self.fallback,
            )
        )

    def _cut(self, result: RerankResult) -> RerankResult:
        return result.model_copy(update={"items": result.items[: self.top_n]})


def _asked(given: RerankInput) -> RerankInput:
    """Refuse an input without a query or candidates, such as a text."""
    if not isinstance(given, Mapping) or not {"query", "candidates"} <= given.keys():
        raise ConfigurationError(
            f"the reranker's input is {ascii(given)[:80]}: pass"
            ' {"query": ..., "candidates": [...]}'
        )
    return given


class PersonalDocumentReranker(RefusesInOurWords, BaseDocumentCompressor):
    """Orders a retriever's documents by what one user would like best, for compression retrievers.

    Each document returned is a copy with new metadata: `original_index`, its place in the input;
    and `personal_score` (1-10), or `not_scored` with the reason, as for a blank document. Raises as
    `PersonalReranker` does.

    Attributes:
        reward_model: What judges.
        user_id: Whose taste counts. Left out: that of the config or context of the chain or
            graph in which the retriever is a step. A retriever called by itself hands no config on:
            make the reranker with `user_id` then.
        top_n: How many documents to return; None means all.
        fallback: "order" for the order given, where the model cannot be asked.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reward_model: PGenRM = Field(exclude=True, repr=False)
    user_id: str | None = None
    top_n: TopN | None = None
    fallback: Fallback | None = None

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents in order, best first."""
        user, candidates = _user(self.user_id, None, None), _candidates(documents)
        if not candidates:
            return []
        result = self.reward_model.rerank(
            user, query, candidates, config={"callbacks": callbacks}, fallback=self.fallback
        )
        return self._ordered(documents, result)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents in order, best first."""
        user, candidates = _user(self.user_id, None, None), _candidates(documents)
        if not candidates:
            return []
        result = await self.reward_model.arerank(
            user, query, candidates, config={"callbacks": callbacks}, fallback=self.fallback
        )
        return self._ordered(documents, result)

    def _ordered(self, documents: Sequence[Document], result: RerankResult) -> list[Document]:
        ordered = []
        for item in result.items[: self.top_n]:
            document = documents[item.index]
            note: dict[str, object] = (
                {"not_scored": item.reason}
                if item.score is None
                else {"personal_score": item.score}
            )
            metadata = {**document.metadata, "original_index": item.index, **note}
            ordered.append(document.model_copy(update={"metadata": metadata}))
        return ordered


def _candidates(documents: Sequence[Document]) -> list[Candidate]:
    """Return the documents as candidates, each with its place as the id."""
    return [
        Candidate(id=str(index), text=document.page_content)
        for index, document in enumerate(documents)
    ]


def _user(bound: str | None, config: RunnableConfig | None, given: str | None) -> str:
    user = bound if bound is not None else user_of_run(config)
    user = given if user is None else user
    if user is None:
        raise ConfigurationError(
            "no user is named: pass user_id when making the reranker, or run the chain or graph "
            'that it is a step of with config={"configurable": {"user_id": ...}}, or with context='
        )
    return valid_user_id(user)
