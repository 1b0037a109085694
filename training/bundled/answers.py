"""The folder of answers to train on, made of a checkout of the AlpacaEval repository.

    git clone https://github.com/tatsu-lab/alpaca_eval
    pgenrm train answers alpaca_eval --out DATA

Many public language models answered the same 805 queries there (`results/MODEL/model_outputs.json`,
Apache-2.0). They are grouped by query; a tenth of the queries is for tests, by a hash of the query, so
that the same checkout always gives the same files.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.people import place_of
from pgenrm_agent.fields import Model
from pgenrm_agent.files import read_text, replacing

OUTPUTS = "model_outputs.json"
SHORTEST, LONGEST = 40, 900
"""Characters of an answer that is kept."""
FEWEST, MOST = 8, 80
"""Answers of a query that is kept, and how many of them are."""
TEST_SHARE = 0.1
TRAINING, TEST = "train.jsonl.gz", "val.jsonl.gz"


class CollectedAnswers(Model):
    """What was written. unreadable: folders of models whose outputs are no list of answers."""

    models: int
    training_queries: int
    training_answers: int
    test_queries: int
    test_answers: int
    unreadable: tuple[str, ...] = ()


def collect_answers(checkout: Path, out: Path) -> CollectedAnswers:
    """Write `train.jsonl.gz` and `val.jsonl.gz` into `out`, from a checkout or its folder `results`.

    Raises:
        ConfigurationError: It is no checkout of AlpacaEval, `out` has such files already, or it
            cannot be written to.
    """
    outputs = _outputs(checkout)
    for name in (TRAINING, TEST):
        if (out / name).exists():
            raise ConfigurationError(f"{out / name} is there already: name another folder")
    unreadable: list[str] = []
    sources: dict[str, str] = {}
    by_query: dict[str, dict[str, str]] = {}
    for path in outputs:
        try:
            for query, source, text in list(_answers(path)):
                sources.setdefault(query, source)
                # The first model with a text has it: exact duplicates are dropped.
                by_query.setdefault(query, {}).setdefault(text, path.parent.name)
        except (OSError, ValueError):
            unreadable.append(path.parent.name)
    parts: dict[str, list[dict[str, Any]]] = {TRAINING: [], TEST: []}
    for query, written in sorted(by_query.items()):
        if len(written) >= FEWEST:
            kept = sorted(written, key=lambda text: (place_of(f"{query}\n{text}"), text))[:MOST]
            responses = [{"text": text, "model": written[text]} for text in sorted(kept)]
            row = {"query": query, "source": sources[query], "responses": responses}
            parts[TEST if place_of(query) < TEST_SHARE else TRAINING].append(row)
    if not parts[TRAINING]:
        raise ConfigurationError(
            f"{checkout} has no query with {FEWEST} answers of {SHORTEST} to {LONGEST} characters:"
            f" {len(outputs)} files were read, {len(unreadable)} of them hold no answers"
        )
    try:
        for name, rows in parts.items():
            _write(out / name, rows)
    except OSError as error:
        raise ConfigurationError(
            f"{out} cannot be written to ({error.strerror or error}): name another folder"
        ) from error
    return CollectedAnswers(
        models=len(outputs) - len(unreadable),
        training_queries=len(parts[TRAINING]),
        training_answers=_count(parts[TRAINING]),
        test_queries=len(parts[TEST]),
        test_answers=_count(parts[TEST]),
        unreadable=tuple(unreadable),
    )


def _outputs(checkout: Path) -> list[Path]:
    if not checkout.is_dir():
        raise ConfigurationError(
            f"{checkout}: no such folder; clone the repository tatsu-lab/alpaca_eval and name it"
        )
    outputs = sorted(checkout.glob(f"results/*/{OUTPUTS}")) or sorted(checkout.glob(f"*/{OUTPUTS}"))
    if not outputs:
        raise ConfigurationError(
            f"{checkout} holds no results/MODEL/{OUTPUTS}: name a checkout of the repository"
            " tatsu-lab/alpaca_eval"
        )
    return outputs


def _answers(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield query, its subset and the answer, of those with a length that is kept.

    Raises ValueError for what is no list of answers.
    """
    rows = json.loads(read_text(path))
    if not isinstance(rows, list):
        raise ValueError(f"{path} is no list")
    for row in rows:
        if not isinstance(row, Mapping):
            raise ValueError(f"{path} is no list of objects")
        query, text = row.get("instruction"), row.get("output")
        if not isinstance(query, str) or not isinstance(text, str):
            raise ValueError(f"{path} has a row without instruction and output")
        if query.strip() and SHORTEST <= len(text.strip()) <= LONGEST:
            yield query.strip(), str(row.get("dataset") or ""), text.strip()


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with replacing(path) as beside:
        # Without a time, so that the same answers are the same file.
        beside.write_bytes(gzip.compress(lines.encode("utf-8", "replace"), mtime=0))


def _count(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(row["responses"]) for row in rows)
