"""Preference data in: one row type for every dataset, and who may be shown what of it.

`load_rows` takes a source in one string:

    prb:PATH         PersonalRewardBench (Chatbot Arena- or PRISM-personalized): a parquet, JSON or
                     JSONL file, a folder of them, or the name of a Hugging Face dataset. A folder
                     that also holds PRISM's survey.jsonl and conversations.jsonl is joined with them.
    people:FILE      real people's choices, without splits (`user_id`, `query`, `chosen`, `rejected`)
    people-topics:FILE   the same, with topics held out, too: nobody is trained on them, and held-out
                     people are asked about nothing else
    FILE             plain JSONL of {user_id, query or conversation, chosen, rejected, ...}

`register_source` adds a kind; the bundled model's world adds `simulated:` and `simulated-train:`.
JSONL files may be gzipped. A malformed row is one ConfigurationError that names file, line and field.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal, cast

from pydantic import ValidationError

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import Identifier, Message, Model, PreferencePair, StatedPreference

__all__ = [
    "Example",
    "PreferenceRow",
    "RankedQuestion",
    "Split",
    "examples",
    "load_rows",
    "read_lamp_qa",
    "register_source",
]

Split = Literal["train", "validation", "test", "history"]

# Shares of people without given splits, and of a held-out person's rows that are her history.
TEST_SHARE, VALIDATION_SHARE, HISTORY_SHARE = 0.2, 0.1, 0.5
TOPIC_SHARE = 0.25  # of topics, where they are held out
_SPLITS: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "history": "history",
}
_ROW_FILES = (".parquet", ".json", ".jsonl", ".jsonl.gz")
_SURVEY, _CONVERSATIONS = "survey.jsonl", "conversations.jsonl"
_DEMOGRAPHICS = (
    "age",
    "gender",
    "employment_status",
    "education",
    "marital_status",
    "english_proficiency",
)


class PreferenceRow(Model):
    """One choice of one person.

    split: "history" rows of a held-out person may be shown as her past, and are not trained on.
    stated: the criteria that she put into words (E of the paper), withheld from a policy in CRE.
    topic, reason: what the choice was about, and why she made it, where the dataset tells.
    """

    user_id: Identifier
    pair: PreferencePair
    split: Split
    stated: tuple[StatedPreference, ...] = ()
    topic: str | None = None
    reason: str | None = None


class Example(Model):
    """A choice to predict, and what may be shown of the person: her past, never the choice itself."""

    user_id: Identifier
    history: tuple[PreferencePair, ...]
    stated: tuple[StatedPreference, ...] = ()
    asked: PreferencePair
    topic: str | None = None
    reason: str | None = None


class RankedQuestion(Model):
    """One LaMP-QA question: what the person wrote before, and the aspects an answer should cover."""

    id: Identifier
    query: str
    posts: tuple[str, ...]
    narrative: str = ""
    aspects: tuple[str, ...] = ()


def examples(
    rows: Iterable[PreferenceRow], *, split: Split, history: int, seed: int
) -> Iterator[Example]:
    """One example per row of `split`, in the rows' order; the same for the same seed.

    history: at most this many past choices, drawn from the person's "train" and "history" rows; never
        the row itself, nor one that tells what became of it (`_gives_away`).
    """
    every = list(rows)
    past: dict[str, list[PreferencePair]] = {}
    for row in every:
        if row.split in ("train", "history"):
            past.setdefault(row.user_id, []).append(row.pair)
    for number, row in enumerate(every):
        if row.split != split:
            continue
        own = [pair for pair in past.get(row.user_id, []) if not _gives_away(pair, row.pair)]
        rng = random.Random(derive_seed(seed, "history", row.user_id, number))
        yield Example(
            user_id=row.user_id,
            history=tuple(rng.sample(own, min(history, len(own)))),
            stated=row.stated,
            asked=row.pair,
            topic=row.topic,
            reason=row.reason,
        )


def load_rows(source: str) -> list[PreferenceRow]:
    """The rows of a dataset; see the module for what `source` can be.

    Raises ConfigurationError: no such data, a tool to read it is missing, or a malformed row.
    """
    kind, _, rest = source.partition(":")
    if kind in _SOURCES and rest:
        return _SOURCES[kind](rest)
    path = Path(source)
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigurationError(
            f"data source {source!r} is unknown: use a JSONL file or one of "
            f"{', '.join(f'{kind}:...' for kind in sorted(_SOURCES))}"
        )
    lines = list(_jsonl(path))
    if lines and all("split" not in record for _, record in lines):
        return _without_splits(lines)
    return [_row(where, record) for where, record in lines]


def register_source(kind: str, read: Callable[[str], list[PreferenceRow]]) -> None:
    """Let `load_rows` read `KIND:REST` by calling `read(REST)`; a kind registered again is replaced."""
    _SOURCES[kind] = read


def read_lamp_qa(path: Path) -> list[RankedQuestion]:
    """LaMP-QA from a JSON, JSONL or parquet file: `id`, `question`, `profile`, `rubric_aspects`.

    Raises ConfigurationError, as `load_rows`.
    """
    found = []
    for where, record in _records(path):
        with _named(where):
            found.append(
                RankedQuestion(
                    id=str(_get(record, "id", where)),
                    query=_text(record, "question", where),
                    narrative=str(record.get("narrative") or ""),
                    posts=tuple(_texts(record, "profile", "text", where)),
                    aspects=tuple(_texts(record, "rubric_aspects", "aspect", where)),
                )
            )
    return found


# --- sources ---


def _personal_reward_bench(name: str) -> list[PreferenceRow]:
    path = Path(name)
    if not path.exists():
        return [_row(where, record) for where, record in _hugging_face(name)]
    files = [path]
    survey: dict[str, Mapping[str, object]] = {}
    attributes: dict[str, dict[str, float]] = {}
    if path.is_dir():
        files = sorted(
            one
            for one in path.rglob("*")
            if one.name.endswith(_ROW_FILES)
            and not one.name.startswith(("survey.", "conversations."))
        )
        for where, record in _optional(path / _SURVEY):
            survey[str(_get(record, "user_id", where))] = record
        for where, record in _optional(path / _CONVERSATIONS):
            given = record.get("choice_attributes")
            if isinstance(given, Mapping):
                attributes[str(_get(record, "conversation_id", where))] = {
                    str(key): float(value)
                    for key, value in given.items()
                    if isinstance(value, int | float) and not isinstance(value, bool)
                }
    if not files:
        raise ConfigurationError(f"{path} holds no parquet, JSON or JSONL file")
    rows = []
    for file in files:
        for where, record in _records(file):
            row = _row(where, {"split": _split_of_name(file), **record})
            conversation = str(record.get("conversation_id") or "")
            stated = (*row.stated, *_survey_statements(survey.get(row.user_id, {})))
            if weights := attributes.get(conversation):
                pair = row.pair.model_copy(update={"attributes": weights})
                row = row.model_copy(update={"pair": pair})
                stated += (_weighted("in this conversation: ", weights),)
            rows.append(row.model_copy(update={"stated": stated}))
    return rows


def _survey_statements(record: Mapping[str, object]) -> Iterator[StatedPreference]:
    """What PRISM's survey holds of a person, as stated preferences."""
    for key, kind in (("system_string", "style"), ("self_description", "self_description")):
        text = str(record.get(key) or "").strip()
        if text:
            yield StatedPreference(kind=cast(Literal["style", "self_description"], kind), text=text)
    known = [
        f"{key.replace('_', ' ')}: {record[key]}"
        for key in _DEMOGRAPHICS
        if isinstance(record.get(key), str) and record[key] not in ("", "Prefer not to say")
    ]
    if known:
        yield StatedPreference(kind="demographics", text="; ".join(known))
    wanted = record.get("stated_prefs")
    if isinstance(wanted, Mapping):
        named = {str(k): v for k, v in wanted.items() if isinstance(v, int | float)}
        if named:
            yield _weighted("", named)


