"""A fuzz run over the OpenAPI description, against the running server, with all checks."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

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


def _names_a_user(case: schemathesis.Case) -> bool:
    """Whether an id in path or header is one: the description's format cannot say what is printable."""
    named = [unquote(str((case.path_parameters or {}).get("user_id", "ada")))]
    header = (case.headers or {}).get("X-PGenRM-User")
    if header is not None:
        # The header is UTF-8, and clients send its bytes.
        named.append(str(header).encode("latin-1", "replace").decode("utf-8", "replace"))
    return all(map(_is_usable, named))


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
            assume(_names_a_user(case))
            answer = case.call(base_url=running.url, headers=headers, timeout=120)
            # A request may ask for less time than anything takes.
            late = answer.status_code == 504 and answer.json()["code"] == "engine_timeout"
            assert not late or case.body["timeout"] < 60
            case.validate_response(answer, excluded_checks=[not_a_server_error] if late else [])

        tried += 1
        try:
            answered()
        except* Exception as group:
            wrong += group.exceptions
    if wrong:
        raise ExceptionGroup("answers that are not as described", wrong)
    assert tried >= 14
