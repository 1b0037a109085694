"""Everything that a run from a pretrained checkpoint learns from, made beforehand: one file of tokens.

Examples are drawn as stage 1 draws them, encoded with the checkpoint's tokenizer, and kept as arrays, so
that nothing is left to do where training is dear. The work is cut into groups of examples: they are made
by several processes, and a run that was cut off keeps those that are done. They stay until the whole
folder is there (`token_folder`).
"""

from __future__ import annotations

import io
import lzma
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.chain.signs import SIGNS
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow
from pgenrm_agent.files import replacing
from pgenrm_agent.run_folder import digest, refuse_other_settings
from pgenrm_agent.training.bundled.examples import Example, write_examples
from pgenrm_agent.training.bundled.simulation import Answers
from pgenrm_agent.training.choices import write_choices
from pgenrm_agent.training.encoding import ASKED, IGNORED, PLACES, Encoded, encode
from pgenrm_agent.training.recipe import Phase, PsiRecipe

TOKENS = "tokens.npz.xz"
GROUPS = "groups"
MADE_BY = ("seed", "chain_format", "phases")
"""What of a recipe the data depends on, beside the context."""
GROUP = 400_000
"""Tokens that are made together, and kept when a run is cut off."""
BITS = {"noticed": 1, "counted": 2, "levels": 2}
"""Of each of a row's sixteen classes."""
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Source:
    """What examples are made of. rows: real people's choices, for the task "choice"."""

    answers: Answers
    chain_format: ChainFormat
    tokenizer: PreTrainedTokenizerFast
    rows: Sequence[PreferenceRow] = ()


@dataclass(frozen=True)
class TokenFile:
    """The examples of each phase, and those of reading that only measure it."""

    phases: tuple[list[Encoded], ...]
    held_out: list[Encoded]

    def tokens(self) -> list[int]:
        """Return how many tokens each phase has."""
        return [sum(len(example.input_ids) for example in phase) for phase in self.phases]


def draw(source: Source, phase: Phase, seed: Sequence[int]) -> Iterator[Example]:
    """Return an endless stream of a phase's mixture of tasks, the same for the same arguments."""
    tasks = list(phase.tasks)
    seeds = [
        int(word) for word in np.random.SeedSequence(list(seed)).generate_state(len(tasks) + 1)
    ]
    streams = {
        task: write_choices(source.rows, source.chain_format, seed=own)
        if task == "choice"
        else write_examples(task, source.answers, source.chain_format, seed=own)
        for task, own in zip(tasks, seeds, strict=False)
    }
    draws = random.Random(seeds[-1])
    weights = [phase.tasks[task] for task in tasks]
    while True:
        task = draws.choices(tasks, weights)[0]
        example = next(streams[task], None)
        if example is None:
            raise ConfigurationError(
                f"none of the {len(source.rows)} real choices makes an example: use other datasets"
            )
        yield example


