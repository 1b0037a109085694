"""Every dataset of choices, named in one string: `load_rows("people:FILE")`.

    prb:PATH             PersonalRewardBench, see `personal_reward_bench`
    people:FILE          real people's choices, without splits (`user_id`, `query`, `chosen`, `rejected`)
    people-topics:FILE   the same, with topics held out, too
    polis:FILE           a set of `people.PEOPLE_SETS`, by its name: llmfao, mtbench, polarized, lamp, ...
    polis-prompts:FILE   the same, with prompts held out, too
    FILE                 plain JSONL of {user_id, query or conversation, chosen, rejected, ...}, or what
                         `pgenrm users export` wrote
    sample               such a file that ships: invented users, to try things out

To add a source, write a module beside this one that makes `PreferenceRow`s of what follows the colon
(`parse_row` reads a record), and name it in `_SOURCES`. A package that evaluation must not import
calls `register_source` instead, as the bundled model's world does for `simulated:FOLDER` and
`simulated-train:FOLDER`:

    register_source("votes", lambda rest: [...], usage="FILE")
    rows = load_rows("votes:2026.csv")

JSONL files may be gzipped. A malformed row is one ConfigurationError that names file, line and field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.jsonl import read_jsonl
from pgenrm_agent.evaluation.datasets.parsing import parse_row, required
from pgenrm_agent.evaluation.datasets.people import (
    PEOPLE_SETS,
    read_people,
    read_people_topics,
    split_by_user,
)
from pgenrm_agent.evaluation.datasets.personal_reward_bench import read_personal_reward_bench
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow

SAMPLE = "sample"
CHOICE = "preference_pair"
"""What a line of a memory's export is called that has a choice; other lines have none to ask about."""


@dataclass(frozen=True)
class _Source:
    read: Callable[[str], list[PreferenceRow]]
    usage: str


_SOURCES: dict[str, _Source] = {
    "prb": _Source(read_personal_reward_bench, "PATH"),
    "people": _Source(read_people, "FILE"),
    "people-topics": _Source(read_people_topics, "FILE"),
    **{name: _Source(each.read, "FILE") for name, each in PEOPLE_SETS.items()},
    **{f"{name}-prompts": _Source(each.read_prompts, "FILE") for name, each in PEOPLE_SETS.items()},
}


def load_rows(source: str) -> list[PreferenceRow]:
    """Return the rows of a dataset; see the module for what `source` can be.

    Raises ConfigurationError: no such data, a tool to read it is missing, or a malformed row.
    """
    path = plain_file(source)
    if path is None:
        kind, _, rest = source.partition(":")
        return _SOURCES[kind].read(rest)
    records = [
        (where, _choice(where, record))
        for where, record in read_jsonl(path)
        if record.get("record", CHOICE) == CHOICE
    ]
    if not says_splits(record for _, record in records):
        return split_by_user(records)
    return [parse_row(where, record) for where, record in records]


def _choice(where: str, record: Mapping[str, object]) -> Mapping[str, object]:
    """Return a record; one of a memory's export with its choice's fields beside the user's id."""
    pair = record.get("pair")
    if "record" not in record or not isinstance(pair, Mapping):
        return record
    return {**pair, "user_id": required(record, "user_id", where)}


def plain_file(source: str, *, also: tuple[str, ...] = ()) -> Path | None:
    """Return the JSONL file that a source is; None where it is one of the other kinds.

    also: what the caller reads beside these, named in the refusal.

    Raises ConfigurationError where it is neither.
    """
    if source == SAMPLE:
        return Path(str(resources.files("pgenrm_agent.evaluation.datasets") / "sample.jsonl"))
    kind, _, rest = source.partition(":")
    if kind in _SOURCES and rest:
        return None
    path = Path(source)
    if path.is_dir():
        raise ConfigurationError(
            f"data source {source!r} is a folder: name a JSONL file in it, or say what the folder"
            f" holds: {_known('PATH', 'FOLDER')}"
        )
    # A letter before the colon is a drive.
    mistyped = len(kind) > 1 and rest and not path.exists()
    if mistyped or not path.name.endswith((".jsonl", ".jsonl.gz")):
        usages = {usage.partition(":")[0]: usage for usage in (SAMPLE, *also)}
        usages |= {name: f"{name}:{known.usage}" for name, known in _SOURCES.items()}
        near = [] if path.exists() else get_close_matches(kind, usages, n=1)
        meant = f"; did you mean {usages[near[0]]}? Use" if near else ": use"
        raise ConfigurationError(
            f"data source {source!r} is unknown{meant} a JSONL file,"
            f" {', '.join((SAMPLE, *also))}, one of {_known()}, or"
            " NAME:FILE or NAME-prompts:FILE for a set of real people's choices"
            f" ({', '.join(PEOPLE_SETS)})"
        )
    return path


def says_splits(records: Iterable[Mapping[str, object]]) -> bool:
    """Return whether records say which split they are in; none at all leave nothing open."""
    every = list(records)
    return not every or any("split" in record for record in every)


def _known(*usages: str) -> str:
    return ", ".join(
        f"{kind}:{source.usage}"
        for kind, source in sorted(_SOURCES.items())
        if kind.removesuffix("-prompts") not in PEOPLE_SETS
        and (not usages or source.usage.startswith(usages))
    )


def register_source(kind: str, read: Callable[[str], list[PreferenceRow]], *, usage: str) -> None:
    """Let `load_rows` read `KIND:REST` by calling `read(REST)`; a kind registered again is replaced.

    usage: what REST is, for the message that names all sources, such as "FILE".
    """
    _SOURCES[kind] = _Source(read, usage)
