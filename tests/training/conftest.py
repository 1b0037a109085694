"""The real answers used for training; their folder is named by PGENRM_RESPONSES."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pgenrm_agent.training.simulation import Answers, load_answers


@pytest.fixture(scope="session")
def responses() -> Path:
    """Folder with train.jsonl.gz and val.jsonl.gz; absent means skip, but failure in CI."""
    named = os.environ.get("PGENRM_RESPONSES")
    folder = Path(named) if named else None
    if folder is not None and (folder / "train.jsonl.gz").is_file():
        return folder
    message = "real answers are needed: set PGENRM_RESPONSES to their folder (see docs/training.md)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def training_answers(responses: Path) -> Answers:
    return load_answers(responses / "train.jsonl.gz")


@pytest.fixture(scope="session")
def test_answers(responses: Path) -> Answers:
    return load_answers(responses / "val.jsonl.gz")
