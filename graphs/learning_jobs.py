"""What a run of prototype learning keeps of users: pseudonyms, and personas sealed with their keys.

A run that is cut off leaves a file behind. With a user's key gone, nothing in it tells of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from typing_extensions import TypedDict

from pgenrm_agent.engines.protocol import SchemaRefused
from pgenrm_agent.errors import ConfigurationError, EngineTimeout, EngineUnavailable, PGenRMError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.memory.rows import pair_row_id
from pgenrm_agent.memory.vault import UserKey, Vault
from pgenrm_agent.schema import PreferencePair, UserSignals


class Job(TypedDict):
    """One persona to derive: of whom, for the query of which of their choices.

    user: a pseudonym. choice: the id of the row that holds it.
    """

    user: str
    choice: str


class LearnedPersona(Job):
    """One derived persona, sealed."""

    sealed: str


@dataclass(frozen=True)
class OpenPersona:
    """One derived persona, and the choice for whose query it is."""

    user_id: str
    pair_id: str
    text: str


Item = TypeVar("Item", bound=Job)


def standing_signals(memory: UserMemory, user_id: str) -> UserSignals:
    """Return what is known of a user, without what a newer entry overrules; choices oldest first."""
    signals = memory.recall(user_id, selection="recent")
    return signals.model_copy(update={"history": signals.history[::-1]})


def is_of_jobs_alone(
    error: PGenRMError, *, jobs: Sequence[Job], answered: bool, last_try: bool
) -> bool:
    """Whether an error in which a whole batch ended costs its jobs, and does not end the build.

    answered: the engine has answered others, so that what it cannot do is these prompts' fault.
    """
    if isinstance(error, SchemaRefused):
        return True
    if not answered:
        return False
    if last_try or isinstance(error, ConfigurationError):
        return True
    # The engine may be broken, or it refuses what this user chose.
    is_away = isinstance(error, (EngineTimeout, EngineUnavailable))
    return not is_away and len({job["user"] for job in jobs}) == 1


def job_of(key: UserKey, pair_id: str) -> Job:
    """Return the job to derive a persona for one choice of a user."""
    return Job(user=key.pseudonym, choice=pair_row_id(key, pair_id))


def pairs_by_choice(
    key: UserKey, pairs: Sequence[PreferencePair]
) -> dict[tuple[str, str], PreferencePair]:
    """Return a user's choices by what a job calls them."""
    return {(key.pseudonym, pair_row_id(key, pair.id)): pair for pair in pairs}


def sealed_persona(job: Job, key: UserKey, text: str) -> LearnedPersona:
    """Return the persona that a job gave."""
    return LearnedPersona(**job, sealed=key.seal(text, _place(job)))


def open_personas(
    personas: Sequence[LearnedPersona], pairs: Mapping[str, Sequence[PreferencePair]], vault: Vault
) -> list[OpenPersona]:
    """Return the personas of users whose choices are in `pairs`, by user id, for those choices."""
    keys = {key.pseudonym: key for key in vault.keys_of(pairs).values()}
    known = {
        choice: pair.id
        for key in keys.values()
        for choice, pair in pairs_by_choice(key, pairs[key.user_id]).items()
    }
    return [
        OpenPersona(key.user_id, pair_id, key.open(persona["sealed"], _place(persona)))
        for persona in personas
        if (key := keys.get(persona["user"]))
        and (pair_id := known.get((persona["user"], persona["choice"])))
    ]


def merged(items: Sequence[Item], more: Sequence[Sequence[Item]]) -> list[Item]:
    """Return `items`, and after them those of each write that are not among them yet.

    One item a choice, however often a node was run: a write that comes again changes nothing.
    """
    every = chain(items, chain.from_iterable(more))
    return list({(item["user"], item["choice"]): item for item in every}.values())


def _place(job: Job) -> str:
    return f"persona:{job['choice']}"