def _weighted(of: str, attributes: Mapping[str, float]) -> StatedPreference:
    named = ", ".join(f"{name} {weight:g}" for name, weight in attributes.items())
    return StatedPreference(kind="attributes", text=of + named)


def _without_splits(lines: Iterable[tuple[str, Mapping[str, object]]]) -> list[PreferenceRow]:
    """Split by person, by a hash of the id; a held-out person's first half is her history."""
    by_user: dict[str, list[PreferenceRow]] = {}
    for where, record in lines:
        row = _row(where, {**record, "split": "train"})
        by_user.setdefault(row.user_id, []).append(row)
    rows = []
    for user, own in by_user.items():
        split = _split_of_person(user)
        shown = round(len(own) * HISTORY_SHARE)
        rows += [
            row.model_copy(
                update={"split": "history" if split != "train" and number < shown else split}
            )
            for number, row in enumerate(own)
        ]
    return rows


def _topics_held_out(lines: Iterable[tuple[str, Mapping[str, object]]]) -> list[PreferenceRow]:
    """As `_without_splits`; a held-out person's history is what she chose on other topics.

    A topic is what stands before the last underscore, so that the two sides of a debate, told apart
    behind it, are held out together.
    """
    rows = []
    for where, record in lines:
        row = _row(where, {**record, "split": "train"})
        if row.topic is None:
            raise ConfigurationError(
                f"{where}, field topic: missing, and people-topics: holds topics out; use people:"
            )
        held = _place(row.topic.rpartition("_")[0] or row.topic) < TOPIC_SHARE
        split = _split_of_person(row.user_id)
        if split != "train":
            rows.append(row.model_copy(update={"split": split if held else "history"}))
        elif not held:
            rows.append(row)
    return rows


