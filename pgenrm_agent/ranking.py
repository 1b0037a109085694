"""The one type of a ranking: MCP and the LangChain rerankers give it as it is, HTTP maps from it."""

from __future__ import annotations

from collections.abc import Iterator

from pgenrm_agent.arguments import whole_number
from pgenrm_agent.fields import Model
from pgenrm_agent.schema import Evaluation

__all__ = ["RerankItem", "RerankResult", "ranking_of"]


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
