"""PersonalRewardBench: Chatbot Arena- and PRISM-personalized.

A parquet, JSON or JSONL file, a folder of them, or the name of a Hugging Face dataset. A folder that
also holds PRISM's survey.jsonl and conversations.jsonl is joined with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, cast

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.jsonl import ROW_FILES, Located, read_jsonl, read_records
from pgenrm_agent.evaluation.datasets.parsing import SPLITS, parse_row, required
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow
from pgenrm_agent.model_files import HUB_NAME
from pgenrm_agent.schema import StatedPreference

_SURVEY, _CONVERSATIONS = "survey.jsonl", "conversations.jsonl"
_DEMOGRAPHICS = (
    "age",
    "gender",
    "employment_status",
    "education",
    "marital_status",
    "english_proficiency",
)


def read_personal_reward_bench(name: str) -> list[PreferenceRow]:
    """Read the rows of a file, a folder or a Hugging Face dataset.

    Raises ConfigurationError: no such data, a tool to read it is missing, or a malformed row.
    """
    path = Path(name)
    if not path.exists():
        return [parse_row(where, record) for where, record in _hugging_face(name)]
    files = [path]
    survey: dict[str, Mapping[str, object]] = {}
    attributes: dict[str, dict[str, float]] = {}
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.name.endswith(ROW_FILES)
            and not file.name.startswith(("survey.", "conversations."))
        )
        for where, record in _optional(path / _SURVEY):
            survey[str(required(record, "user_id", where))] = record
        for where, record in _optional(path / _CONVERSATIONS):
            given = record.get("choice_attributes")
            if isinstance(given, Mapping):
                attributes[str(required(record, "conversation_id", where))] = {
                    str(key): float(value)
                    for key, value in given.items()
                    if isinstance(value, int | float) and not isinstance(value, bool)
                }
    if not files:
        raise ConfigurationError(f"{path} holds no parquet, JSON or JSONL file")
    rows = []
    for file in files:
        for where, record in read_records(file):
            row = parse_row(where, {"split": _split_of_name(file, path), **record})
            conversation = str(record.get("conversation_id") or "")
            stated = (*row.stated, *_survey_statements(survey.get(row.user_id, {})))
            if weights := attributes.get(conversation):
                pair = row.pair.model_copy(update={"attributes": weights})
                row = row.model_copy(update={"pair": pair})
                stated += (_weighted("in this conversation: ", weights),)
            rows.append(row.model_copy(update={"stated": stated}))
    return rows


def _survey_statements(record: Mapping[str, object]) -> Iterator[StatedPreference]:
    """Tell what PRISM's survey holds of a user, as stated preferences."""
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


def _hugging_face(name: str) -> Iterator[Located]:
    if name.endswith(ROW_FILES) or not HUB_NAME.fullmatch(name):
        raise ConfigurationError(f"{name}: no such file or folder")
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
        raise ConfigurationError(
            f"{name}: no such file or folder, and it cannot be loaded from the Hugging Face hub: {reason}"
        ) from error
    for split, rows in parts.items():
        for number, record in enumerate(rows, start=1):
            yield f"{name}, {split} row {number}", {"split": split, **record}


def _optional(path: Path) -> Iterator[Located]:
    return read_jsonl(path) if path.is_file() else iter(())


def _split_of_name(file: Path, folder: Path) -> str:
    """Return the split that a file's name tells, or those of its folders within `folder`; else train.

    So hub datasets name their files: test-0.parquet, prism_test.jsonl, default/test/0000.parquet.
    """
    inside = file.relative_to(folder) if folder.is_dir() else Path(file.name)
    for part in (inside.name.partition(".")[0], *reversed(inside.parts[:-1])):
        words = re.split(r"[-_ ]", part)
        for word in (part, words[0], words[-1]):
            if word in SPLITS and (word == part or word != "history"):  # chat_history is no split
                return word
    return "train"
