"""Errors pass from one process to another, as workers of a pool hand them on."""

from __future__ import annotations

import copy
import pickle

import pytest

from pgenrm_agent import errors
from pgenrm_agent.schema import Candidate

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.PGenRMError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_the_same_behind_a_pipe(kind: type[errors.PGenRMError]) -> None:
    raised = kind("it did not work")
    for again in (pickle.loads(pickle.dumps(raised)), copy.copy(raised)):
        assert type(again) is kind
        assert str(again) == "it did not work"
        assert vars(again) == vars(raised)


def test_what_is_wrong_and_where_is_told_behind_a_pipe() -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        Candidate(id="a", text=7)  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.place, again.complaint) == ("text", caught.value.complaint)