def _split_of_person(user_id: str) -> Split:
    place = _place(user_id)
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def _place(name: str) -> float:
    """Where a name falls in [0, 1), evenly and always the same."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


# --- one record ---


def _row(where: str, record: Mapping[str, object]) -> PreferenceRow:
    """A record of any of the datasets; fields as PersonalRewardBench or plain JSONL name them."""
    split = _SPLITS.get(str(record.get("split", "train")))
    if split is None:
        raise ConfigurationError(
            f"{where}, field split: {record['split']!r} is none of {', '.join(_SPLITS)}"
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
    with _named(where):
        return PreferenceRow(
            user_id=str(_get(record, "user_id", where)),
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
    for number, one in enumerate(given):
        if not isinstance(one, str | Mapping):
            raise ConfigurationError(
                f"{where}, field stated.{number}: a text or {{kind, text}} is needed"
            )
        with _named(where, f"stated.{number}"):
            yield StatedPreference.model_validate({"text": one} if isinstance(one, str) else one)


def _messages(turns: object, where: str) -> list[Message]:
    if isinstance(turns, str) or not isinstance(turns, Iterable):
        raise ConfigurationError(f"{where}, field conversation: a list of turns is needed")
    found = []
    for number, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
            raise ConfigurationError(
                f"{where}, field conversation.{number}: a turn is {{role, content}}"
            )
        role = {"human": "user", "model": "assistant"}.get(str(turn.get("role")), turn.get("role"))
        with _named(where, f"conversation.{number}"):
            found.append(Message.model_validate({"role": role, "content": turn["content"]}))
    return found


def _answer(record: Mapping[str, object], field: str, where: str) -> str:
    """A text, a message, or a list of messages whose last one is the answer."""
    given = _get(record, field, where)
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


def _get(record: Mapping[str, object], field: str, where: str) -> object:
    if record.get(field) is None:
        raise ConfigurationError(f"{where}, field {field}: missing")
    return record[field]


def _text(record: Mapping[str, object], field: str, where: str) -> str:
    given = _get(record, field, where)
    if not isinstance(given, str):
        raise ConfigurationError(f"{where}, field {field}: a text is needed")
    return given


def _texts(record: Mapping[str, object], field: str, inner: str, where: str) -> Iterator[str]:
    """The texts of a list of texts, or of a list of objects with the text in `inner`."""
    for number, one in enumerate(cast(list[object], record.get(field) or [])):
        text = one.get(inner) if isinstance(one, Mapping) else one
        if not isinstance(text, str):
            raise ConfigurationError(f"{where}, field {field}.{number}: a text is needed")
        yield text


class _named:
    """Turns what the schema refuses into one line that says where."""

    def __init__(self, where: str, field: str | None = None) -> None:
        self._where = where
        self._field = field

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            field = self._field or ".".join(str(part) for part in first["loc"]) or "chosen"
            raise ConfigurationError(f"{self._where}, field {field}: {first['msg']}") from error


# --- files ---


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each record of a file with where it stands."""
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _jsonl(path)
    elif path.suffix == ".json":
        yield from _json(path)
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    else:
        raise ConfigurationError(f"{path}: a {', '.join(_ROW_FILES)} file is needed")


