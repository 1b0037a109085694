"""The one type of a ranking: MCP and the LangChain rerankers give it as it is, HTTP maps from it.

`describe` is the same in words, for a model that reads what a tool returns.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgenrm_agent.arguments import whole_number
from pgenrm_agent.evidence import evidence_line
from pgenrm_agent.fields import Model
from pgenrm_agent.schema import Evaluation

__all__ = ["RerankItem", "RerankResult", "describe", "ranking_of"]

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
    """

    items: tuple[RerankItem, ...]
    evaluation: Evaluation

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


def describe(evaluation: Evaluation) -> str:
    """Return the ranking as short text, one line per candidate, and what it was judged by.

    Those not scored come last.
    """
    texts = {candidate.id: candidate.text for candidate in evaluation.request.candidates}
    return "\n".join(_lines(evaluation, texts))


def _lines(evaluation: Evaluation, texts: dict[str, str]) -> Iterator[str]:
    yield f"Answers as {evaluation.request.user_id} would like them, best first:"
    for place, candidate_id in enumerate(evaluation.ranking, start=1):
        score = evaluation.score_of(candidate_id)
        spread = "" if score.standard_error is None else f" ± {score.standard_error:.2f}"
        yield f"{place}. {candidate_id}: {score.mean:.2f}{spread} of 10: {_shortened(texts[candidate_id])}"
    for score in evaluation.scores:
        if score.outcome == "not_scored":
            candidate_id = score.candidate_id
            yield f"Not scored: {candidate_id} ({score.reason}): {_shortened(texts[candidate_id])}"
    if evaluation.best is None and len(evaluation.ranking) > 1:
        yield "The first places are tied."
    line = evidence_line(evaluation.request.user_id, evaluation.evidence)
    yield f"{line[0].upper()}{line[1:]}{'' if line.endswith('?') else '.'}"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 4] + " ..."
