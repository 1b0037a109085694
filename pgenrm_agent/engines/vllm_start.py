"""What starting vLLM takes: a cache that fits a CPU's memory, and the cause when a start fails.

vLLM starts processes of its own. When one fails, each of them prints a traceback, and the exception
that arrives here names none of the causes. So what they write to standard error goes to a file.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pgenrm_agent.errors import ConfigurationError

SEQUENCES = 16
"""Whole contexts that the keys and values on a CPU have room for, where the memory allows it."""
MOST_CACHE_BYTES = 4 * 2**30
LEAST_CACHE_BYTES = 64 * 2**20

# The last line of a traceback, with or without what vLLM's log puts before it.
_RAISED = re.compile(r"^(?:\([^)\n]*\) )?(?:ERROR [^\]\n]*\] )?(?:\w+\.)*(\w*Error: \S.*)$", re.M)
_TRACEBACK = "Traceback (most recent call last)"
_KILLED = re.compile(r": -9\b")
LONGEST_CAUSE = 400


def cpu_cache_bytes(context: int, *, free: int, weights: int) -> int:
    """Bytes for keys and values on a CPU: a few whole contexts, within half of what weights leave.

    context: bytes that one prompt as long as the model's context takes. free: bytes of memory that
    can be had, of which the model's weights take `weights`.

    Raises:
        ConfigurationError: not even one such prompt would fit.
    """
    room = max(0, free - weights) // 2
    if context > room:
        raise ConfigurationError(
            f"a prompt as long as the model's context takes {_gib(context)} of memory in vLLM, and"
            f" {_gib(room)} can be spared for it: pass a smaller max_model_len, free memory, or pass"
            " kv_cache_memory_bytes to decide it yourself"
        )
    return min(room, max(LEAST_CACHE_BYTES, context, min(SEQUENCES * context, MOST_CACHE_BYTES)))


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


class ProcessLog:
    """A temporary file for what processes started within `catching` write to standard error.

    path: None where everything is to be shown as it comes.
    """

    def __init__(self, *, shown: bool) -> None:
        self.path: Path | None = None
        if not shown:
            handle, name = tempfile.mkstemp(prefix="pgenrm-vllm-", suffix=".log")
            os.close(handle)
            self.path = Path(name)

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Give new processes the file as standard error; `sys.stderr` of this one stays as it is."""
        kept = None if self.path is None else _duplicate_of_standard_error()
        if kept is None or self.path is None:
            self.remove()
            yield
            return
        stream = sys.stderr
        with self.path.open("ab") as log:
            if _is_standard_error(stream):
                stream.flush()
                sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, errors="backslashreplace")
            os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            sys.stderr = stream

    def cause(self, error: BaseException) -> str | None:
        """Why a start failed that ended in `error`, as far as the processes told."""
        text = self.path.read_text(errors="replace") if self.path is not None else ""
        # What failed first is what the others fail of.
        raised = _RAISED.search(text, max(0, text.find(_TRACEBACK)))
        if raised:
            return raised[1][:LONGEST_CAUSE]
        if _KILLED.search(str(error)):
            return "one of its processes was killed (signal 9), most often for lack of memory"
        return None

    def pointer(self) -> str:
        """The end of a message that says where the log is; an empty one is deleted."""
        if self.path is None:
            return " (its log is above)"
        if self.path.stat().st_size == 0:
            self.remove()
            return ""
        return f" (its log is in {self.path})"

    def remove(self) -> None:
        """Delete the file. Processes that have it open may go on writing."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()
            self.path = None


def _duplicate_of_standard_error() -> int | None:
    """Return a new descriptor of standard error; None for a process that has none."""
    try:
        return os.dup(2)
    except OSError:
        return None


def _is_standard_error(stream: object) -> bool:
    try:
        return stream.fileno() == 2  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError, ValueError):
        return False
