"""What a session shows: checkpoints, runs, differences, comparisons. Read from states alone."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from pgenrm_agent.chain import ParsedChain, parse_chain, read_criteria, read_notes, written_persona
from pgenrm_agent.errors import ChainError
from pgenrm_agent.evidence import evidence_line
from pgenrm_agent.fields import Model
from pgenrm_agent.schema import Evaluation, Evidence

if TYPE_CHECKING:
    from pgenrm_agent.graphs.state import Draft


class Checkpoint(Model):
    """One saved state of a run.

    node: the node that made it; None for the input, for edits and for rewinds.
    next: the nodes that run when it is resumed; empty at the end.
    edit: what was edited here ("persona", "rubric", "neighbors", "history", "candidates").
    error: why the next node failed, when it was tried.
    tokens: sampled so far. means, ranking: of the candidates that readable chains score so far.
    evidence: what the result rests on, in a line; None before there is a result.
    current: whether the run goes on from here.
    """

    run: str
    id: str
    parent: str | None
    step: int
    created_at: str
    source: str
    node: str | None
    next: tuple[str, ...]
    edit: str | None = None
    error: str | None = None
    chains: int = 0
    tokens: int = 0
    means: dict[str, float] = Field(default_factory=dict)
    ranking: tuple[str, ...] = ()
    evidence: str | None = None
    finished: bool = False
    current: bool = False

    @property
    def made_by(self) -> str:
        """How it came about, in a word or two: a node's name, or what was edited."""
        if self.edit:
            return f"edited {self.edit}"
        return self.node or {"fork": "rewound", "input": "input"}.get(self.source, "begun")


class Stop(Model):
    """Where a run came to a halt, and why: "finished", or the breakpoint that was met."""

    checkpoint: Checkpoint
    reason: str


class RunSummary(Model):
    """One line of the list of runs. `error` says why a run cannot be read; the rest is then empty."""

    run: str
    user_id: str = ""
    query: str = ""
    candidates: int = 0
    created_at: str
    next: tuple[str, ...] = ()
    finished: bool = False
    labels: dict[str, str] = Field(default_factory=dict)
    error: str | None = None


class ChainView(Model):
    """One chain as far as it is written. `problem` says why its scores cannot be read (yet).

    reasoning: what the model thought before it wrote. notes: what it worked out before the persona,
    where its format has a place for that. reasons: why a response got its marks.
    """

    index: int
    level: str
    signals_of: str
    status: str
    tokens: int
    text: str
    notes: str = ""
    persona: str | None
    rubric: tuple[tuple[str, float, str], ...]
    marks: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    totals: dict[str, float] = Field(default_factory=dict)
    reasons: dict[str, str] = Field(default_factory=dict)
    reasoning: str = ""
    problem: str | None = None


class Difference(Model):
    """One place in which two states differ. A side without the place is None."""

    path: str
    before: object
    after: object


class Side(Model):
    """One of two runs compared; personas: each one once, without working notes."""

    run: str
    checkpoint: str
    ranking: tuple[str, ...]
    means: dict[str, float]
    personas: tuple[str, ...]
    rubric: tuple[tuple[str, float, str], ...]
    tokens: int


class Comparison(Model):
    """Two runs side by side; changes: of each candidate's mean, right minus left."""

    left: Side
    right: Side
    changes: dict[str, float]
    differences: tuple[Difference, ...]


class Replay(Model):
    """A run gone through again from its record, without a model.

    evaluation: computed anew from the recorded texts; None for a run that has not got that far.
    same: whether it equals the recorded one, timings aside; None for a run that has not got that far,
        and where it does not because chains of similar users are sealed here.
    """

    steps: tuple[Checkpoint, ...]
    evaluation: Evaluation | None
    same: bool | None


# --- reading a state ---


def chain_views(values: Mapping[str, object]) -> tuple[ChainView, ...]:
    """Return the chains of a state, read as far as they go."""
    ids = _candidate_ids(values)
    return tuple(_view(i, draft, ids) for i, draft in enumerate(_drafts(values)))


def means_of(values: Mapping[str, object]) -> dict[str, float]:
    """Return the mean reward by candidate: the evaluation's if there is one, else of what chains say now."""
    evaluation = values.get("evaluation")
    if isinstance(evaluation, dict):
        return {
            score["candidate_id"]: score["mean"]
            for score in evaluation["scores"]
            if score["mean"] is not None
        }
    return {name: statistics.fmean(totals) for name, totals in _totals(values).items()}


