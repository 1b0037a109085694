"""Judges that read embeddings: Bradley-Terry, the same with personal weights, and own words.

What the fits' penalties are is chosen by cross-validation over the people whom they learn from.
Nothing of the asked user is ever learned from: where data has too few people for a training split,
so that they are held out in turn, each fit leaves out a fifth of them, the asked user among it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from pgenrm_agent.embedding import Embedder, RememberingEmbedder, embedded
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.bradley_terry import Floats, fit_bradley_terry, log_loss
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.evaluation.records import Verdict
from pgenrm_agent.schema import PreferencePair, StatedPreference

PENALTIES = (0.1, 1.0, 10.0)
"""Of the fit on everybody, weakest weights first."""
PERSONAL_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Of personal weights, which the first leaves nearly where everybody's are."""
FOLDS = 3
"""Of the cross-validation."""
HELD_TOGETHER = 5
"""Parts in which people are held out who have to be learned from, too."""
MOST_PAST = 8
"""Past choices of a training user from which personal weights are tried."""


def own_words(stated: Sequence[StatedPreference]) -> list[str]:
    """Return what a user wrote in their own words, of what they stated."""
    return [wish.text for wish in stated if wish.kind == "self_description"]


class OwnWordsJudge:
    """The answer that is nearest to what the user wrote themselves: mean cosine similarity."""

    name = "own-words"

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = RememberingEmbedder.around(embedder)
        self.settings: Mapping[str, object] = {"embedder": embedder.name}

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return the similarities; not scored where the user wrote nothing."""
        words = own_words(question.stated)
        if not words:
            return Verdict(
                scores=(None,) * len(question.candidates), reason="the user wrote nothing"
            )
        texts = [candidate.text for candidate in question.candidates]
        near = embedded(self._embedder, texts) @ embedded(self._embedder, words).mean(0)
        return Verdict(scores=tuple(near.astype(np.float64).tolist()))


class BradleyTerryJudge:
    """A Bradley-Terry fit on differences of embeddings, of P(chosen over rejected).

    `bradley-terry` knows what people like on the whole, and nothing of any one of them.
    `bradley-terry-personal` moves these weights by the user's past choices, with the crowd's as
    the prior, and has one more feature where the user wrote something: how near an answer is to it.
    """

    def __init__(self, fits: Fits, *, personal: bool = False) -> None:
        self.name = "bradley-terry-personal" if personal else "bradley-terry"
        self.settings: Mapping[str, object] = fits.settings
        self._fits = fits
        self._personal = personal

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return utilities as scores, and their softmax as the probability of being best.

        Not scored where no other user's choices are known.
        """
        words = own_words(question.stated) if self._personal else []
        fit = self._fits.without(question.user_id, with_words=bool(words))
        texts = [candidate.text for candidate in question.candidates]
        if fit is None:
            return Verdict(scores=(None,) * len(texts), reason="there is nobody else to learn from")
        utilities = fit.features(texts, words) @ self._weights(fit, question.history, words)
        odds = np.exp(utilities - utilities.max())
        return Verdict(
            scores=tuple(utilities.tolist()), probability_best=tuple((odds / odds.sum()).tolist())
        )

    def _weights(
        self, fit: _Fit, history: Sequence[PreferencePair], words: Sequence[str]
    ) -> Floats:
        if not self._personal or not history:
            return fit.weights
        chosen = fit.features([pair.chosen for pair in history], words)
        rejected = fit.features([pair.rejected for pair in history], words)
        return fit_bradley_terry(chosen - rejected, penalty=fit.personal_penalty, prior=fit.weights)


