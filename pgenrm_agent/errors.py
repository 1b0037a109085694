"""Every error this library raises on purpose.

    PGenRMError
    ├── ConfigurationError      a setting, argument or installed extra is wrong
    │   └── InvalidInput        a value that its type refuses; a ValueError, too
    ├── EngineError             the model could not be asked
    │   ├── EngineUnavailable   it cannot be reached or loaded
    │   └── EngineTimeout       it did not answer in time
    ├── ChainError              the model answered, and the answer is no evaluation chain
    ├── BudgetReached           a job stopped at what it may cost; it can be started again
    └── MemoryStoreError        the user memory cannot be read or written
        └── EntryRefused        it works, and what was given cannot be kept
            └── EntryConflict   an entry of this id says something else

Each message says what was wrong, with which value, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping


class PGenRMError(Exception):
    """Base class of all errors raised on purpose by pgenrm-agent."""


class ConfigurationError(PGenRMError):
    """A setting, an argument or a missing optional package."""


class InvalidInput(ConfigurationError, ValueError):
    """A value that its type refuses.

    `place` is the first part of it that is wrong ("candidates.0.text"; empty for the whole),
    `complaint` what is wrong there, and `details` all complaints in one line.
    """

    def __init__(
        self, message: str, *, place: str = "", complaint: str = "", details: str = ""
    ) -> None:
        super().__init__(message)
        self.place = place
        self.complaint = complaint
        self.details = details


class EngineError(PGenRMError):
    """The engine failed to produce samples."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached, or its model cannot be loaded."""


class EngineTimeout(EngineError):
    """The engine did not answer within its time-out."""


class ChainError(PGenRMError):
    """A model's text is not a usable evaluation chain.

    `reason` is a short machine-readable code (for counting); the message is for people. `failures`
    counts, by reason, the sampled texts of an evaluation that had no usable one, and `prompt_tokens`
    and `completion_tokens` are what these have cost.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "unparseable",
        failures: Mapping[str, int] | None = None,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.failures = dict(failures or {})
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens


class BudgetReached(PGenRMError):
    """A job ended before its work was done, at what it may cost. What it has done is kept."""


class MemoryStoreError(PGenRMError):
    """The user memory cannot be opened, read or written."""


class EntryRefused(MemoryStoreError):
    """A choice or statement that cannot be kept: it is too long, or holds a number that is none."""


class EntryConflict(EntryRefused):
    """The user has another choice of this id."""
