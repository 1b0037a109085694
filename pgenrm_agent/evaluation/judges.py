"""What can be evaluated: the reward model, and the judges it has to beat, on the same engine.

Each judge gets the same questions with the same seeds. `PromptJudge` and `StaticPersonaJudge` ask an
instruction-following model in plain words. A model that writes nothing but its own chains, as the
bundled one, cannot follow them, and the table says so in unreadable samples; with less shown than
there is, `ChainJudge` is the baseline for such a model.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from pgenrm_agent.chain import ChainFormat, answer_in
from pgenrm_agent.embedding import Embedder
from pgenrm_agent.engines.protocol import Engine, Prompt, SamplingParams
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.evaluation.records import Verdict
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.sampling import derive_seed, plan_chains
from pgenrm_agent.schema import (
    Evaluation,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserSignals,
)

__all__ = [
    "BradleyTerryJudge",
    "ChainJudge",
    "Judge",
    "LongestJudge",
    "PromptJudge",
    "StaticPersonaJudge",
    "read_scores",
]

SLIP = 0.1
"""A model's own total that is further from its marks than this is an arithmetic slip."""


class Judge(Protocol):
    """Scores the candidates of one question.

    name: in tables. settings: what the result depends on, as JSON data; a run is only resumed with
    the same. Errors of the engine are raised, so that the run ends and can be resumed; what the
    model wrote wrong is in the verdict.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, object]: ...

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """seed: of this question in this run. run_seed: shared by all questions of the run."""
        ...


class ChainJudge:
    """Evaluation chains by `PGenRM`: the method itself, or with less shown than it could be.

    history, stated: whether the person's past choices and statements are shown.
    """

    def __init__(
        self,
        name: str,
        model: PGenRM,
        scaling: Scaling,
        *,
        history: bool = True,
        stated: bool = True,
    ) -> None:
        self._name = name
        self._model = model
        self._scaling = scaling
        self._history = history
        self._stated = stated

    @property
    def name(self) -> str:
        return self._name

    @property
    def settings(self) -> Mapping[str, object]:
        scaling = self._scaling.model_dump(mode="json", exclude={"seed"})
        return {"scaling": scaling, "history": self._history, "stated": self._stated}

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """The evaluation's means; not scored where none of its chains can be read."""
        try:
            evaluation = await self._evaluate(question, seed)
        except ChainError as error:
            return Verdict(
                scores=(None,) * len(question.candidates),
                reason=str(error),
                failures=error.failures or {error.reason: 1},
            )
        return _verdict_of(evaluation)

    async def _evaluate(self, question: Question, seed: int) -> Evaluation:
        return await self._model.ascore(
            question.user_id,
            question.query,
            question.candidates,
            conversation=question.conversation,
            scaling=self._scaling.model_copy(update={"seed": seed}),
            signals=UserSignals(
                user_id=question.user_id,
                history=question.history if self._history else (),
                stated=question.stated if self._stated else (),
            ),
        )


