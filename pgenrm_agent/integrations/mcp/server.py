"""The MCP server: `create_mcp_server` for a program, `pgenrm mcp` for a shell. Needs extra `mcp`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from importlib.metadata import version
from typing import Annotated, Literal, TypeVar

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, BeforeValidator, Field

from pgenrm_agent.aggregation import typical_chain
from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.evaluation_run import Progress
from pgenrm_agent.fields import MAX_CANDIDATES, YesOrNo
from pgenrm_agent.integrations.langchain.tool import describe
from pgenrm_agent.ranking import RerankItem, ranking_of
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import (
    CandidateScore,
    Evaluation,
    Evidence,
    PreferencePair,
    Rubric,
    StatedPreference,
    Usage,
)
from pgenrm_agent.user_ids import valid_user_id

__all__ = ["Forgotten", "Ranking", "Remembered", "Scores", "create_mcp_server"]

T = TypeVar("T")
STAGES = 6  # of the evaluation graph

# A plain `str`: what is given for another type is read as JSON by the SDK, and the id "null" is gone.
UserArgument = Annotated[
    str,
    BeforeValidator(lambda given: "" if given is None else given),
    Field(description="Id of the user; not needed where the server serves one user."),
]
QueryArgument = Annotated[str, Field(description="What the user asked.")]
CandidatesArgument = Annotated[
    list[str],
    Field(description="The candidate answers, in full.", min_length=1, max_length=MAX_CANDIDATES),
]


TimeoutArgument = Annotated[
    float | None,
    Field(
        description="Seconds after which what has been sampled by then has to do.",
        gt=0,
        allow_inf_nan=False,
    ),
]


class Scores(BaseModel):
    """Structured output of `score`: scores in the candidates' order, and why."""

    scores: list[CandidateScore]
    ranking: list[str]
    best: str | None
    persona: str | None
    rubric: Rubric | None
    evidence: Evidence
    usage: Usage
    seed: int


class Ranking(BaseModel):
    """Structured output of `rerank`: best first, those not scored last."""

    items: tuple[RerankItem, ...]
    evidence: Evidence
    usage: Usage
    seed: int


class Remembered(BaseModel):
    """Structured output of `remember` and `state_preference`."""

    id: str


class Forgotten(BaseModel):
    """Structured output of `forget`: how many entries were removed."""

    forgotten: int


