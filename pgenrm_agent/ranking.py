"""The one type of a ranking: MCP and the LangChain rerankers give it as it is, HTTP maps from it.

`describe` is the same in words, for a model that reads what a tool returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from pgenrm_agent.arguments import whole_number
from pgenrm_agent.confidence import TIE
from pgenrm_agent.evidence import evidence_line
from pgenrm_agent.fields import Model
from pgenrm_agent.language import writing_of
from pgenrm_agent.schema import CandidateScore, Evaluation, EvaluationRequest, Evidence

Fallback: TypeAlias = Literal["order"]
"""What to give where no model answers: the order in which the candidates came."""

# Long answers are shortened in the text: the caller has written them and knows them.
SHOWN_CHARACTERS = 80


class RerankItem(Model):
    """One candidate in its new place.

    Attributes:
        index: Its place in the request, from 0.
        score: The mean reward, 1-10; None when the candidate was not scored, for this `reason`.
    """

    index: int
    id: str
    text: str
    score: float | None
    reason: str | None = None


class RerankResult(Model):
    """The candidates, best first; those not scored come last, in the request's order.

    Iterates over, counts and indexes its items.

    fallback: why this is the request's order, and nothing is scored; None where a model has judged.
    """

    items: tuple[RerankItem, ...]
    evaluation: Evaluation
    fallback: str | None = None

    def __iter__(self) -> Iterator[RerankItem]:  # type: ignore[override]
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> RerankItem:
        return self.items[place]

    def top(self, count: int) -> tuple[RerankItem, ...]:
        """Return the first `count` items that were scored."""
        whole_number(count, "count")
        return tuple(item for item in self.items if item.score is not None)[: max(count, 0)]


def ranking_of(evaluation: Evaluation) -> RerankResult:
    """Put an evaluation's candidates in order."""
    place = {candidate_id: number for number, candidate_id in enumerate(evaluation.ranking)}
    items = [
        RerankItem(
            index=index,
            id=candidate.id,
            text=candidate.text,
            score=score.mean,
            reason=score.reason,
        )
        for index, (candidate, score) in enumerate(
            zip(evaluation.request.candidates, evaluation.scores, strict=True)
        )
    ]
    items.sort(key=lambda item: place.get(item.id, len(place)))
    return RerankResult(items=tuple(items), evaluation=evaluation)


def relevance(score: float) -> float:
    """Return a mean reward, 1-10, as a number from 0 to 1; scores that are tied give the same."""
    return min(1.0, max(0.0, (round(score / TIE) * TIE - 1) / 9))


def given_order(request: EvaluationRequest, error: Exception) -> RerankResult:
    """Return the candidates in the order they came in, none of them scored because of an error."""
    told = f"no model has judged, so this is the order in which the answers came: {error}"
    evaluation = Evaluation(
        request=request,
        scores=tuple(
            CandidateScore(
                candidate_id=candidate.id,
                outcome="not_scored",
                reason=candidate.unusable or str(error),
            )
            for candidate in request.candidates
        ),
        ranking=(),
        best=None,
        chains=(),
        evidence=Evidence(
            choices=0,
            choices_known=None,
            statements=0,
            neighbors=0,
            clipped=(),
            query_writing=writing_of(request.query),
            candidate_writings={item.id: writing_of(item.text) for item in request.candidates},
            warnings=(told,),
        ),
        seed=0,
    )
    return ranking_of(evaluation).model_copy(update={"fallback": told})


def describe(evaluation: Evaluation) -> str:
    """Return the ranking as short text, one line per candidate, and what it was judged by.

    Those not scored come last.
    """
    texts = {candidate.id: candidate.text for candidate in evaluation.request.candidates}
    return "\n".join(_lines(evaluation, texts))


def rests_on(evaluation: Evaluation) -> str:
    """Return in one line what the scores rest on; where there are none, that nothing was judged."""
    if not evaluation.chains:
        return "no answer could be judged"
    return evidence_line(evaluation.request.user_id, evaluation.evidence)


def _lines(evaluation: Evaluation, texts: dict[str, str]) -> Iterator[str]:
    yield f"Answers as {evaluation.request.user_id} would like them, best first:"
    for place, candidate_id in enumerate(evaluation.ranking, start=1):
        score = evaluation.score_of(candidate_id)
        spread = "" if score.standard_error is None else f" ± {score.standard_error:.2f}"
        yield f"{place}. {candidate_id}: {score.mean:.2f}{spread} of 10: {_shortened(texts[candidate_id])}"
    for score in evaluation.scores:
        if score.outcome == "not_scored":
            candidate_id = score.candidate_id
            said = _shortened(texts[candidate_id])
            yield f"Not scored: {candidate_id} ({score.reason})" + (f": {said}" if said else "")
    if evaluation.best is None and len(evaluation.ranking) > 1:
        yield "The first places are tied."
    line = rests_on(evaluation)
    yield f"{line[0].upper()}{line[1:]}{'' if line.endswith('?') else '.'}"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 4] + " ..."