class PromptJudge:
    """One prompt in plain words, answered with a score a response; the mean over `samples`.

    thinking: whether the model reasons before it scores. The answer order is drawn anew for every
    question, and balanced over several samples.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        thinking: bool = False,
        history: int = 0,
        stated: bool = False,
        samples: int = 1,
        temperature: float = 1.0,
    ) -> None:
        self._name = name
        self._engine = engine
        self._format = _prompt_format("judge-thinking" if thinking else "judge")
        self._history = history
        self._stated = stated
        self._samples = samples
        self._temperature = temperature

    @property
    def name(self) -> str:
        return self._name

    @property
    def settings(self) -> Mapping[str, object]:
        return {
            "prompt": self._format.name,
            "history": self._history,
            "stated": self._stated,
            "samples": self._samples,
            "temperature": self._temperature,
        }

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """The mean score of each candidate over the readable answers."""
        stated = question.stated if self._stated else ()
        return await self.judge_knowing(question, stated, seed=seed)

    async def judge_knowing(
        self, question: Question, stated: Sequence[StatedPreference], *, seed: int
    ) -> Verdict:
        """`judge`, with `stated` as what is known of the person in words."""
        planned = plan_chains(
            [question.user_id] * self._samples, len(question.candidates), seed=seed
        )
        by_order: dict[tuple[int, ...], list[int]] = {}
        places: dict[tuple[int, ...], list[int]] = {}
        for place, chain in enumerate(planned):
            by_order.setdefault(chain.order, []).append(chain.seed)
            places.setdefault(chain.order, []).append(place)
        prompts = [
            Prompt(
                messages=self._format.messages(
                    query=question.query,
                    candidates=[question.candidates[at].text for at in order],
                    history=question.history[: self._history],
                    stated=stated,
                    conversation=question.conversation,
                ),
                n=len(seeds),
                seed=seeds[0],
            )
            for order, seeds in by_order.items()
        ]
        answers = await self._engine.sample(
            prompts,
            SamplingParams(temperature=self._temperature, max_tokens=self._format.max_tokens),
        )
        failures: Counter[str] = Counter()
        # In the plan's order, which alternates orders: the first few samples are balanced, too.
        read: dict[int, tuple[tuple[int, ...], tuple[float, ...]]] = {}
        for order, completions in zip(by_order, answers, strict=True):
            for place, completion in zip(places[order], completions, strict=True):
                try:
                    shown = read_scores(completion.text, len(order))
                except ChainError as error:
                    failures[error.reason] += 1
                    continue
                read[place] = order, tuple(shown[order.index(at)] for at in range(len(order)))
        orders = [read[place][0] for place in sorted(read)]
        totals = [read[place][1] for place in sorted(read)]
        table = np.array(totals, dtype=np.float64).reshape(len(totals), len(question.candidates))
        everything = [completion for answer in answers for completion in answer]
        return Verdict(
            scores=tuple(table.mean(axis=0).tolist())
            if totals
            else (None,) * len(question.candidates),
            reason=None if totals else f"no readable answer ({_counted(failures)})",
            orders=tuple(orders),
            totals=tuple(totals),
            failures=dict(failures),
            prompt_tokens=sum(answer[0].prompt_tokens for answer in answers),
            completion_tokens=sum(completion.tokens for completion in everything),
        )


class StaticPersonaJudge:
    """One persona per person, written once a run and shown to a `PromptJudge` for every question.

    This is what re-deriving the persona for each query (paper 3) has to beat. The persona is
    written from the past choices of the person's first question, so that a run that was cut off
    writes the same one again on an engine with exact seeds.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        questions: Sequence[Question],
        *,
        history: int = 3,
        samples: int = 1,
        temperature: float = 1.0,
    ) -> None:
        self._name = name
        self._engine = engine
        self._format = _prompt_format("persona")
        self._history = history
        self._judge = PromptJudge(name, engine, samples=samples, temperature=temperature)
        self._temperature = temperature
        self._first: dict[str, Question] = {}
        for question in questions:
            self._first.setdefault(question.user_id, question)
        self._personas: dict[tuple[str, int], asyncio.Task[tuple[str, int, int]]] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def settings(self) -> Mapping[str, object]:
        return {**self._judge.settings, "persona": self._format.name, "history": self._history}

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """A verdict that knows the persona; the first one of a person pays for it."""
        key = (question.user_id, run_seed)
        if key not in self._personas:
            self._personas[key] = asyncio.ensure_future(self._write(*key))
        try:
            persona, read, written = await asyncio.shield(self._personas[key])
        except ChainError as error:
            return Verdict(
                scores=(None,) * len(question.candidates),
                reason=f"there is no persona: {error}",
                failures={error.reason: 1},
            )
        known = [StatedPreference(kind="self_description", text=persona)] if persona else []
        verdict = await self._judge.judge_knowing(question, known, seed=seed)
        if question.id != self._first[question.user_id].id:
            return verdict
        return verdict.model_copy(
            update={
                "prompt_tokens": verdict.prompt_tokens + read,
                "completion_tokens": verdict.completion_tokens + written,
            }
        )

    async def _write(self, user_id: str, run_seed: int) -> tuple[str, int, int]:
        """The persona (empty where nothing is known), and its tokens read and written.

        Raises ChainError where the model's reasoning never comes to one.
        """
        history = self._first[user_id].history[: self._history]
        if not history:
            return "", 0, 0
        messages = self._format.messages(query="-", candidates=["-"], history=history)
        prompt = Prompt(messages=messages, seed=derive_seed(run_seed, "persona", user_id))
        params = SamplingParams(temperature=self._temperature, max_tokens=self._format.max_tokens)
        ((completion,),) = await self._engine.sample([prompt], params)
        persona = answer_in(completion.text).strip()
        return persona, completion.prompt_tokens, completion.tokens