def ranking_of(values: Mapping[str, object]) -> tuple[str, ...]:
    """Return the candidates by mean, best first; ties keep the request's order."""
    evaluation = values.get("evaluation")
    if isinstance(evaluation, dict):
        return tuple(evaluation["ranking"])
    means = means_of(values)
    return tuple(sorted(means, key=lambda name: -means[name]))


def evidence_in(values: Mapping[str, object]) -> str | None:
    """Return in a line what the evaluation of a state rests on; None before there is one."""
    evaluation = values.get("evaluation")
    if not isinstance(evaluation, dict):
        return None
    evidence = Evidence.model_validate(evaluation["evidence"])
    return evidence_line(evaluation["request"]["user_id"], evidence)


def disagreement(values: Mapping[str, object]) -> float:
    """Return the largest standard deviation, over the candidates, of the chains' totals (0 to 4.5)."""
    return max((statistics.pstdev(totals) for totals in _totals(values).values()), default=0.0)


def _totals(values: Mapping[str, object]) -> dict[str, list[float]]:
    ids = _candidate_ids(values)
    totals_of: dict[str, list[float]] = {name: [] for name in ids}
    for draft in _drafts(values):
        if draft["status"] == "written":
            parsed = _read(draft, ids)
            if isinstance(parsed, ParsedChain):
                for name, total in parsed.totals.items():
                    totals_of[name].append(total)
    return {name: totals for name, totals in totals_of.items() if totals}


def _read(draft: Draft, ids: tuple[str, ...]) -> ParsedChain | ChainError:
    shown = tuple(ids[i] for i in draft["order"])
    return _parse(draft["text"], shown, draft["asks_totals"])


# A time line shows the same texts at many checkpoints.
@functools.lru_cache(maxsize=1024)
def _parse(text: str, shown: tuple[str, ...], asks_totals: bool) -> ParsedChain | ChainError:
    try:
        parsed = parse_chain(text, shown, asks_totals=asks_totals)
    except ChainError as error:
        return error
    return parsed.incomplete or parsed


def _view(index: int, draft: Draft, ids: tuple[str, ...]) -> ChainView:
    parsed = _read(draft, ids)
    scored = parsed if draft["status"] == "written" and isinstance(parsed, ParsedChain) else None
    problem = None
    if draft["status"] == "failed":
        problem = draft["problem"] or "it was not written to its end"
    elif draft["status"] == "truncated":
        problem = draft["problem"] or "the text ends at the token limit"
        if isinstance(parsed, ChainError) and parsed.reason == "unfinished_reasoning":
            problem += f": {parsed}"
    elif draft["status"] == "written" and isinstance(parsed, ChainError):
        problem = str(parsed)
    return ChainView(
        index=index,
        level=draft["level"],
        signals_of=draft["signals_of"],
        status=draft["status"],
        tokens=draft["tokens"],
        text=draft["text"],
        notes=read_notes(draft["text"]),
        persona=written_persona(draft["text"]),
        rubric=tuple(
            (criterion.name, criterion.weight, criterion.reason)
            for criterion in read_criteria(draft["text"])
        ),
        marks=scored.marks if scored else {},
        totals=scored.totals if scored else {},
        reasons=scored.reasons if scored else {},
        reasoning=draft["reasoning"],
        problem=problem,
    )


def _drafts(values: Mapping[str, object]) -> list[Draft]:
    chains = values.get("chains")
    return chains if isinstance(chains, list) else []


def _candidate_ids(values: Mapping[str, object]) -> tuple[str, ...]:
    request = values.get("request")
    if not isinstance(request, dict):
        return ()
    return tuple(candidate["id"] for candidate in request["candidates"])


# --- differences ---


def differences(before: object, after: object) -> tuple[Difference, ...]:
    """Return every place where two states differ; seconds (`timings`) are left out."""
    return tuple(_differences("", before, after))


def _differences(path: str, before: object, after: object) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            if key != "timings":
                inner = f"{path}.{key}" if path else str(key)
                yield from _differences(inner, before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list):
        for i in range(max(len(before), len(after))):
            left = before[i] if i < len(before) else None
            right = after[i] if i < len(after) else None
            yield from _differences(f"{path}[{i}]", left, right)
    elif before != after:
        yield Difference(path=path, before=before, after=after)
