"""The MCP server: `create_mcp_server` for a program, `pgenrm mcp` for a shell. Needs extra `mcp`."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypeVar

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from pgenrm_agent.aggregation import typical_chain
from pgenrm_agent.client import Client
from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.evaluation_run import Progress
from pgenrm_agent.fields import MAX_CANDIDATES, YesOrNo
from pgenrm_agent.memory.corrections import Entry, entry_of
from pgenrm_agent.ranking import RerankItem, describe, ranking_of
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
from pgenrm_agent.wording import place_of, said_of

logger = logging.getLogger(__name__)

T = TypeVar("T")
Tool = TypeVar("Tool", bound=Callable[..., Awaitable[Any]])
STAGES = 6  # of the evaluation graph
LOAD_AFTER_S = 0.5
"""How long after a client's first message the model is loaded: the answer goes out first."""

# A plain `str`: what is given for another type is read as JSON by the SDK, and the id "null" is gone.
UserArgument = Annotated[
    str,
    BeforeValidator(lambda given: "" if given is None else given),
    Field(description="Id of the user."),
]
QueryArgument = Annotated[str, Field(description="What the user asked.")]
EntryArgument = Annotated[
    str, Field(description="Id of the choice or statement, as list_remembered shows it.")
]
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


class RememberedEntries(BaseModel):
    """Structured output of `list_remembered`: choices, then statements, oldest first."""

    entries: tuple[Entry, ...]


class Forgotten(BaseModel):
    """Structured output of `forget` and `forget_entry`: how many entries were removed."""

    forgotten: int


