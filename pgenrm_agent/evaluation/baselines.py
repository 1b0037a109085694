"""Judges that ask no model: what the reward model has to beat.

Three know nothing of the user: the longer answer, the shorter one, and what others chose. Two read
what the user wrote. Bradley-Terry on embeddings is in `embedding_judges`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.evaluation.records import Verdict


class LengthJudge:
    """The longer an answer, the better; or the shorter, which is right more often on some data."""

    settings: Mapping[str, object] = MappingProxyType({})

    def __init__(self, name: Literal["longest", "shortest"]) -> None:
        self._sign = 1.0 if name == "longest" else -1.0
        self.name: str = name

    def scores(self, answers: Sequence[str]) -> tuple[float, ...]:
        """Return the characters of each answer; of `shortest`, their negative."""
        return tuple(self._sign * len(answer) for answer in answers)

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return the lengths; they are never more or less sure, so there are no probabilities."""
        return Verdict(scores=self.scores([candidate.text for candidate in question.candidates]))


class CrowdJudge:
    """What other people chose: the share of comparisons that each answer won, drawn toward one half.

    The asked user's own choices never count. Where nobody else met any of the candidates there is
    no crowd, and nothing is scored.
    """

    name = "crowd"

    def __init__(self, choices: Sequence[PreferenceRow]) -> None:
        """`choices`: other people's, on the same texts. Raises ConfigurationError without any."""
        if not choices:
            raise ConfigurationError(
                "there are no choices of other people to make a crowd of: leave crowd out, or use"
                " data with a training split"
            )
        self.settings: Mapping[str, object] = {"choices": len(choices)}
        self._won: Counter[tuple[str, str]] = Counter()
        self._met: Counter[tuple[str, str]] = Counter()
        self._own_won: Counter[tuple[str, str, str]] = Counter()
        self._own_met: Counter[tuple[str, str, str]] = Counter()
        for row in choices:
            query = row.pair.query
            for text in (row.pair.chosen, row.pair.rejected):
                self._met[query, text] += 1
                self._own_met[row.user_id, query, text] += 1
            self._won[query, row.pair.chosen] += 1
            self._own_won[row.user_id, query, row.pair.chosen] += 1

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return each candidate's share; not scored where no other user met any of them."""
        shares, votes = [], 0
        for candidate in question.candidates:
            text = question.query, candidate.text
            met = self._met[text] - self._own_met[question.user_id, *text]
            won = self._won[text] - self._own_won[question.user_id, *text]
            shares.append((1 + won) / (2 + met))
            votes += met
        if not votes:
            return Verdict(
                scores=(None,) * len(shares), reason="nobody else chose between these answers"
            )
        return Verdict(scores=tuple(shares))
