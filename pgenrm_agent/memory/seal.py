"""Texts of users that leave the memory for a while, sealed: in a graph's state, a checkpoint, a run."""

from __future__ import annotations

from collections.abc import Iterable

from pgenrm_agent.memory.store import reported
from pgenrm_agent.memory.user_memory import UserMemory
from pgenrm_agent.memory.vault import UserKey, new_key

PLACE = "outside"


class Seal:
    """Seals texts with their user's key, and opens them while that user takes part.

    What is sealed has the user's pseudonym before a dot, and the text behind it. To withdraw, or to be
    forgotten, closes every copy. The same text of the same user is sealed alike.
    """

    def __init__(self, memory: UserMemory) -> None:
        self._memory = memory

    def seal(self, user_id: str, text: str) -> str:
        """Return a text of a user, sealed; of one who has been forgotten, so that nobody opens it.

        Raises:
            MemoryStoreError: The memory cannot be read.
        """
        store = self._memory.shared_store()
        with reported("read", store.where):
            return _sealed(store.vault.key_of(user_id), text)

    def seal_beside(self, sealed: str, text: str) -> str:
        """Return a text, sealed as one of the user whose `sealed` is.

        Raises:
            MemoryStoreError: The memory cannot be read.
        """
        return _sealed(self._keys([sealed]).get(_pseudonym(sealed)), text)

    def unseal(self, sealed: Iterable[str]) -> dict[str, str]:
        """Return the texts by what was sealed; those of another memory, or of who left, are missing.

        Raises:
            MemoryStoreError: The memory cannot be read.
        """
        tokens = list(sealed)
        keys = self._keys(tokens)
        agreed = self._memory.consenting(key.user_id for key in keys.values())
        texts: dict[str, str] = {}
        for token in tokens:
            key = keys.get(_pseudonym(token))
            if key is not None and key.user_id in agreed:
                try:
                    texts[token] = key.open(token.partition(".")[2], PLACE)
                except ValueError:  # changed, so as good as gone
                    continue
        return texts

    def _keys(self, sealed: Iterable[str]) -> dict[str, UserKey]:
        store = self._memory.shared_store()
        with reported("read", store.where):
            return store.vault.keys_behind(_pseudonym(token) for token in sealed)


def _sealed(key: UserKey | None, text: str) -> str:
    if key is None:
        key = new_key("")
    return f"{key.pseudonym}.{key.seal(text, PLACE)}"


def _pseudonym(sealed: str) -> str:
    return sealed.partition(".")[0]