def create_mcp_server(reward_model: PGenRM | Client, *, user_id: str | None = None) -> MCPServer:
    """Return an MCP server around `reward_model`, which stays the caller's to close.

    A request that cannot be met is answered as a tool error that says why.

    Args:
        reward_model: What judges and remembers; with a client, the server of that client.
        user_id: The one user this server is for. The tools then have no argument `user_id`: they
            judge and remember for that user, and refuse a call that names another all the same. Left
            out, every call has to name a user, and the client can ask about anybody in the memory.

    Raises:
        ConfigurationError: `user_id` is no usable id.
    """
    only = None if user_id is None else valid_user_id(user_id)
    server = _Server(
        only,
        "pgenrm",
        title="pgenrm-agent",
        version=version("pgenrm-agent"),
        instructions=(
            "Tells how much one particular user would like each candidate answer, judging from "
            "what that user preferred before. Use rerank to pick among drafts, score to see why, "
            "remember when the user picks an answer, state_preference when they say what they "
            "want, list_remembered with correct or forget_entry when something remembered is wrong, and"
            " forget only when they ask to be forgotten."
        ),
        log_level="WARNING",
    )

    def tool(**hints: bool) -> Callable[[Tool], Tool]:
        """Register a tool; of a server for one user, without its argument `user_id`."""

        def register(work: Tool) -> Tool:
            shown = work if only is None else _for_user(work, only)
            server.add_tool(shown, annotations=ToolAnnotations(**hints))
            return work

        return register

    @tool(read_only_hint=True)
    async def score(
        query: QueryArgument,
        candidates: CandidatesArgument,
        ctx: Context,
        user_id: UserArgument,
        timeout_s: TimeoutArgument = None,
    ) -> Annotated[CallToolResult, Scores]:
        """Score candidate answers for one user, 1 to 10, with the persona and rubric behind it."""
        evaluation = await _told(
            _evaluated(reward_model, ctx, _user(user_id), query, candidates, timeout_s)
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

    @tool(read_only_hint=True)
    async def rerank(
        query: QueryArgument,
        candidates: CandidatesArgument,
        ctx: Context,
        user_id: UserArgument,
        timeout_s: TimeoutArgument = None,
    ) -> Annotated[CallToolResult, Ranking]:
        """Order candidate answers by how much one user would like them, best first."""
        evaluation = await _told(
            _evaluated(reward_model, ctx, _user(user_id), query, candidates, timeout_s)
        )
        ranking = Ranking(
            items=ranking_of(evaluation).items,
            evidence=evaluation.evidence,
            usage=evaluation.usage,
            seed=evaluation.seed,
        )
        return _result([describe(evaluation)], ranking)

    @tool(destructive_hint=False)
    async def remember(
        query: QueryArgument,
        chosen: Annotated[str, Field(description="The answer the user preferred, in full.")],
        rejected: Annotated[str, Field(description="The answer the user liked less, in full.")],
        user_id: UserArgument,
    ) -> Remembered:
        """Remember that the user preferred one answer to another."""
        named = _user(user_id)

        async def store() -> str:
            pair = PreferencePair(query=query, chosen=chosen, rejected=rejected)
            return await reward_model.aremember(named, pair)

        return Remembered(id=await _told(store()))

    @tool(destructive_hint=False, idempotent_hint=True)
    async def state_preference(
        text: Annotated[str, Field(description="What the user said, in their words.")],
        kind: Literal["style", "self_description", "demographics", "attributes"] = "style",
        *,
        user_id: UserArgument,
    ) -> Remembered:
        """Remember what the user says they want from answers."""
        named = _user(user_id)

        async def store() -> str:
            return await reward_model.astate_preference(
                named, StatedPreference(kind=kind, text=text)
            )

        return Remembered(id=await _told(store()))

    @tool(read_only_hint=True)
    async def list_remembered(user_id: UserArgument) -> RememberedEntries:
        """List what is remembered of the user, each with its id and what has overruled it."""
        return RememberedEntries(entries=await _told(reward_model.aentries(_user(user_id))))

    @tool(destructive_hint=True, idempotent_hint=True)
    async def correct(
        id: EntryArgument,
        text: Annotated[str, Field(description="Of a statement: what the user wants.")] = "",
        query: Annotated[str, Field(description="Of a choice: what was asked.")] = "",
        chosen: Annotated[str, Field(description="Of a choice: the preferred answer.")] = "",
        rejected: Annotated[str, Field(description="Of a choice: the answer liked less.")] = "",
        *,
        user_id: UserArgument,
    ) -> Remembered:
        """Correct one choice or statement that was remembered wrongly; what is not said stays."""
        named = _user(user_id)

        async def store() -> str:
            entry = entry_of(await reward_model.aentries(named), id)
            new = entry.changed(text=text, query=query, chosen=chosen, rejected=rejected)
            return await reward_model.acorrect(named, id, new)

        return Remembered(id=await _told(store()))

    @tool(destructive_hint=True, idempotent_hint=True)
    async def forget_entry(id: EntryArgument, user_id: UserArgument) -> Forgotten:
        """Remove one choice or statement of the user, when they ask for it."""
        return Forgotten(forgotten=int(await _told(reward_model.aforget_entry(_user(user_id), id))))

    @tool(destructive_hint=True, idempotent_hint=True)
    async def forget(
        confirmed: Annotated[
            YesOrNo, Field(description="True only when the user has asked to be forgotten.")
        ],
        user_id: UserArgument,
    ) -> Forgotten:
        """Remove everything that is remembered about the user, for good."""
        named = _user(user_id)
        if not confirmed:
            raise ToolError("nothing was removed: ask the user first, then pass confirmed=true")
        return Forgotten(forgotten=await _told(reward_model.aforget(named)))

    return server


def load_when_met(server: MCPServer, reward_model: PGenRM) -> None:
    """Load model and memory soon after a client's first message, while it makes its next one.

    A client gives a server a few seconds to answer at all. What cannot be loaded is logged, and is
    the error of every call that needs it.
    """
    started: list[asyncio.Task[None]] = []

    async def load() -> None:
        await asyncio.sleep(LOAD_AFTER_S)
        try:
            await reward_model.aprepare()
        except PGenRMError as error:
            logger.error("nothing can be scored: %s", error)

    async def on_message(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        result = await call_next(ctx)
        if not started:
            started.append(asyncio.create_task(load()))
        return result

    server.middleware.append(on_message)


class _Server(MCPServer):
    """The SDK's server, which drops arguments that a tool does not have; a user must not get lost so."""

    def __init__(self, only: str | None, *options: Any, **named: Any) -> None:
        super().__init__(*options, **named)
        self._only = only

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool, unless the call names another user than the server's."""
        asked = arguments.get("user_id")
        if self._only is not None and asked and _user(asked) != self._only:
            raise ToolError("this server is for one user only: leave user_id out")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:  # the SDK's, around what was wrong
            match error.__cause__:
                case ToolError() as cause:
                    raise cause from None
                case ValidationError() as cause:
                    raise ToolError(_complaints(cause)) from None
            raise


def _complaints(error: ValidationError) -> str:
    """Return what is wrong with the arguments of a call, for the model that wrote them."""
    return "; ".join(
        f"{place_of(problem['loc'])} is missing"
        if problem["type"] == "missing"
        else f"{place_of(problem['loc'])}: {said_of(problem)}"
        for problem in error.errors(include_url=False)
    )


def _user(named: object) -> str:
    if named == "":
        raise ToolError("user_id is missing: pass the id of the user")
    try:
        return valid_user_id(named)
    except ConfigurationError as error:
        raise ToolError(str(error)) from error


def _for_user(work: Tool, user: str) -> Tool:
    """Return a tool without its argument `user_id`, which is this user's id."""
    signature = inspect.signature(work, eval_str=True)
    kept = [each for each in signature.parameters.values() if each.name != "user_id"]

    @functools.wraps(work)
    async def for_user(**given: Any) -> Any:
        return await work(**given, user_id=user)

    shown: Any = for_user
    shown.__signature__ = signature.replace(parameters=kept)
    shown.__annotations__ = {each.name: each.annotation for each in kept}
    shown.__annotations__["return"] = signature.return_annotation
    return shown  # type: ignore[no-any-return]


async def _told(work: Awaitable[T]) -> T:
    """Return the result of `work`; what went wrong on purpose becomes an error the client can read."""
    try:
        return await work
    except PGenRMError as error:
        raise ToolError(str(error)) from error


async def _evaluated(
    reward_model: PGenRM | Client,
    ctx: Context,
    user: str,
    query: str,
    candidates: list[str],
    timeout_s: float | None,
) -> Evaluation:
    """Score, telling the client about every stage."""
    done = 0
    telling: set[asyncio.Task[None]] = set()
    loop, own_thread = asyncio.get_running_loop(), threading.get_ident()

    def report(stage: str) -> None:
        nonlocal done
        done += 1
        telling.add(loop.create_task(ctx.report_progress(done, STAGES, stage)))

    def tell(progress: Progress) -> None:
        if threading.get_ident() == own_thread:
            report(progress.stage)
        else:  # a client of a server tells in a thread of its own
            loop.call_soon_threadsafe(report, progress.stage)

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
