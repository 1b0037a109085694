"""A population of simulated users who agreed to take part, its prototypes, and users to test.

Population and test users are never seen in training, nor are their queries; the two choose on
different queries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.embedding import Embedder
from pgenrm_agent.engines.protocol import (
    Completion,
    Engine,
    Prompt,
    SamplingParams,
)
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model
from pgenrm_agent.graphs.prototype_learning import LearningContext, learn_prototypes
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes.fitting import Choices, FittedPrototypes, fit_prototypes
from pgenrm_agent.prototypes.refinement import nearest
from pgenrm_agent.schema import PreferencePair
from pgenrm_agent.training.bundled.simulation import Answers, SimulatedUser, World, as_pair
from studies.bundled.evaluate import Case, draw_cases

CHOSEN, UNREFINED = "chosen", "chosen, not refined"
"""Names of prototype versions: k by the spectrum, with and without refinement. Others are a k."""

MEMBER_CHOICES = 6
FIRST_CHOICE = datetime(2026, 1, 1, tzinfo=UTC)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class Agreement(Model):
    """How well a version's groups are the simulation's archetypes.

    before, after: refinement; adjusted Rand index over personas, -0.5 to 1, 0 for chance.
    """

    seed: int
    version: str
    k: int
    before: float
    after: float
    reason: str

    @property
    def key(self) -> tuple[int, str]:
        """What there is one record of."""
        return self.seed, self.version


@dataclass(frozen=True)
class Population:
    """members: who agreed, with their choices. cases: test users, on queries of `answers`."""

    seed: int
    answers: Answers
    members: tuple[tuple[SimulatedUser, tuple[PreferencePair, ...]], ...]
    cases: tuple[Case, ...]

    def remember(self, memory: UserMemory) -> None:
        """Put everybody's choices into the memory; what is there already stays.

        A test user is there once for each number of known choices, and has not agreed.
        """
        known = {user.user_id: pairs for user, pairs in self.members}
        for case in self.cases:
            pairs = [as_pair(self.answers, choice) for choice in case.shown]
            for count in range(1, len(pairs) + 1):
                name = known_as(case.user, count)
                known[name] = _dated(name, pairs[:count])
        memory.import_(
            json.dumps(
                {"record": "preference_pair", "user_id": user, "pair": pair.model_dump(mode="json")}
            )
            for user, pairs in known.items()
            for pair in pairs
        )
        agreed = memory.consenting(user.user_id for user, _ in self.members)
        for user, _ in self.members:
            if user.user_id not in agreed:
                memory.set_consent(user.user_id, True)

    async def learn(
        self,
        version: str,
        engine: Engine,
        chain_format: ChainFormat,
        embedder: Embedder,
        memory: UserMemory,
        *,
        progress: Progress,
    ) -> Agreement:
        """Make this version the one that counts in the memory."""
        archetypes = {user.user_id: user.archetype for user, _ in self.members}
        # As the graph numbers them: by id.
        of = [archetypes[user] for user in sorted(archetypes)]
        agreements: list[Agreement] = []

        def fit(choices: Choices, k: int | None, seed: int) -> FittedPrototypes:
            from sklearn.metrics import adjusted_rand_score

            fitted = fit_prototypes(choices, k, seed)
            if len(set(choices.users)) != len(of):
                raise ConfigurationError(
                    f"{len(of) - len(set(choices.users))} of {len(of)} members have no persona that can"
                    " be read, so nobody can say which groups are right: study another model"
                )
            truth = [of[user] for user in choices.users]
            before = nearest(choices.samples.persona, fitted.centroids)
            agreements.append(
                Agreement(
                    seed=self.seed,
                    version=version,
                    k=len(fitted.prototypes),
                    before=float(adjusted_rand_score(truth, before)),
                    after=float(adjusted_rand_score(truth, fitted.labels)),
                    reason=fitted.reason,
                )
            )
            if version == UNREFINED:
                return replace(fitted, prototypes=fitted.centroids, labels=before)
            return fitted

        await learn_prototypes(
            LearningContext(
                engine=engine,
                chain_format=chain_format,
                memory=memory,
                embedder=embedder,
                fit=fit,
                k=int(version) if version.isdigit() else None,
                seed=self.seed,
                on_progress=lambda what, done, total: progress(
                    f"seed {self.seed}, {version}: {what}", done, total
                ),
            )
        )
        return agreements[0]


def draw_population(
    world: World, answers: Answers, *, members: int, users: int, history: int, seed: int
) -> Population:
    """Draw a population.

    members: how many agreed. users: how many are tested, with `history` choices known each.
    """
    queries = len(answers.queries)
    theirs = np.arange(0, queries, 2)
    agreed = []
    for index, user in enumerate(world.users(f"scaling-members-{seed}", members)):
        rng = np.random.default_rng([seed, index])
        chosen = [
            world.compare(user, answers, int(query), rng)
            for query in rng.choice(theirs, MEMBER_CHOICES, replace=False)
        ]
        agreed.append((user, _dated(user.user_id, [as_pair(answers, choice) for choice in chosen])))
    rest = answers.subset(range(1, queries, 2))
    cases = draw_cases(
        world, rest, split=f"scaling-{seed}", count=users, history=history, seed=seed
    )
    return Population(seed, rest, tuple(agreed), tuple(cases))


def known_as(user: SimulatedUser, choices: int) -> str:
    """The id under which the memory has so many of a test user's choices."""
    return f"{user.user_id}-knowing-{choices}"


def _dated(user_id: str, pairs: Sequence[PreferencePair]) -> tuple[PreferencePair, ...]:
    """With ids and dates that are the same in every run: which ones are recalled depends on them."""
    return tuple(
        pair.model_copy(
            update={"id": f"{user_id}-{number}", "created_at": FIRST_CHOICE.replace(hour=number)}
        )
        for number, pair in enumerate(pairs)
    )


class RememberingEngine:
    """An engine that gives an equal call with one prompt a sample the same answer again.

    Versions that differ only in how personas are grouped are so built from the same personas.
    """

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.capabilities = engine.capabilities
        self._engine = engine
        self._answers: dict[tuple[str, str], list[list[Completion]]] = {}

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Return what the engine wrote when it was first asked this."""
        key = "\n".join(prompt.model_dump_json() for prompt in prompts), params.model_dump_json()
        if key not in self._answers:
            self._answers[key] = await self._engine.sample(prompts, params)
        return self._answers[key]

    async def aclose(self) -> None:
        """Nothing: whoever opened the engine closes it."""