def write_token_file(
    recipe: PsiRecipe,
    source: Source,
    held_out: Answers,
    folder: Path,
    *,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TokenFile:
    """Make a recipe's examples, and write them into `folder`.

    held_out: answers to queries that nothing else is made of. processes: as many as there are cores if
    not given. progress: told how many tokens there are, of how many.

    Raises ConfigurationError for a recipe that asks for real choices where there are none, and for a
    folder with groups that were made of something else.
    """
    assert recipe.start is not None
    if not source.rows and any("choice" in phase.tasks for phase in recipe.phases):
        raise ConfigurationError(
            f"recipe {recipe.name} learns from real choices: name datasets of them (--choices)"
        )
    groups = [
        (number, group, min(GROUP, phase.tokens - group * GROUP))
        for number, phase in enumerate(recipe.phases)
        for group in range(-(-phase.tokens // GROUP))
    ]
    parts = folder / GROUPS
    parts.mkdir(parents=True, exist_ok=True)
    refuse_other_settings(parts, _made_of(recipe, source), what="groups of examples")
    every = sum(size for *_, size in groups)
    path_of = {group: parts / f"{group[0]}-{group[1]}.npz" for group in groups}
    waiting = [group for group in groups if not path_of[group].is_file()]
    done = every - sum(size for *_, size in waiting)
    progress(done, every)
    limit = recipe.start.context
    jobs = [
        (recipe.phases[number], (recipe.seed, number, group), size, limit)
        for number, group, size in waiting
    ]
    for place, examples in _made(source, jobs, processes or os.cpu_count() or 1):
        group = waiting[place]
        with replacing(path_of[group]) as beside:
            beside.write_bytes(_bytes_of(_arrays("", examples)))
        done += group[2]
        progress(done, every)
    phases = []
    for number in range(len(recipe.phases)):
        examples = [
            example
            for group in groups
            if group[0] == number
            for example in _examples("", _arrays_in(path_of[group].read_bytes()))
        ]
        random.Random(recipe.seed + number).shuffle(examples)
        phases.append(examples)
    measured = Phase(tasks={"read": 1.0}, tokens=1, tokens_per_step=1)
    beyond = Source(held_out, source.chain_format, source.tokenizer)
    stream = draw(beyond, measured, (recipe.seed, len(recipe.phases)))
    encoded = (encode(example, source.tokenizer) for example in stream)
    fitting = (example for example in encoded if len(example.input_ids) <= limit)
    file = TokenFile(tuple(phases), list(islice(fitting, recipe.start.reading_examples)))
    save_token_file(file, folder)
    return file


def _made_of(recipe: PsiRecipe, source: Source) -> dict[str, object]:
    """What groups of examples depend on. Ids and times of choices are new whenever a file is read."""
    assert recipe.start is not None
    unread = {"id": True, "created_at": True}
    rows = (row.model_dump_json(exclude={"pair": unread}) for row in source.rows)
    made_by = recipe.model_dump(mode="json", include=set(MADE_BY))
    answers = source.answers
    texts = (f"{number} {text}" for number, text in zip(answers.group, answers.texts, strict=True))
    return {
        **made_by,
        "start.context": recipe.start.context,
        "format": source.chain_format.digest,
        "tokenizer": tokenizer_digest(source.tokenizer),
        "answers": digest(f"{text}\0" for text in (*answers.queries, *texts)),
        "choices": digest(rows),
    }


def save_token_file(file: TokenFile, folder: Path) -> None:
    """Write examples into a folder, as small as they get."""
    arrays = _arrays("held_out/", file.held_out)
    for number, phase in enumerate(file.phases):
        arrays |= _arrays(f"{number}/", phase)
    # The same texts come again and again, far apart: a wide window finds them.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 27}]
    with replacing(folder / TOKENS) as beside, lzma.open(beside, "wb", filters=filters) as packed:
        packed.write(_bytes_of(arrays))


def read_token_file(folder: Path) -> TokenFile:
    """Read what `write_token_file` wrote.

    Raises ConfigurationError for a folder without a token file.
    """
    path = folder / TOKENS
    if not path.is_file():
        raise ConfigurationError(
            f"{folder} holds no {TOKENS}: make the folder with pgenrm train tokens"
        )
    arrays = _arrays_in(lzma.decompress(path.read_bytes()))
    phases = sum(name.endswith("/sizes") for name in arrays) - 1
    return TokenFile(
        tuple(_examples(f"{number}/", arrays) for number in range(phases)),
        _examples("held_out/", arrays),
    )


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a name for how a tokenizer cuts texts, and what it puts around them."""
    told = f"{tokenizer.backend_tokenizer.to_str()}\0{tokenizer.chat_template}"
    return sha256(told.encode()).hexdigest()[:16]


Job = tuple[Phase, tuple[int, ...], int, int]
_shared: list[Source] = []
"""What the examples of a worker's jobs are made of: sent once, not with each job."""


def _made(
    source: Source, jobs: Sequence[Job], processes: int
) -> Iterator[tuple[int, list[Encoded]]]:
    """The examples of each job with its place, as they come."""
    workers = min(processes, len(jobs))
    if workers <= 1:
        for place, job in enumerate(jobs):
            yield place, _group(source, job)
        return
    with ProcessPoolExecutor(workers, initializer=_shared.append, initargs=(source,)) as pool:
        places = {pool.submit(_shared_group, job): place for place, job in enumerate(jobs)}
        for future in as_completed(places):
            yield places[future], future.result()


def _shared_group(job: Job) -> list[Encoded]:
    return _group(_shared[0], job)


def _group(source: Source, job: Job) -> list[Encoded]:
    """Examples of so many tokens together, the last one over that left out."""
    phase, seed, tokens, limit = job
    examples: list[Encoded] = []
    for example in draw(source, phase, seed):
        encoded = encode(example, source.tokenizer)
        if len(encoded.input_ids) > limit:
            continue
        tokens -= len(encoded.input_ids)
        if tokens < 0 and examples:
            return examples
        examples.append(encoded)
    return examples


def _bytes_of(arrays: Arrays) -> bytes:
    content = io.BytesIO()
    np.savez(content, **cast(dict[str, Any], arrays))
    return content.getvalue()


def _arrays_in(content: bytes) -> Arrays:
    with np.load(io.BytesIO(content)) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _arrays(prefix: str, examples: Sequence[Encoded]) -> Arrays:
    """Each field of all examples behind one another, narrow; positions as steps from the one before."""

    def joined(name: str) -> NDArray[np.int64]:
        parts = [np.asarray(getattr(example, name), dtype=np.int64) for example in examples]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    ids = joined("input_ids")
    arrays: Arrays = {
        "ids": ids.astype(np.uint16 if ids.max(initial=0) < 1 << 16 else np.uint32),
        "learned": np.packbits(joined("labels") != IGNORED),
        "sizes": np.array([len(example.input_ids) for example in examples], dtype=np.uint32),
    }
    for name in PLACES:
        places = joined(name)
        arrays[name] = np.diff(places, prepend=0).astype(np.int16)
        counts = [len(getattr(example, name)) for example in examples]
        arrays[f"{name}#"] = np.array(counts, dtype=np.uint16)
    for name in ASKED:
        classes = joined(name).reshape(-1, len(SIGNS))
        shifts = BITS[name] * np.arange(len(SIGNS))
        arrays[name] = (classes << shifts).sum(1).astype(np.uint32)
    return {prefix + name: array for name, array in arrays.items()}


def _examples(prefix: str, arrays: Arrays) -> list[Encoded]:
    ids = arrays[f"{prefix}ids"].astype(np.int64)
    learned = np.unpackbits(arrays[f"{prefix}learned"], count=len(ids)).astype(bool)
    bounds = np.cumsum([0, *arrays[f"{prefix}sizes"]])
    columns: dict[str, list[NDArray[Any]]] = {
        "input_ids": np.split(ids, bounds[1:-1]),
        "labels": np.split(np.where(learned, ids, IGNORED), bounds[1:-1]),
    }
    for name in PLACES:
        cuts = np.cumsum(arrays[f"{prefix}{name}#"])[:-1]
        columns[name] = np.split(np.cumsum(arrays[prefix + name], dtype=np.int64), cuts)
    counted = {"noticed": "notice_at", "counted": "count_at", "levels": "read_at"}
    for name in ASKED:
        cuts = np.cumsum(arrays[f"{prefix}{counted[name]}#"])[:-1]
        shifts = BITS[name] * np.arange(len(SIGNS), dtype=np.uint32)
        mask = (1 << BITS[name]) - 1
        classes = (arrays[prefix + name][:, None] >> shifts & mask).astype(np.uint8)
        columns[name] = np.split(classes, cuts)
    names = [field.name for field in fields(Encoded)]
    return [
        Encoded(**dict(zip(names, row, strict=True)))
        for row in zip(*(columns[name] for name in names), strict=True)
        if len(row[0])
    ]
