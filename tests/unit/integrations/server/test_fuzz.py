"""A fuzz run over the OpenAPI description, against the running server, with all checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pgenrm_agent.user_ids import normal_user_id

if TYPE_CHECKING:
    from .conftest import Running


def _is_usable(text: str) -> bool:
    try:
        return normal_user_id(text) == text
    except ValueError:
        return False


schemathesis.openapi.format(
    "user-id", st.text(st.characters(codec="utf-8"), min_size=1, max_size=256).filter(_is_usable)
)

# Examples per route: enough to meet every kind of wrong value, and done within a minute or two.
EXAMPLES = 10


@pytest.mark.long
def test_whatever_is_sent_is_answered_as_described(running: Running) -> None:
    description = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    headers = {"Authorization": f"Bearer {running.keys['acme']}"}
    tried, wrong = 0, []
    for described in description.get_all_operations():
        operation = described.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def answered(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=running.url, headers=headers, timeout=120)

        tried += 1
        try:
            answered()
        except* Exception as group:
            wrong += group.exceptions
    if wrong:
        raise ExceptionGroup("answers that are not as described", wrong)
    assert tried >= 14
