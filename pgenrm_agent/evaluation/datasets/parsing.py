"""A record of any dataset as a row; what is wrong with it is named by place and field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from pgenrm_agent.chat_messages import turn_of
from pgenrm_agent.errors import ConfigurationError, InvalidInput
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow, Split
from pgenrm_agent.schema import Message, PreferencePair, StatedPreference

SPLITS: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "history": "history",
}
"""The names that datasets give to splits."""


def parse_row(where: str, record: Mapping[str, object]) -> PreferenceRow:
    """Read a record whose fields are named as PersonalRewardBench or plain JSONL names them.

    Raises ConfigurationError that says `where` and which field.
    """
    split = SPLITS.get(str(record.get("split", "train")))
    if split is None:
        raise ConfigurationError(
            f"{where}, field split: {record['split']!r} is none of {', '.join(SPLITS)}"
        )
    turns = record.get("conversation", record.get("context"))
    query = record.get("query")
    conversation: list[Message] = []
    if turns is not None:
        conversation = _messages(turns, where)
        if query is None:
            if not conversation or conversation[-1].role != "user":
                raise ConfigurationError(
                    f"{where}, field conversation: without a query, the last turn has to be the user's"
                )
            query = conversation.pop().content
    if not isinstance(query, str):
        raise ConfigurationError(f"{where}, field query: a text is needed, or a conversation")
    with naming(where):
        return PreferenceRow(
            user_id=str(required(record, "user_id", where)),
            pair=PreferencePair(
                query=query,
                chosen=_answer(record, "chosen", where),
                rejected=_answer(record, "rejected", where),
                conversation=tuple(conversation),
                chosen_score=_number(record, "chosen_score", where),
                rejected_score=_number(record, "rejected_score", where),
            ),
            split=split,
            stated=tuple(_stated(record.get("stated") or [], where)),
            topic=None if record.get("topic") is None else str(record["topic"]),
            reason=None if record.get("reason") is None else str(record["reason"]),
        )


def _stated(given: object, where: str) -> Iterator[StatedPreference]:
    if not isinstance(given, list):
        raise ConfigurationError(f"{where}, field stated: a list of wishes is needed")
    for number, wish in enumerate(given):
        if not isinstance(wish, str | Mapping):
            raise ConfigurationError(
                f"{where}, field stated.{number}: a text or {{kind, text}} is needed"
            )
        with naming(where, f"stated.{number}"):
            yield StatedPreference.model_validate({"text": wish} if isinstance(wish, str) else wish)


def _messages(turns: object, where: str) -> list[Message]:
    if isinstance(turns, str) or not isinstance(turns, Iterable):
        raise ConfigurationError(f"{where}, field conversation: a list of turns is needed")
    messages = []
    for number, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
            raise ConfigurationError(
                f"{where}, field conversation.{number}: a turn is {{role, content}}"
            )
        with naming(where, f"conversation.{number}"):
            messages.append(turn_of(turn, where))
    return messages


def _answer(record: Mapping[str, object], field: str, where: str) -> str:
    """Read a text, a message, or a list of messages whose last one is the answer."""
    given = required(record, field, where)
    if isinstance(given, list) and given:
        given = given[-1]
    if isinstance(given, Mapping):
        given = given.get("content")
    if not isinstance(given, str):
        raise ConfigurationError(f"{where}, field {field}: a text or {{role, content}} is needed")
    return given


def _number(record: Mapping[str, object], field: str, where: str) -> float | None:
    given = record.get(field)
    if given is None:
        return None
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise ConfigurationError(f"{where}, field {field}: {given!r} is no number")
    return float(given)


def required(record: Mapping[str, object], field: str, where: str) -> object:
    """Return a field that must be there."""
    if record.get(field) is None:
        raise ConfigurationError(f"{where}, field {field}: missing")
    return record[field]


def required_text(record: Mapping[str, object], field: str, where: str) -> str:
    """Return a text that must be there."""
    given = required(record, field, where)
    if not isinstance(given, str):
        raise ConfigurationError(f"{where}, field {field}: a text is needed")
    return given


def texts(record: Mapping[str, object], field: str, inner: str, where: str) -> Iterator[str]:
    """Read the texts of a list of texts, or of a list of objects with the text in `inner`."""
    for number, entry in enumerate(cast(list[object], record.get(field) or [])):
        text = entry.get(inner) if isinstance(entry, Mapping) else entry
        if not isinstance(text, str):
            raise ConfigurationError(f"{where}, field {field}.{number}: a text is needed")
        yield text


@contextmanager
def naming(where: str, field: str | None = None) -> Iterator[None]:
    """Turn what the schema refuses into one line that says where."""
    try:
        yield
    except InvalidInput as error:
        field = field or error.place or "chosen"
        raise ConfigurationError(f"{where}, field {field}: {error.complaint}") from None
