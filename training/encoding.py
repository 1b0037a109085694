"""Examples as token ids, with what to learn and what to find at which position; and batches of them."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from pgenrm_agent.chain.signs import SIGNS, levels, measure_along
from pgenrm_agent.engines.prompting import render
from pgenrm_agent.training.bundled.examples import Example
from pgenrm_agent.training.bundled.teacher import operands
from pgenrm_agent.training.bundled.tokenizer import answer_tags

IGNORED = -100
COUNTED = 16
"""Tokens of each answer at which the levels up to there are asked for."""
OPERANDS = 40
"""Numbers of each chain whose operands are shown."""
NO_LEVELS = np.zeros((0, len(SIGNS)), dtype=np.uint8)
TAG = re.compile("|".join(map(re.escape, answer_tags())))
SHORTEST = 64
"""Tokens of an example, on average over a packed row, at the least."""
PADDING = 512


Ids: TypeAlias = list[int] | NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and answer; labels are -100 where nothing is learned.

    A tag's position is that of its last token.

    notice_at: positions of all tokens of the prompt's answers. noticed: (len(notice_at), 16), which
    signs each of them adds to. count_at, counted: (len(count_at), 16), some of these positions,
    and the levels of the answer up to there. read_at: the tags that end the answers. recall_at: the
    tags with which the target takes them up. levels: (answers, 16), of each as a whole.
    value_at, value_from: positions that write a value of a reading, and the tag of its line.
    operand_at, operand_from: (n,), (2n,) some positions that write a number, and its two operands.
    """

    input_ids: Ids
    labels: Ids
    notice_at: Ids
    noticed: NDArray[np.uint8]
    count_at: Ids
    counted: NDArray[np.uint8]
    read_at: Ids
    recall_at: Ids
    levels: NDArray[np.uint8]
    value_at: Ids
    value_from: Ids
    operand_at: Ids
    operand_from: Ids


ASKED = ("noticed", "counted", "levels")
PLACES = (
    "notice_at",
    "count_at",
    "read_at",
    "recall_at",
    "value_at",
    "value_from",
    "operand_at",
    "operand_from",
)


