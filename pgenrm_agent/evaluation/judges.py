"""What can be evaluated: the reward model, and the judges it has to beat on the same engine.

Judges that ask no model are in `baselines`. To add one, write a class with what `Judge` names, and
name it in `lineup`.

Each judge gets the same questions with the same seeds. `PromptJudge` and `StaticPersonaJudge` ask an
instruction-following model in plain words. A model that writes nothing but its own chains, as the
bundled one, cannot follow them, and the table says so in unreadable samples; with less shown than
there is, `ChainJudge` is the baseline for such a model.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np

from pgenrm_agent.chain import ChainFormat, answer_in
from pgenrm_agent.chain.objects import last_scores, read_totals
from pgenrm_agent.engines.protocol import Engine, Prompt, SamplingParams
from pgenrm_agent.errors import ChainError
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.evaluation.records import Verdict
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.sampling import derive_seed, plan_chains
from pgenrm_agent.schema import Evaluation, EvaluationChain, Scaling, StatedPreference, UserSignals

SLIP = 0.1
"""A model's own total that is further from its marks than this is an arithmetic slip."""


class Judge(Protocol):
    """Scores the candidates of one question.

    name: in tables. settings: what the result depends on, as JSON data; a run is only resumed with
    the same. Errors of the engine are raised, so that the run ends and can be resumed; what the
    model wrote wrong is in the verdict.
    """

    name: str
    settings: Mapping[str, object]

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Judge with the seed of this question in this run, and the one that all questions share."""
        ...


class ChainJudge:
    """Evaluation chains by `PGenRM`: the method itself, or with less shown than it could be.

    history, stated: whether the user's past choices and statements are shown. embedder: name of what
    finds similar users, where it is not the bundled model.
    """

    def __init__(
        self,
        name: str,
        model: PGenRM,
        scaling: Scaling,
        *,
        history: bool = True,
        stated: bool = True,
        embedder: str | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._scaling = scaling
        self._history = history
        self._stated = stated
        self.settings: Mapping[str, object] = {
            "scaling": scaling.model_dump(mode="json", exclude={"seed"}),
            "history": history,
            "stated": stated,
            "embedder": embedder if scaling.prototype else None,
        }

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return the evaluation's means; not scored where none of its chains can be read."""
        signals = UserSignals(
            user_id=question.user_id,
            history=question.history if self._history else (),
            stated=question.stated if self._stated else (),
        )
        try:
            evaluation = await self._model.ascore(
                question.user_id,
                question.query,
                question.candidates,
                conversation=question.conversation,
                scaling=self._scaling.model_copy(update={"seed": seed}),
                signals=signals,
            )
        except ChainError as error:
            return Verdict(
                scores=(None,) * len(question.candidates),
                reason=str(error),
                failures=error.failures or {error.reason: 1},
                prompt_tokens=error.prompt_tokens,
                completion_tokens=error.completion_tokens,
            )
        return _verdict_of(evaluation)


class ShownLess:
    """The same judge, who is shown at most `past` of a question's past choices; or nothing stated.

    The first ones of a question's history are shown, which are drawn, so that fewer are among more.
    """

    def __init__(self, name: str, judge: Judge, *, past: int, stated: bool = True) -> None:
        self.name = name
        self._judge = judge
        self._past = past
        self._stated = stated
        self.settings: Mapping[str, object] = {**judge.settings, "past": past, "stated": stated}

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return the verdict on the question with less known of the user."""
        less = question.model_copy(
            update={
                "history": question.history[: self._past],
                "stated": question.stated if self._stated else (),
            }
        )
        return await self._judge.judge(less, seed=seed, run_seed=run_seed)


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
        self.name = name
        self._engine = engine
        self._format = _prompt_format("judge-thinking" if thinking else "judge")
        self._history = history
        self._stated = stated
        self._samples = samples
        self._temperature = temperature
        self.settings: Mapping[str, object] = {
            "prompt": self._format.name,
            "history": history,
            "stated": stated,
            "samples": samples,
            "temperature": temperature,
        }

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return the mean score of each candidate over the readable answers."""
        stated = question.stated if self._stated else ()
        return await self.judge_knowing(question, stated, seed=seed)

    async def judge_knowing(
        self, question: Question, stated: Sequence[StatedPreference], *, seed: int
    ) -> Verdict:
        """Judge with `stated` as what is known of the user in words."""
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
            SamplingParams(
                temperature=self._temperature,
                max_tokens=self._format.max_tokens(len(question.candidates)),
            ),
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
        return Verdict(
            scores=tuple(table.mean(axis=0).tolist())
            if totals
            else (None,) * len(question.candidates),
            reason=None if totals else f"no readable answer ({_counted(failures)})",
            orders=tuple(orders),
            totals=tuple(totals),
            failures=dict(failures),
            prompt_tokens=sum(sample.prompt_tokens for answer in answers for sample in answer),
            completion_tokens=sum(completion.tokens for answer in answers for completion in answer),
        )


