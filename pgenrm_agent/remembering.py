"""What a reward model keeps of users: the methods of `PGenRM` that write to its memory."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING

from pgenrm_agent.arguments import model_of
from pgenrm_agent.background_loop import BackgroundLoop
from pgenrm_agent.evaluation_input import stated_preference
from pgenrm_agent.feedback import feedback_pairs
from pgenrm_agent.schema import Evaluation, PreferencePair, StatedPreference
from pgenrm_agent.sync_wrappers import Closeable, blocking

if TYPE_CHECKING:
    from pgenrm_agent.memory import Entry, UserMemory


class Remembering(Closeable):
    """Choices and statements of users: stored, listed, corrected, forgotten."""

    @property
    @abstractmethod
    def memory(self) -> UserMemory:
        """The user memory."""

    @property
    @abstractmethod
    def _loop(self) -> BackgroundLoop: ...

    async def aremember(self, user_id: str, pair: PreferencePair) -> str:
        """Store that `user_id` preferred one answer to another; returns the pair's id.

        It is durable once this returns.

        Raises:
            MemoryStoreError: It cannot be stored.
        """
        return await asyncio.to_thread(lambda: self.memory.remember(user_id, pair))

    remember = blocking(aremember)

    async def astate_preference(self, user_id: str, stated: StatedPreference | str) -> str:
        """Store what `user_id` says they want; returns the statement's id.

        A plain text is a statement of style.

        Raises:
            ConfigurationError: The text is blank.
            MemoryStoreError: It cannot be stored.
        """
        preference = stated_preference(stated)
        return await asyncio.to_thread(lambda: self.memory.state(user_id, preference))

    state_preference = blocking(astate_preference)

    async def aforget(self, user_id: str) -> int:
        """Remove everything kept about `user_id`; returns how many entries the memory had."""
        return await asyncio.to_thread(lambda: self.memory.forget(user_id))

    forget = blocking(aforget)

    async def aremember_feedback(
        self, evaluation: Evaluation, candidate_id: str, liked: bool
    ) -> list[str]:
        """Store a thumbs up, or down, for one candidate of an evaluation; returns the pairs' ids.

        It becomes choices between that candidate and the best others of the evaluation, three at
        most. Another thumb for the same candidate takes the place of the one before.

        Raises:
            ConfigurationError: The evaluation has no such candidate, or no other one to compare with.
            MemoryStoreError: It cannot be stored.
        """
        evaluation = model_of(Evaluation, evaluation, "evaluation")
        user_id = evaluation.request.user_id
        pairs = feedback_pairs(evaluation, candidate_id, liked)

        def store() -> list[str]:
            for pair in pairs:
                self.memory.put(user_id, pair)
            return [pair.id for pair in pairs]

        return await asyncio.to_thread(store)

    remember_feedback = blocking(aremember_feedback)

    async def aentries(self, user_id: str) -> tuple[Entry, ...]:
        """Return all choices of `user_id`, then all statements, oldest first, each with its id.

        An entry that a newer one contradicts or repeats says which; it counts no more.
        """
        return await asyncio.to_thread(lambda: self.memory.entries(user_id))

    entries = blocking(aentries)

    async def acorrect(
        self, user_id: str, entry_id: str, new: PreferencePair | StatedPreference | str
    ) -> str:
        """Put another choice, or statement, in the place of one; returns its id.

        A choice keeps an id that it was given. One that follows from the content, as a statement's
        does, goes with it.

        Raises:
            ConfigurationError: Nothing with this id is remembered of the user, or something of the
                other kind.
            MemoryStoreError: It cannot be stored.
        """
        given = new if isinstance(new, PreferencePair) else stated_preference(new)
        return await asyncio.to_thread(lambda: self.memory.correct(user_id, entry_id, given))

    correct = blocking(acorrect)

    async def aforget_entry(self, user_id: str, entry_id: str) -> bool:
        """Remove one choice or statement of `user_id`; returns whether there was one of this id."""
        return await asyncio.to_thread(lambda: self.memory.forget_entry(user_id, entry_id))

    forget_entry = blocking(aforget_entry)
