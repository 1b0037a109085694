"""Which past choices are shown: the rules, without a store."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory.records import StatedRecord
from pgenrm_agent.memory.selection import select
from pgenrm_agent.schema import PreferencePair, StatedPreference

NOON = datetime(2026, 1, 5, 12)


def pair(name: str, created_at: datetime) -> PreferencePair:
    return PreferencePair(query="?", chosen="yes", rejected="no", id=name, created_at=created_at)


def test_a_time_without_a_zone_is_taken_as_utc() -> None:
    assert pair("naive", NOON).created_at == NOON.replace(tzinfo=UTC)
    east = timezone(timedelta(hours=5))
    assert pair("aware", NOON.replace(tzinfo=east)).created_at.tzinfo == east
    stated = StatedRecord(user_id="ada", stated=StatedPreference(text="Brief."), created_at=NOON)
    assert stated.created_at.tzinfo == UTC


def test_recent_is_newest_first_in_whatever_zone_and_ties_go_by_id() -> None:
    west = timezone(timedelta(hours=-1))
    pairs = [
        pair("b", NOON),
        pair("earlier", NOON.replace(tzinfo=timezone(timedelta(hours=2)))),
        pair("latest", NOON.replace(tzinfo=west)),
        pair("a", NOON.replace(tzinfo=UTC)),
    ]
    for order in (pairs, pairs[::-1]):
        assert [shown.id for shown in select(order, "recent", 3)] == ["latest", "b", "a"]


def test_equally_similar_choices_are_shown_newest_first() -> None:
    pairs = [pair("old", NOON), pair("new", NOON + timedelta(days=1)), pair("far", NOON)]
    chosen = select(pairs, "similar", None, similarity=[0.5, 0.5 + 1e-8, 0.1])
    assert [shown.id for shown in chosen] == ["new", "old", "far"]


def test_similarity_for_too_few_choices_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="0 similarities for 2 pairs"):
        select([pair("a", NOON), pair("b", NOON)], "similar", 1)
    with pytest.raises(ConfigurationError, match="1 similarities for 2 pairs"):
        select([pair("a", NOON), pair("b", NOON)], "similar", 1, similarity=[1.0])


def test_choosing_needs_no_chroma() -> None:
    check = "import sys, pgenrm_agent.memory.selection; sys.exit('chromadb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