class Fits:
    """Bradley-Terry fits on other people's choices, each made when it is first asked for.

    Somebody who is learned from is held out with a fifth of the people when they are asked about.
    """

    def __init__(self, choices: Sequence[PreferenceRow], embedder: Embedder) -> None:
        """Raises ConfigurationError without any choice."""
        if not choices:
            raise ConfigurationError(
                "there are no training choices to fit bradley-terry on: leave it out, or use data"
                " with a training split"
            )
        self._choices = choices
        self._embedder = RememberingEmbedder.around(embedder)
        self._made: dict[tuple[int | None, bool], _Fit | None] = {}
        users = sorted({row.user_id for row in choices})
        count = min(HELD_TOGETHER, len(users))
        self._parts = {user: place % count for place, user in enumerate(users)}
        self.settings: Mapping[str, object] = {"embedder": embedder.name, "choices": len(choices)}

    def without(self, user_id: str, *, with_words: bool) -> _Fit | None:
        """Return the fit without this user's choices; None where nobody else's are known.

        with_words: what users wrote is a feature.
        """
        held = self._parts.get(user_id)
        key = held, with_words
        if key not in self._made:
            kept = [
                row for row in self._choices if held is None or self._parts[row.user_id] != held
            ]
            self._made[key] = _Fit(kept, self._embedder, with_words=with_words) if kept else None
        return self._made[key]


class _Fit:
    """Weights for everybody, and how far a user's own may go from them."""

    def __init__(
        self, choices: Sequence[PreferenceRow], embedder: Embedder, *, with_words: bool
    ) -> None:
        self._embedder = embedder
        self._with_words = with_words
        by_user: dict[str, list[PreferenceRow]] = {}
        for row in choices:
            by_user.setdefault(row.user_id, []).append(row)
        users = [by_user[user] for user in sorted(by_user)]
        # All at once: an encoder is quicker by far with many texts.
        embedder.embed([text for row in choices for text in (row.pair.chosen, row.pair.rejected)])
        self._scale = 1.0
        self._users = [self._differences(own) for own in users]
        if with_words:
            # As large as a choice's embedding, so that one penalty fits all features.
            spread = float(np.concatenate(self._users)[:, -1].std())
            self._scale = 1 / spread if spread else 1.0
            for known in self._users:
                known[:, -1] *= self._scale
        self.penalty, self.weights = self._everybody()

    def features(self, texts: Sequence[str], words: Sequence[str]) -> Floats:
        """Return (texts, features): embeddings, and how near each is to the user's words."""
        vectors = embedded(self._embedder, texts).astype(np.float64)
        if not self._with_words:
            return vectors
        near = np.zeros(len(texts))
        if words:
            near = self._scale * (vectors @ embedded(self._embedder, words).mean(0))
        return np.column_stack([vectors, near])

    @cached_property
    def personal_penalty(self) -> float:
        """How far past choices may move the weights: the best on people who were left out."""
        losses = np.zeros(len(PERSONAL_PENALTIES))
        for learned, tried in self._folds():
            prior = fit_bradley_terry(learned, penalty=self.penalty)
            for known in tried:
                past, asked = known[: len(known) // 2][:MOST_PAST], known[len(known) // 2 :]
                for place, penalty in enumerate(PERSONAL_PENALTIES):
                    own = fit_bradley_terry(past, penalty=penalty, prior=prior)
                    losses[place] += len(asked) * log_loss(asked @ own)
        return PERSONAL_PENALTIES[int(losses.argmin())]

    def _everybody(self) -> tuple[float, Floats]:
        losses = np.zeros(len(PENALTIES))
        for learned, tried in self._folds():
            asked = np.concatenate(tried)
            for place, penalty in enumerate(PENALTIES):
                weights = fit_bradley_terry(learned, penalty=penalty)
                losses[place] += len(asked) * log_loss(asked @ weights)
        penalty = PENALTIES[int(losses.argmin())] if losses.any() else 1.0
        return penalty, fit_bradley_terry(np.concatenate(self._users), penalty=penalty)

    def _folds(self) -> Iterator[tuple[Floats, list[Floats]]]:
        """Yield what is learned from and who is tried; nothing where too few can be left out."""
        count = min(FOLDS, len(self._users))
        for fold in range(count if count > 1 else 0):
            kept = [known for place, known in enumerate(self._users) if place % count != fold]
            yield np.concatenate(kept), self._users[fold::count]

    def _differences(self, own: Sequence[PreferenceRow]) -> Floats:
        words = own_words(own[0].stated)
        chosen = self.features([row.pair.chosen for row in own], words)
        return chosen - self.features([row.pair.rejected for row in own], words)