class StaticPersonaJudge:
    """One persona a user, written once a run and shown to a `PromptJudge` for every question.

    This is what re-deriving the persona for each query (paper 3) has to beat. The persona is
    written from the past choices of the user's first question, so that a run that was cut off
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
        self.name = name
        self._engine = engine
        self._format = _prompt_format("persona")
        self._history = history
        self._judge = PromptJudge(name, engine, samples=samples, temperature=temperature)
        self._temperature = temperature
        self.settings: Mapping[str, object] = {
            **self._judge.settings,
            "persona": self._format.name,
            "history": history,
        }
        self._first: dict[str, Question] = {}
        for question in questions:
            self._first.setdefault(question.user_id, question)
        self._personas: dict[tuple[str, int], asyncio.Task[tuple[str, int, int]]] = {}

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return a verdict that knows the persona; the first one of a user pays for it."""
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
        """Return the persona (empty where nothing is known), and its tokens read and written.

        Raises ChainError where the model's reasoning never comes to one.
        """
        history = self._first[user_id].history[: self._history]
        if not history:
            return "", 0, 0
        messages = self._format.messages(query="-", candidates=["-"], history=history)
        prompt = Prompt(messages=messages, seed=derive_seed(run_seed, "persona", user_id))
        params = SamplingParams(
            temperature=self._temperature, max_tokens=self._format.max_tokens(candidates=1)
        )
        ((completion,),) = await self._engine.sample([prompt], params)
        persona = answer_in(completion.text).strip()
        return persona, completion.prompt_tokens, completion.tokens


def read_scores(text: str, candidates: int) -> tuple[float, ...]:
    """Return the scores (1-10) of all responses, from the last JSON object of an answer that has any.

    Numbers are read as those of a chain are: "7,5" is 7.5 and "4/5" is 8.

    Raises ChainError where there is none, or where it lacks a response or has one out of range.
    """
    written = last_scores(answer_in(text))
    if not written:
        raise ChainError("the answer has no JSON object with scores", reason="no_scores")
    ids = [f"response {number}" for number in range(1, candidates + 1)]
    reading = read_totals(written, ids)
    if reading.off_scale is not None:
        raise ChainError(
            f"a score is {reading.off_scale:g}, and not from 1 to 10", reason="score_refused"
        )
    missing = [name for name in ids if name not in reading.totals]
    if missing:
        raise ChainError(f"{missing[0]} has no score", reason="missing_candidates")
    return tuple(reading.totals[name] for name in ids)


def count_slips(chains: Iterable[EvaluationChain]) -> tuple[int, int]:
    """Return how many totals the models wrote that their marks do not give, and of how many.

    Only chains whose totals were computed from marks can tell; see `SLIP`.
    """
    gaps = [
        abs(chain.totals[candidate] - reported)
        for chain in chains
        if chain.totals_from == "marks"
        for candidate, reported in chain.reported.items()
        if candidate in chain.totals
    ]
    return sum(gap > SLIP and not math.isclose(gap, SLIP) for gap in gaps), len(gaps)


def _verdict_of(evaluation: Evaluation) -> Verdict:
    ids = [candidate.id for candidate in evaluation.request.candidates]
    missing = [score.reason for score in evaluation.scores if score.mean is None]
    slips, compared = count_slips(evaluation.chains)
    return Verdict(
        scores=tuple(score.mean for score in evaluation.scores),
        probability_best=tuple(score.probability_best for score in evaluation.scores),
        reason=missing[0] if missing else None,
        orders=tuple(chain.order for chain in evaluation.chains),
        totals=tuple(
            tuple(chain.totals.get(candidate) for candidate in ids) for chain in evaluation.chains
        ),
        failures=dict(Counter(failure.reason for failure in evaluation.failures)),
        slips=slips,
        compared=compared,
        unchecked=sum(chain.totals_from == "reported" for chain in evaluation.chains),
        prompt_tokens=evaluation.usage.prompt_tokens,
        completion_tokens=evaluation.usage.completion_tokens,
        prototype=evaluation.prototype,
    )


def _prompt_format(name: str) -> ChainFormat:
    folder = Path(str(resources.files("pgenrm_agent.evaluation"))) / "prompts" / name
    return ChainFormat.load(folder, judges=name != "persona")


def _counted(failures: Mapping[str, int]) -> str:
    return json.dumps(dict(sorted(failures.items())))
