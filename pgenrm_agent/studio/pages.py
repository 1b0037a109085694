"""What a page shows, gathered from a session."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgenrm_agent.chain import section_spans
from pgenrm_agent.confidence import TIE
from pgenrm_agent.debugging import Checkpoint, DebugSession, RunSummary
from pgenrm_agent.debugging.views import ChainView, chain_views
from pgenrm_agent.graphs.sealing import signals_in
from pgenrm_agent.schema import CandidateScore, EvaluationRequest, Message
from pgenrm_agent.studio.drawing import Node, Plot, nodes_of, plot_of

# They turn the direction of what follows, or are not seen at all.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)


@dataclass(frozen=True)
class Cell:
    """What the chains gave one candidate for one criterion: their mean, and each one's mark."""

    mean: float | None
    marks: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class MarksRow:
    """One criterion; weight is its mean over the chains that have it."""

    name: str
    weight: float
    chains: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class RunPage:
    """Everything on the page of a run, at one of its checkpoints.

    chosen: the chain whose persona and rubric are in the forms. ranking: each scored candidate with
    its place, which those that are tied share. scores: of the result, by candidate; empty before.
    """

    run: str
    at: Checkpoint
    request: EvaluationRequest
    timeline: tuple[Checkpoint, ...]
    nodes: tuple[Node, ...]
    chains: tuple[ChainView, ...]
    chosen: ChainView | None
    prompt: tuple[Message, ...]
    marks: tuple[MarksRow, ...]
    plot: Plot | None
    ranking: tuple[tuple[int, str], ...]
    scores: dict[str, CandidateScore]
    others: tuple[RunSummary, ...]
    live: bool


def run_page(
    session: DebugSession, run: str, *, at: str | None, chain: int | None, live: bool
) -> RunPage:
    """Return a run as it stood `at` a checkpoint, its current one if None."""
    timeline = session.timeline(run)
    point = (
        session.checkpoint(run, at)
        if at
        else next(checkpoint for checkpoint in timeline if checkpoint.current)
    )
    state = session.state(run, point.id)
    # The first item of a time line stands before the run's input.
    asked = state.get("request") or session.state(run)["request"]
    request = EvaluationRequest.model_validate(asked)
    names = [candidate.id for candidate in request.candidates]
    chains = chain_views(state)
    chosen = chains[min(max(chain or 0, 0), len(chains) - 1)] if chains else None
    return RunPage(
        run=run,
        at=point,
        request=request,
        timeline=timeline,
        nodes=nodes_of(session.nodes, point, live),
        chains=chains,
        chosen=chosen,
        prompt=session.prompt(run, chosen.index, point.id)
        if chosen is not None and chosen.signals_of in signals_in(state)  # else it is sealed
        else (),
        marks=_marks(chains, names),
        plot=plot_of(names, chains, point.means),
        ranking=_places(point),
        scores=_scores(state),
        others=tuple(
            summary for summary in session.runs() if summary.run != run and not summary.error
        ),
        live=live,
    )


def _places(point: Checkpoint) -> tuple[tuple[int, str], ...]:
    """Return the ranked candidates with their places; equal means share one."""
    places: list[tuple[int, str]] = []
    for number, name in enumerate(point.ranking, start=1):
        before = places[-1] if places else None
        tied = before is not None and abs(point.means[before[1]] - point.means[name]) <= TIE
        places.append((before[0] if tied and before else number, name))
    return tuple(places)


def _scores(state: Mapping[str, object]) -> dict[str, CandidateScore]:
    evaluation = state.get("evaluation")
    if not isinstance(evaluation, dict):
        return {}
    scores = map(CandidateScore.model_validate, evaluation["scores"])
    return {score.candidate_id: score for score in scores}


def _marks(chains: Sequence[ChainView], candidates: Sequence[str]) -> tuple[MarksRow, ...]:
    """Return the criteria of all chains, the most widely shared first; names are told apart by letters."""
    uses_of: dict[str, list[tuple[ChainView, int]]] = {}
    for chain in chains:
        if chain.marks:
            for place, (name, _, _) in enumerate(chain.rubric):
                uses_of.setdefault(" ".join(name.casefold().split()), []).append((chain, place))
    rows = []
    for uses in uses_of.values():
        first, place = uses[0]
        weights = [chain.rubric[at][1] for chain, at in uses]
        rows.append(
            MarksRow(
                name=first.rubric[place][0],
                weight=statistics.fmean(weights),
                chains=len(uses),
                cells=tuple(_cell(candidate, uses) for candidate in candidates),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.chains, -row.weight)))


def _cell(candidate: str, uses: Sequence[tuple[ChainView, int]]) -> Cell:
    marks = []
    for chain, place in uses:
        row = chain.marks.get(candidate, ())
        mark = row[place] if place < len(row) else None
        if mark is not None:
            marks.append((chain.index, mark))
    return Cell(
        mean=statistics.fmean(mark for _, mark in marks) if marks else None, marks=tuple(marks)
    )


def colored(text: str) -> list[tuple[str, str]]:
    """Return a chain's text in pieces, as (section, piece); headings and markers have section ""."""
    pieces: list[tuple[str, str]] = []
    done = 0
    spans = section_spans(text).items()
    for section, (start, end) in sorted(spans, key=lambda item: item[1]):
        pieces += [("", text[done:start]), (section, text[start:end])]
        done = end
    return [piece for piece in [*pieces, ("", text[done:])] if piece[1]]


def visible(text: str) -> str:
    """Text with characters that steer its display, or hide, written out: ⟨U+202E⟩."""
    return _CONTROLS.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
