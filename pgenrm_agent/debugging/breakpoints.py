"""Where a run stops: before or after a node, or when something happens to its chains."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import model_validator

from pgenrm_agent.debugging.views import chain_views, disagreement, ranking_of
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model

Kind = Literal["before", "after", "parse-failure", "disagreement", "rank-change"]
_ON_NODE = re.compile(r"(before|after):(\S+)")
_DISAGREEMENT = re.compile(r"disagreement\s*>\s*(\d+(?:\.\d+)?)")


class Breakpoint(Model):
    """before, after: of `node`. parse-failure: a chain that cannot be used has appeared.

    disagreement: the standard deviation of the chains' totals for some candidate is over
    `threshold` (points on the 1-10 scale). rank-change: the order of the candidates differs from
    the last one that this run had, on whatever branch.
    """

    kind: Kind
    node: str | None = None
    threshold: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.node is not None) != (self.kind in ("before", "after")):
            raise ValueError("`before` and `after` name a node, and no other breakpoint does")
        if (self.threshold is not None) != (self.kind == "disagreement"):
            raise ValueError("`disagreement` has a threshold, and no other breakpoint does")
        return self

    @classmethod
    def parse(cls, text: str) -> Breakpoint:
        """From "before:NODE", "after:NODE", "parse-failure", "disagreement>1.5" or "rank-change".

        Raises ConfigurationError for any other text.
        """
        if match := _ON_NODE.fullmatch(text):
            return cls(kind="before" if match[1] == "before" else "after", node=match[2])
        if match := _DISAGREEMENT.fullmatch(text):
            return cls(kind="disagreement", threshold=float(match[1]))
        if text == "parse-failure":
            return cls(kind="parse-failure")
        if text == "rank-change":
            return cls(kind="rank-change")
        raise ConfigurationError(
            f"breakpoint {text!r}: write before:NODE, after:NODE, parse-failure,"
            " disagreement>NUMBER or rank-change"
        )

    def __str__(self) -> str:
        if self.node is not None:
            return f"{self.kind}:{self.node}"
        return self.kind if self.threshold is None else f"disagreement>{self.threshold:g}"

    def holds(
        self,
        values: Mapping[str, object],
        *,
        previous: Mapping[str, object],
        ran: str | None,
        coming: Sequence[str],
        last_ranking: Sequence[str],
    ) -> bool:
        """Return whether to stop in this state. What held in the `previous` one already is no reason.

        ran: the node that made it. coming: the nodes that come next. last_ranking: the last order
        of the candidates that the run had before, empty for none.
        """
        if self.kind == "before":
            return self.node in coming
        if self.kind == "after":
            return self.node == ran
        if self.kind == "parse-failure":
            return _problems(values) > _problems(previous)
        if self.kind == "disagreement":
            over = self.threshold or 0.0
            return disagreement(values) > over >= disagreement(previous)
        ranking = ranking_of(values)
        changed = bool(last_ranking) and bool(ranking) and tuple(last_ranking) != ranking
        return changed and ranking != ranking_of(previous)


def _problems(values: Mapping[str, object]) -> int:
    failures = values.get("failures")
    return len(failures if isinstance(failures, list) else ()) + sum(
        view.problem is not None for view in chain_views(values)
    )
