"""The simulated world is frozen, as hard as intended, and its splits do not overlap."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.training.bundled.simulation import Answers, World, load_answers


def test_the_same_user_is_drawn_every_time() -> None:
    first, second = (list(World().users("test", 5)) for _ in range(2))
    assert [user.user_id for user in first] == [user.user_id for user in second]
    assert all(np.array_equal(a.taste, b.taste) for a, b in zip(first, second, strict=True))


def test_splits_are_different_users() -> None:
    world = World()
    train = next(iter(world.users("train-1-chain", 1)))
    test = next(iter(world.users("test", 1)))
    assert train.user_id != test.user_id
    assert not np.allclose(train.taste, test.taste)


def test_training_and_test_queries_are_disjoint(
    training_answers: Answers, test_answers: Answers
) -> None:
    assert not set(training_answers.queries) & set(test_answers.queries)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2"),
        (json.dumps({"query": "q"}), "'responses'"),
        (json.dumps({"responses": []}), "'query'"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "train.jsonl.gz"
    with gzip.open(path, "wt") as out:
        out.write(json.dumps({"query": "q", "responses": []}) + "\n" + line + "\n")
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_answers(path)
    assert "line 2" in str(caught.value)


def test_missing_answers_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        load_answers(tmp_path / "train.jsonl.gz")
