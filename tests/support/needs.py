"""What tests need of the machine. A developer may do without; in CI nothing is skipped in silence."""

from __future__ import annotations

import os

import pytest

IN_CI = os.environ.get("CI") == "true"


def needs(present: object, what: str) -> None:
    """Skip the test where `present` is false, saying what it needs; in CI (CI=true) fail instead."""
    if present:
        return
    if IN_CI:
        pytest.fail(f"CI has to have everything: {what}")
    pytest.skip(what)