def _jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such file")
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(_readable(file, path), start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ConfigurationError(f"{where}: not JSON: {error}") from error
            if not isinstance(record, dict):
                raise ConfigurationError(f"{where}: an object is needed, not {line.strip()[:40]}")
            yield where, record


def _readable(lines: Iterable[str], path: Path) -> Iterator[str]:
    """The lines of a file that may be no text, no gzip, or half of one."""
    number = 0
    try:
        for line in lines:
            number += 1
            yield line
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}, after line {number}: cannot be read: {error}") from error


def _json(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, list):
        raise ConfigurationError(f"{path}: a list of objects is needed")
    for number, record in enumerate(found, start=1):
        if not isinstance(record, dict):
            raise ConfigurationError(f"{path}, row {number}: an object is needed")
        yield f"{path}, row {number}", record


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigurationError(f"{path}: reading parquet needs pip install pyarrow") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", record
    except (OSError, ArrowException) as error:
        raise ConfigurationError(f"{path}: cannot be read as parquet: {error}") from error


def _hugging_face(name: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigurationError(
            f"{name}: no such file or folder; to load it from the Hugging Face hub: pip install "
            "datasets"
        ) from error
    try:
        parts = load_dataset(name)
    except Exception as error:  # the hub's client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise ConfigurationError(f"{name}: cannot be loaded from the hub: {reason}") from error
    for split, rows in parts.items():
        for number, record in enumerate(rows, start=1):
            yield f"{name}, {split} row {number}", {"split": split, **record}


def _optional(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    return _jsonl(path) if path.is_file() else iter(())


def _split_of_name(path: Path) -> str:
    """The split that a file's name tells, as hub datasets name their files; else train."""
    stem = path.name.split(".")[0].split("-")[0]
    return stem if stem in _SPLITS else "train"


def _gives_away(past: PreferencePair, asked: PreferencePair) -> bool:
    """Whether a past choice says how the asked one ended.

    It is between one of the same answers to the same query, as where one answer was chosen over
    several; or it comes later in the same conversation, which went on with one of them.
    """
    answers = {asked.chosen, asked.rejected}
    if past.query == asked.query and answers & {past.chosen, past.rejected}:
        return True
    turns = past.conversation
    return any(
        question.content == asked.query and answer.content in answers
        for question, answer in pairwise(turns)
    )


_SOURCES: dict[str, Callable[[str], list[PreferenceRow]]] = {
    "prb": _personal_reward_bench,
    "people": lambda file: _without_splits(_jsonl(Path(file))),
    "people-topics": lambda file: _topics_held_out(_jsonl(Path(file))),
}
