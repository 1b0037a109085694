"""Writes and extends the drafts of a run: the only caller of an engine."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from langgraph.runtime import Runtime

from pgenrm_agent.chain import (
    SECTIONS,
    ChainFormat,
    Section,
    Turn,
    read_criteria,
    read_persona,
)
from pgenrm_agent.engines.protocol import (
    Capabilities,
    Completion,
    Engine,
    FinishReason,
    Prompt,
    SamplingParams,
    SchemaRefused,
)
from pgenrm_agent.errors import ConfigurationError, EngineError, EngineTimeout
from pgenrm_agent.evidence import shown_signals
from pgenrm_agent.graphs.sealing import NO_LONGER_OPEN, signals_in
from pgenrm_agent.graphs.spans import sample
from pgenrm_agent.graphs.state import (
    Draft,
    EvaluationContext,
    EvaluationState,
    EvaluationUpdate,
    context_of,
    default_engine,
    default_format,
    scaling_of,
)
from pgenrm_agent.sampling import PlannedChain, derive_seed, plan_chains, plan_rounds
from pgenrm_agent.schema import EvaluationRequest, Level, Scaling, UserSignals

# Personas sampled only to find the nearest prototype, where no chain of the user's own is asked for.
PERSONA_PROBES = 4

MIN_TIMEOUT_S = 0.001
TIME_IS_UP = "the time for this evaluation was over before it was written"


@dataclass
class Sampler:
    """Writes the chains of one node, and keeps count of what that costs."""

    request: EvaluationRequest
    scaling: Scaling
    seed: int
    signals: dict[str, UserSignals]
    engine: Engine
    able: Capabilities
    chain_format: ChainFormat
    context: EvaluationContext
    usage: Counter[str] = field(default_factory=Counter)
    engine_seconds: float = 0.0

    @classmethod
    async def of(cls, state: EvaluationState, runtime: Runtime[EvaluationContext]) -> Sampler:
        """Return a sampler for the run's request, with its engine loaded."""
        context = context_of(runtime)
        engine = context.engine
        if engine is None:
            engine = await asyncio.to_thread(default_engine)
        # A server may have to be asked, which takes seconds.
        able = await asyncio.to_thread(lambda: engine.capabilities)
        chain_format = context.chain_format
        if chain_format is None:
            chain_format = await asyncio.to_thread(default_format, context.engine)
        return cls(
            request=EvaluationRequest.model_validate(state["request"]),
            scaling=scaling_of(state),
            seed=state["seed"],
            signals=signals_in(state),
            engine=engine,
            able=able,
            chain_format=chain_format,
            context=context,
        )

    @property
    def in_stages(self) -> bool:
        """Whether a chain that was begun can be taken up again."""
        return self.chain_format.in_turns or self.able.continues

    @property
    def time_is_up(self) -> bool:
        """Whether the run's deadline has passed."""
        deadline = self.context.deadline
        return deadline is not None and time.monotonic() >= deadline

    @property
    def own_signals(self) -> UserSignals:
        """What is known of the user whom the answers are scored for."""
        return self.signals[self.request.user_id]

    def can_write(self, draft: Draft) -> bool:
        """Return whether the draft's user still takes part, so that a prompt can be made of theirs."""
        return draft["signals_of"] in self.signals

    def plan_individual(self, *, have: int, round_: int) -> tuple[PlannedChain, ...]:
        """Plan the user's own chains that are new in a round. have: owners planned already."""
        wanted = plan_budgets(self.scaling)[round_][0]
        return self._planned([self.request.user_id] * self.scaling.individual, have, wanted)

    def plan_probes(self) -> tuple[PlannedChain, ...]:
        """Plan chains of which only the persona is wanted."""
        return self._planned([self.request.user_id] * PERSONA_PROBES, 0, PERSONA_PROBES)

    def plan_prototype(
        self, names: Sequence[str], *, have: int, round_: int, unknown: bool
    ) -> tuple[PlannedChain, ...]:
        """Plan similar people's chains that are new in a round; for somebody unknown, the whole budget."""
        individual, prototype = plan_budgets(self.scaling)[round_]
        wanted = individual + prototype if unknown else prototype
        return self._planned(names, have, wanted, "prototype")

    def _planned(
        self, owners: Sequence[str], have: int, wanted: int, level: Level = "individual"
    ) -> tuple[PlannedChain, ...]:
        usable = self.request.usable
        if not usable:
            return ()
        plan = plan_chains(
            owners,
            len(usable),
            seed=self.seed,
            level=level,
            max_candidates=self.chain_format.max_candidates,
        )
        groups = len(plan) // max(1, len(owners))
        return tuple(
            replace(chain, order=tuple(usable[place] for place in chain.order))
            for chain in plan[have * groups : wanted * groups]
        )

    async def extend(
        self, drafts: Sequence[Draft], *, to: Section, pause: bool = False, spare: bool = False
    ) -> list[Draft]:
        """Write each open draft up to the end of section `to`, in one engine call.

        pause: stop there even where chains are not written stage by stage, if they can be taken up
        again later. spare: other chains are there already, so that an engine that fails costs these
        drafts and no more.

        Drafts that stand at the same text with the same prompt become samples of one prompt, so
        that an engine encodes it once. Not staged, the drafts are written to their end. Drafts that
        have the section already are returned as they are; without any to write, or after the
        deadline, no call is made.
        """
        together: dict[tuple[str, tuple[int, ...], str], list[int]] = {}
        drafts = [
            self._in_format(draft)
            if self.can_write(draft)
            else _failed(draft, "failed", NO_LONGER_OPEN)
            for draft in drafts
        ]
        for i, draft in enumerate(drafts):
            if draft["status"] == "open" and not self._has(draft["text"], to):
                key = (draft["signals_of"], tuple(draft["order"]), draft["text"])
                together.setdefault(key, []).append(i)
        if not together:
            return list(drafts)
        extended = list(drafts)
        if self.time_is_up:
            for i in (i for members in together.values() for i in members):
                extended[i] = _failed(drafts[i], "timeout", TIME_IS_UP)
            return extended
        if not self.in_stages and any(text for _, _, text in together):
            raise ConfigurationError(
                f"engine {self.engine.name} cannot continue a begun chain: resume this run with an "
                "engine that continues text, or start it anew"
            )
        goal: Section = to if self.in_stages and (self.context.staged or pause) else "scores"
        # Long candidates, or many prompts, take a while, in which others' evaluations go on.
        turns = await asyncio.to_thread(self._turns, list(together), goal)
        prompts = [
            Prompt(
                messages=turn.messages,
                partial=turn.partial,
                n=len(members),
                seed=self._seed(drafts[members[0]], goal),
                json_schema=turn.json_schema if self.able.json_schema else None,
                grammar=turn.grammar if self.able.grammar else None,
                confidential=drafts[members[0]]["level"] == "prototype",
            )
            for turn, members in zip(turns, together.values(), strict=True)
        ]
        used = min(drafts[i]["tokens"] for members in together.values() for i in members)
        try:
            answers = await self._sample(prompts, turns[0], used)
        except SchemaRefused:
            if not await self._takes_up_prose():
                raise
            return await self.extend(drafts, to=to, pause=pause, spare=spare)
        except EngineError as error:
            if not spare:
                raise
            finish: FinishReason = "timeout" if isinstance(error, EngineTimeout) else "failed"
            for i in (i for members in together.values() for i in members):
                extended[i] = _failed(drafts[i], finish, str(error))
            return extended
        ends = {completion.finish_reason for answer in answers for completion in answer}
        held = any(prompt.json_schema for prompt in prompts)
        refused = held and "failed" in ends and await self._takes_up_prose()
        for members, completions in zip(together.values(), answers, strict=True):
            for i, completion in zip(members, completions, strict=True):
                if refused and completion.finish_reason == "failed":
                    continue
                extended[i] = self._extended(drafts[i], completion, goal)
                self.usage["chains_sampled"] += extended[i]["status"] != "open"
        if refused:
            return await self.extend(extended, to=to, pause=pause, spare=spare)
        return extended

    def restart(self, draft: Draft, attempt: int) -> Draft:
        """Return the draft to resample with another seed.

        It begins with the rubric that it had, else with what a person wrote of it, else empty.
        """
        text = draft["text"]
        readable = bool(read_criteria(text)) and read_persona(text) is not None
        keeps = draft["status"] == "open" and self._has(text, "rubric") and readable
        return {
            **draft,
            "seed": derive_seed(draft["seed"], "attempt", attempt),
            "attempt": attempt,
            "text": draft["text"] if keeps else draft["edited"],
            "reasoning": draft["reasoning"] if keeps else "",
            "tokens": draft["tokens"] if keeps else 0,
            "status": "open",
            "finish": "stop",
            "problem": "",
        }

    def cost(self, state: EvaluationState, stage: str, started: float) -> EvaluationUpdate:
        """Return the part of a node's update that tells what the node cost."""
        timings = state["timings"]
        return {
            "usage": {name: count + self.usage[name] for name, count in state["usage"].items()},
            "timings": {
                **timings,
                stage: timings.get(stage, 0.0) + time.perf_counter() - started,
                "engine": timings["engine"] + self.engine_seconds,
            },
        }

    async def _takes_up_prose(self) -> bool:
        """Whether the engine has found out, by this call or another's, that it can hold to no schema.

        From then on the sampler writes prose, and what was begun in the other format is begun anew.
        """
        if self.context.chain_format is not None or not self.able.json_schema:
            return False
        able = await asyncio.to_thread(lambda: self.engine.capabilities)
        if able.json_schema:
            return False
        self.able = able
        self.chain_format = await asyncio.to_thread(default_format, self.engine)
        return True

    async def _sample(
        self, prompts: Sequence[Prompt], turn: Turn, used: int
    ) -> list[list[Completion]]:
        context = self.context
        usable = len(self.request.usable)
        shown = min(usable, self.chain_format.max_candidates or usable)
        most = context.max_tokens or self.chain_format.max_tokens(shown)
        started = time.perf_counter()
        params = SamplingParams(
            temperature=self.scaling.temperature,
            max_tokens=max(1, most - used),
            stop=turn.stop,
            timeout_s=None
            if context.deadline is None
            else max(MIN_TIMEOUT_S, context.deadline - time.monotonic()),
        )
        answers = await sample(self.engine, prompts, params)
        self.engine_seconds += time.perf_counter() - started
        if [len(answer) for answer in answers] != [prompt.n for prompt in prompts]:
            raise EngineError(
                f"engine {self.engine.name} returned {[len(answer) for answer in answers]} samples "
                f"where {[prompt.n for prompt in prompts]} were asked for"
            )
        everything = [completion for answer in answers for completion in answer]
        self.usage["engine_calls"] += 1
        self.usage["completion_tokens"] += sum(completion.tokens for completion in everything)
        self.usage["prompt_tokens"] += sum(completion.prompt_tokens for completion in everything)
        return answers

    def _seed(self, draft: Draft, goal: Section) -> int:
        return derive_seed(draft["seed"], goal) if draft["text"] else draft["seed"]

    def _turns(
        self, begun: Sequence[tuple[str, tuple[int, ...], str]], goal: Section
    ) -> list[Turn]:
        """Return what to ask for, for each owner of signals, order of candidates and begun text."""
        # What all prompts have room for is measured on all candidates: once, and not for each prompt.
        shown = {
            owner: shown_signals(self.request, self.signals[owner], self.chain_format)
            for owner in dict.fromkeys(owner for owner, _, _ in begun)
        }
        return [
            self.chain_format.turn(
                goal,
                text,
                query=self.request.query,
                candidates=[self.request.candidates[index].text for index in order],
                history=shown[owner].history,
                stated=shown[owner].stated,
                conversation=self.request.conversation,
            )
            for owner, order, text in begun
        ]

    def _in_format(self, draft: Draft) -> Draft:
        """Return the draft, begun anew where it was begun before the engine's format was found out."""
        chosen = self.context.chain_format is not None
        begun = draft["status"] == "open" and bool(draft["text"])
        if chosen or not begun or self.chain_format.takes_up(draft["text"]):
            return draft
        return {**draft, "text": "", "reasoning": "", "tokens": 0}

    def _has(self, text: str, section: Section) -> bool:
        through = self.chain_format.complete_through(text)
        return through is not None and SECTIONS.index(through) >= SECTIONS.index(section)

    def _extended(self, draft: Draft, completion: Completion, goal: Section) -> Draft:
        whole = completion.finish_reason == "stop"
        text = self.chain_format.join(draft["text"], completion.text, goal)
        if completion.finish_reason == "length":
            # Behind the end of its chain a model may have gone on to the limit.
            so_far = text if self.chain_format.in_turns else draft["text"] + completion.text
            whole = self._has(so_far, "scores")
            text = text if whole else so_far
        status: Literal["open", "written", "truncated", "failed"]
        if whole:
            # A text without the section that was asked for cannot be taken up again.
            status = "open" if goal != "scores" and self._has(text, goal) else "written"
        else:
            status = "truncated" if completion.finish_reason == "length" else "failed"
        return {
            **draft,
            "text": text,
            "reasoning": "\n\n".join(filter(None, (draft["reasoning"], completion.reasoning))),
            "tokens": draft["tokens"] + completion.tokens,
            "status": status,
            "asks_totals": self.chain_format.asks_totals,
            "finish": "stop" if whole else completion.finish_reason,
            "problem": "" if whole else completion.detail,
        }


def _failed(draft: Draft, finish: FinishReason, problem: str) -> Draft:
    return {**draft, "status": "failed", "finish": finish, "problem": problem}


def empty_draft(chain: PlannedChain) -> Draft:
    """Begin the draft of a planned chain."""
    return {
        "level": chain.level,
        "signals_of": chain.signals_of,
        "order": list(chain.order),
        "seed": chain.seed,
        "attempt": 0,
        "text": "",
        "reasoning": "",
        "tokens": 0,
        "status": "open",
        "edited": "",
        "asks_totals": True,
        "finish": "stop",
        "problem": "",
        "sealed": "",
    }


def count_owners(chains: Sequence[Draft], level: Level) -> int:
    """Count the entries of a plan among the drafts: each covers the first candidate shown once."""
    first = min((place for draft in chains for place in draft["order"]), default=0)
    return sum(draft["level"] == level and first in draft["order"] for draft in chains)


def plan_budgets(scaling: Scaling) -> tuple[tuple[int, int], ...]:
    """Return how many individual and prototype chains there are by the end of each round."""
    if scaling.stop_when_sure is None:
        return ((scaling.individual, scaling.prototype),)
    return plan_rounds(scaling.individual, scaling.prototype)