def create_mcp_server(reward_model: PGenRM, *, user_id: str | None = None) -> MCPServer:
    """Return an MCP server around `reward_model`, which stays the caller's to close.

    A request that cannot be met is answered as a tool error that says why.

    Args:
        reward_model: What judges and remembers.
        user_id: The one user this server is for. The tools then judge and remember for that user,
            and refuse a call that names another. Left out, every call has to name a user, and the
            client can ask about anybody in the memory.

    Raises:
        ConfigurationError: `user_id` is no usable id.
    """
    only = None if user_id is None else valid_user_id(user_id)
    server = MCPServer(
        "pgenrm",
        title="pgenrm-agent",
        version=version("pgenrm-agent"),
        instructions=(
            "Tells how much one particular user would like each candidate answer, judging from "
            "what that user preferred before. Use rerank to pick among drafts, score to see why, "
            "remember when the user picks an answer, state_preference when they say what they "
            "want, and forget only when they ask to be forgotten."
        ),
        log_level="WARNING",
    )

    def user(named: str) -> str:
        if not named:
            if only is None:
                raise ToolError("user_id is missing: pass the id of the user")
            return only
        try:
            asked = valid_user_id(named)
        except ConfigurationError as error:
            raise ToolError(str(error)) from error
        if only not in (None, asked):
            raise ToolError("this server is for one user only: leave user_id out")
        return asked

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def score(
        query: QueryArgument,
        candidates: CandidatesArgument,
        ctx: Context,
        user_id: UserArgument = "",
        timeout_s: TimeoutArgument = None,
    ) -> Annotated[CallToolResult, Scores]:
        """Score candidate answers for one user, 1 to 10, with the persona and rubric behind it."""
        evaluation = await _told(
            _evaluated(reward_model, ctx, user(user_id), query, candidates, timeout_s)
        )
        own = [chain for chain in evaluation.chains if chain.level == "individual"]
        shown = typical_chain(evaluation, own) if own else None
        scores = Scores(
            scores=list(evaluation.scores),
            ranking=list(evaluation.ranking),
            best=evaluation.best,
            persona=shown.persona.text if shown else None,
            rubric=shown.rubric if shown else None,
            evidence=evaluation.evidence,
            usage=evaluation.usage,
            seed=evaluation.seed,
        )
        content = [describe(evaluation)]
        if scores.persona:
            content.append(f"Persona: {scores.persona}")
        if scores.rubric:
            content.append(_rubric(scores.rubric))
        return _result(content, scores)

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def rerank(
        query: QueryArgument,
        candidates: CandidatesArgument,
        ctx: Context,
        user_id: UserArgument = "",
        timeout_s: TimeoutArgument = None,
    ) -> Annotated[CallToolResult, Ranking]:
        """Order candidate answers by how much one user would like them, best first."""
        evaluation = await _told(
            _evaluated(reward_model, ctx, user(user_id), query, candidates, timeout_s)
        )
        ranking = Ranking(
            items=ranking_of(evaluation).items,
            evidence=evaluation.evidence,
            usage=evaluation.usage,
            seed=evaluation.seed,
        )
        return _result([describe(evaluation)], ranking)

    @server.tool(annotations=ToolAnnotations(destructive_hint=False))
    async def remember(
        query: QueryArgument,
        chosen: Annotated[str, Field(description="The answer the user preferred, in full.")],
        rejected: Annotated[str, Field(description="The answer the user liked less, in full.")],
        user_id: UserArgument = "",
    ) -> Remembered:
        """Remember that the user preferred one answer to another."""
        named = user(user_id)

        async def store() -> str:
            pair = PreferencePair(query=query, chosen=chosen, rejected=rejected)
            return await reward_model.aremember(named, pair)

        return Remembered(id=await _told(store()))

    @server.tool(annotations=ToolAnnotations(destructive_hint=False, idempotent_hint=True))
    async def state_preference(
        text: Annotated[str, Field(description="What the user said, in their words.")],
        kind: Literal["style", "self_description", "demographics", "attributes"] = "style",
        user_id: UserArgument = "",
    ) -> Remembered:
        """Remember what the user says they want from answers."""
        named = user(user_id)

        async def store() -> str:
            return await reward_model.astate_preference(
                named, StatedPreference(kind=kind, text=text)
            )

        return Remembered(id=await _told(store()))

    @server.tool(annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=True))
    async def forget(
        confirmed: Annotated[
            YesOrNo, Field(description="True only when the user has asked to be forgotten.")
        ],
        user_id: UserArgument = "",
    ) -> Forgotten:
        """Remove everything that is remembered about the user, for good."""
        named = user(user_id)
        if not confirmed:
            raise ToolError("nothing was removed: ask the user first, then pass confirmed=true")
        return Forgotten(forgotten=await _told(reward_model.aforget(named)))

    return server


async def _told(work: Awaitable[T]) -> T:
    """Return the result of `work`; what went wrong on purpose becomes an error the client can read."""
    try:
        return await work
    except PGenRMError as error:
        raise ToolError(str(error)) from error


async def _evaluated(
    reward_model: PGenRM,
    ctx: Context,
    user: str,
    query: str,
    candidates: list[str],
    timeout_s: float | None,
) -> Evaluation:
    """Score, telling the client about every stage."""
    done = 0
    telling: set[asyncio.Task[None]] = set()

    def tell(progress: Progress) -> None:
        nonlocal done
        done += 1
        task = asyncio.ensure_future(ctx.report_progress(done, STAGES, progress.stage))
        telling.add(task)

    try:
        return await reward_model.ascore(
            user, query, candidates, timeout=timeout_s, on_progress=tell
        )
    finally:
        await asyncio.gather(*telling, return_exceptions=True)


def _rubric(rubric: Rubric) -> str:
    lines = [
        f"- {criterion.name}, {criterion.weight:.0f} %"
        + (f": {criterion.reason}" if criterion.reason else "")
        for criterion in rubric.criteria
    ]
    return "\n".join(["Rubric:", *lines])


def _result(texts: list[str], structured: BaseModel) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text) for text in texts],
        structured_content=structured.model_dump(mode="json"),
    )