class BradleyTerryJudge:
    """Non-personal: a logistic fit of P(chosen over rejected) on differences of embeddings.

    Fitted on other people's choices, or the same people's earlier ones; it knows what people like
    on the whole and nothing of the person. `choices` are the training comparisons.
    """

    name = "bradley-terry"

    def __init__(
        self, choices: Sequence[PreferencePair], embedder: Embedder, *, penalty: float = 1.0
    ) -> None:
        """Fit at once. `penalty` is the inverse strength C of the L2 penalty.

        Raises ConfigurationError without any choice to fit.
        """
        if not choices:
            raise ConfigurationError(
                "there are no training choices to fit Bradley-Terry on: leave it out, or use data"
                " with a training split"
            )
        from sklearn.linear_model import LogisticRegression

        self._embedder = embedder
        self._penalty = penalty
        self._choices = len(choices)
        gaps = embedder.embed([one.chosen for one in choices]) - embedder.embed(
            [one.rejected for one in choices]
        )
        # Each pair both ways round: a fit needs both outcomes, and no intercept remains.
        fit = LogisticRegression(C=penalty, fit_intercept=False, max_iter=1000)
        fit.fit(
            np.concatenate([gaps, -gaps]), np.concatenate([np.ones(len(gaps)), np.zeros(len(gaps))])
        )
        self._weights = np.asarray(fit.coef_[0], dtype=np.float64)

    @property
    def settings(self) -> Mapping[str, object]:
        return {
            "embedder": self._embedder.name,
            "penalty": self._penalty,
            "choices": self._choices,
        }

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Utilities as scores, and their softmax as the probability of being best."""
        texts = [candidate.text for candidate in question.candidates]
        utilities = self._embedder.embed(texts).astype(np.float64) @ self._weights
        odds = np.exp(utilities - utilities.max())
        return Verdict(
            scores=tuple(utilities.tolist()), probability_best=tuple((odds / odds.sum()).tolist())
        )


class LongestJudge:
    """Not personal, and no model: the longer an answer, the better. Scores are characters."""

    name = "longest"
    settings: Mapping[str, object] = MappingProxyType({})

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """It is never more or less sure, so it gives no probabilities."""
        return Verdict(scores=tuple(float(len(one.text)) for one in question.candidates))


_SCORE = re.compile(r'"?response[ _]?(\d{1,3})"?\s{0,3}:\s{0,3}"?(\d{1,2}(?:\.\d{1,6})?)(?![\d.%])')


def read_scores(text: str, candidates: int) -> tuple[float, ...]:
    """Scores (1-10) of all responses, from the last JSON object of an answer.

    Raises ChainError where there is none, or where it lacks a response or has one out of range.
    """
    text = answer_in(text)
    end = text.rfind("}")
    begin = text.rfind("{", 0, end)
    if begin < 0:
        raise ChainError("the answer has no JSON object with scores", reason="no_scores")
    found: dict[int, float] = {}
    for match in _SCORE.finditer(text, begin, end + 1):
        found[int(match[1])] = float(match[2])
    wanted = range(1, candidates + 1)
    if any(number not in found for number in wanted):
        raise ChainError("a response has no score", reason="missing_candidates")
    scores = tuple(found[number] for number in wanted)
    if not all(1 <= score <= 10 for score in scores):
        raise ChainError("a score is not from 1 to 10", reason="score_refused")
    return scores


def _verdict_of(evaluation: Evaluation) -> Verdict:
    ids = [candidate.id for candidate in evaluation.request.candidates]
    missing = [score.reason for score in evaluation.scores if score.mean is None]
    gaps = [
        abs(chain.totals[one] - reported)
        for chain in evaluation.chains
        if chain.totals_from == "marks"
        for one, reported in chain.reported.items()
        if one in chain.totals
    ]
    return Verdict(
        scores=tuple(score.mean for score in evaluation.scores),
        probability_best=tuple(score.probability_best for score in evaluation.scores),
        reason=missing[0] if missing else None,
        orders=tuple(chain.order for chain in evaluation.chains),
        totals=tuple(tuple(chain.totals.get(one) for one in ids) for chain in evaluation.chains),
        failures=dict(Counter(failure.reason for failure in evaluation.failures)),
        slips=sum(gap > SLIP and not math.isclose(gap, SLIP) for gap in gaps),
        compared=len(gaps),
        prompt_tokens=evaluation.usage.prompt_tokens,
        completion_tokens=evaluation.usage.completion_tokens,
        prototype=evaluation.prototype,
    )


def _prompt_format(name: str) -> ChainFormat:
    return ChainFormat.load(
        Path(str(resources.files("pgenrm_agent.evaluation"))) / "prompts" / name
    )


def _counted(failures: Mapping[str, int]) -> str:
    return json.dumps(dict(sorted(failures.items())))