def encode(example: Example, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Prompt and given part without loss; the target and the end token with loss."""
    prompt = render(tokenizer, example.messages)
    encoding = tokenizer(
        prompt + example.given, add_special_tokens=False, return_offsets_mapping=True
    )
    context = cast(list[int], encoding["input_ids"])
    ids, labels = list(context), [IGNORED] * len(context)
    value_at: list[int] = []
    value_from: list[int] = []
    token_at: list[int] = []  # by character of the target
    target = example.target + cast(str, tokenizer.eos_token)
    for line in target.splitlines(keepends=True):
        piece = tokenizer(line, add_special_tokens=False, return_offsets_mapping=True)
        tokens = cast(list[int], piece["input_ids"])
        where = [len(ids)] * len(line)
        for index, (begin, end) in enumerate(cast(list[tuple[int, int]], piece["offset_mapping"])):
            where[begin:end] = [len(ids) + index] * (end - begin)
        token_at += where
        if line.startswith("["):
            digits = [where[i] for i in range(line.index("]"), len(line)) if line[i].isdigit()]
            value_at += [digit - 1 for digit in digits]
            value_from += [where[line.index("]")]] * len(digits)
        ids += tokens
        given = bool(example.unlearned) and line.startswith(example.unlearned)
        labels += [IGNORED] * len(tokens) if given else tokens
    worked = operands(example.target)
    worked = random.Random(example.target).sample(worked, min(OPERANDS, len(worked)))
    operand_at = [token_at[at] - 1 for at, _, _ in worked]
    operand_from = [token_at[source] for _, *sources in worked for source in sources]
    spans = cast(list[tuple[int, int]], encoding["offset_mapping"])
    # A "reason" prompt has nothing to read. Else the target takes up the prompt's answers one by one,
    # in the prompt's order.
    shown = list(TAG.finditer(prompt)) if example.answers else []
    taken_up = list(TAG.finditer(example.target)) if example.answers else []
    assert len(shown) == len(taken_up) == len(example.answers)
    ends = [end for _, end in spans]
    counted_texts = [
        (text, tag.start(), bisect_left(ends, tag.end()), token_at[taken.end() - 1])
        for text, tag, taken in zip(example.answers, shown, taken_up, strict=True)
        if text is not None
    ]
    notice_at: list[int] = []
    count_at: list[int] = []
    noticed, counted, whole = [NO_LEVELS], [NO_LEVELS], [NO_LEVELS]
    for text, tag_start, tag, _ in counted_texts:
        places, cuts = _tokens_of(text, tag_start, tag, prompt, spans)
        raw = measure_along(text, [0, *cuts, len(text)])
        along = levels(raw).astype(np.uint8)
        notice_at += places
        noticed.append((np.diff(raw[:-1], axis=0) > 0).astype(np.uint8))
        drawn = random.Random(text).sample(range(len(places)), min(COUNTED, len(places)))
        count_at += [places[i] for i in drawn]
        counted.append(along[[i + 1 for i in drawn]])
        whole.append(along[-1:])
    return Encoded(
        ids,
        labels,
        notice_at,
        np.concatenate(noticed),
        count_at,
        np.concatenate(counted),
        [tag for _, _, tag, _ in counted_texts],
        [taken for *_, taken in counted_texts],
        np.concatenate(whole),
        value_at,
        value_from,
        operand_at,
        operand_from,
    )


def _tokens_of(
    text: str, tag_start: int, tag: int, prompt: str, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """The positions of an answer's tokens before its tag, and how much of it stands up to each."""
    end = tag_start - 1  # one space stands before the tag
    start = end - len(text)
    if prompt[start:end] != text:  # shortened, or with a marker made harmless
        return [], []
    first = max(0, tag - len(text) - 1)
    inside = [i for i in range(first, tag) if spans[i][1] > start and spans[i][0] < tag_start]
    return inside, [min(spans[i][1], end) - start for i in inside]


class TokenBudgetBatches(Dataset[dict[str, torch.Tensor]]):
    """Ready-made batches: item i is one optimizer step of about `budget` padded tokens."""

    def __init__(self, batches: Sequence[Sequence[Encoded]], pad: int) -> None:
        self._batches = batches
        self._pad = pad

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        batch = self._batches[index]
        width = max(len(encoded.input_ids) for encoded in batch)
        starts = [row * width for row in range(len(batch))]
        bounds = torch.arange(len(batch) + 1) * width
        return _laid_out(batch, starts, bounds, (len(batch), width), self._pad)


class PackedRows(Dataset[dict[str, torch.Tensor]]):
    """Ready-made rows of `size` tokens: item i is one optimizer step, its examples one behind another.

    Every row has the same shapes, so that what is compiled for one serves for all: `documents` holds
    where each example begins, then `size` up to its own fixed length, and `positions` each token's
    place in its example.
    """

    def __init__(self, rows: Sequence[Sequence[Encoded]], size: int, pad: int) -> None:
        self._rows = rows
        self._size = size
        self._pad = pad

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self._rows[index]
        starts = np.cumsum([0, *(len(encoded.input_ids) for encoded in row)])
        left, free = self._size - int(starts[-1]), self._size // SHORTEST + 2 - len(starts)
        assert left >= 0
        assert free > 0
        # Padding, too, is cut into pieces that are no longer than an example may be.
        piece = max(PADDING, -(-left // free))
        ends = np.minimum(starts[-1] + piece * np.arange(1, free + 1), self._size)
        bounds = torch.from_numpy(np.concatenate([starts, ends]))
        batch = _laid_out(row, starts[:-1].tolist(), bounds, (1, self._size), self._pad)
        places = torch.arange(self._size)
        which = torch.bucketize(places, bounds, right=True) - 1
        return {**batch, "positions": (places - bounds[which])[None]}


def _laid_out(
    batch: Sequence[Encoded],
    starts: Sequence[int],
    bounds: torch.Tensor,
    shape: tuple[int, int],
    pad: int,
) -> dict[str, torch.Tensor]:
    """Examples in rows.

    starts: where each begins in the flattened rows. bounds: where each stretch begins that looks at
    itself alone, and at last where the rows end.
    """
    ids = torch.full((shape[0] * shape[1],), pad)
    labels = torch.full_like(ids, IGNORED)
    for start, encoded in zip(starts, batch, strict=True):
        here = slice(start, start + len(encoded.input_ids))
        ids[here] = torch.as_tensor(encoded.input_ids)
        labels[here] = torch.as_tensor(encoded.labels)

    def places(name: str) -> torch.Tensor:
        parts = [
            np.asarray(getattr(encoded, name), dtype=np.int64) + start
            for start, encoded in zip(starts, batch, strict=True)
        ]
        return torch.from_numpy(np.concatenate(parts))

    return {
        "input_ids": ids.view(shape),
        "labels": labels.view(shape),
        "documents": bounds,
        **{name: _stacked([getattr(encoded, name) for encoded in batch]) for name in ASKED},
        **{name: places(name) for name in PLACES},
    }


def _stacked(parts: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def pack(examples: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
    """Group examples of like length so that rows x longest row stays within `budget` tokens."""
    batches: list[list[Encoded]] = []
    current: list[Encoded] = []
    for example in sorted(examples, key=lambda encoded: len(encoded.input_ids)):
        if current and (len(current) + 1) * len(example.input_ids) > budget:
            batches.append(current)
            current = []
        current.append(example)
    if current:
        batches.append(current)
    return batches


def fill_rows(examples: Sequence[Encoded], size: int) -> list[list[Encoded]]:
    """Put examples behind one another, in their order, into rows of at most `size` tokens."""
    rows: list[list[Encoded]] = []
    room = 0
    for example in examples:
        if len(example.input_ids) > room or len(rows[-1]) >= size // SHORTEST:
            rows.append([])
            room = size
        rows[-1].append(example)
        room -= len(example.input_ids)
    return rows
