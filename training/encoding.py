"""Examples as token ids, with what to learn and what to find at which position; and batches of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from pgenrm_agent.engines.prompting import render
from pgenrm_agent.training.bundled.examples import Example
from pgenrm_agent.training.bundled.signs import SIGNS, levels, measure_along
from pgenrm_agent.training.bundled.teacher import operands
from pgenrm_agent.training.bundled.tokenizer import END, answer_tags

__all__ = ["IGNORED", "Encoded", "TokenBudgetBatches", "encode", "pack"]

IGNORED = -100
COUNTED = 16
"""Tokens of each answer at which the levels up to there are asked for."""
OPERANDS = 40
"""Numbers of each chain whose operands are shown."""
NO_LEVELS = np.zeros((0, len(SIGNS)), dtype=np.uint8)


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and answer; labels are -100 where nothing is learned.

    notice_at: positions of all tokens of the prompt's answers. noticed: (len(notice_at), 16), which
    signs each of them adds to. count_at, counted: (len(count_at), 16), some of these positions,
    and the levels of the answer up to there. read_at: the tags that end the answers. recall_at: the
    tags with which the target takes them up. levels: (answers, 16), of each as a whole.
    value_at, value_from: positions that write a value of a reading, and the tag of its line.
    operand_at, operand_from: (n,), (2n,) some positions that write a number, and its two operands.
    """

    input_ids: list[int]
    labels: list[int]
    notice_at: list[int]
    noticed: NDArray[np.uint8]
    count_at: list[int]
    counted: NDArray[np.uint8]
    read_at: list[int]
    recall_at: list[int]
    levels: NDArray[np.uint8]
    value_at: list[int]
    value_from: list[int]
    operand_at: list[int]
    operand_from: list[int]


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
    for line in (example.target + END).splitlines(keepends=True):
        piece = tokenizer(line, add_special_tokens=False, return_offsets_mapping=True)
        tokens = cast(list[int], piece["input_ids"])
        where = [len(ids)] * len(line)
        for index, (begin, end) in enumerate(cast(list[tuple[int, int]], piece["offset_mapping"])):
            where[begin:end] = [len(ids) + index] * (end - begin)
        token_at += where
        if line.startswith("["):
            digits = [where[i] for i in range(line.index("]"), len(line)) if line[i].isdigit()]
            value_at += [digit - 1 for digit in digits]
            value_from += [len(ids)] * len(digits)
        ids += tokens
        given = bool(example.unlearned) and line.startswith(example.unlearned)
        labels += [IGNORED] * len(tokens) if given else tokens
    worked = operands(example.target)
    worked = random.Random(example.target).sample(worked, min(OPERANDS, len(worked)))
    operand_at = [token_at[at] - 1 for at, _, _ in worked]
    operand_from = [token_at[source] for _, *sources in worked for source in sources]
    known = {tokenizer.convert_tokens_to_ids(tag) for tag in answer_tags()}
    tags = [position for position, token in enumerate(ids) if token in known]
    if not example.answers:
        tags = []  # a "reason" prompt: nothing to read
    # The target takes up the prompt's answers one by one, in the prompt's order.
    count = len(example.answers)
    assert len(tags) == 2 * count
    counted_texts = [
        (text, tags[i], tags[count + i])
        for i, text in enumerate(example.answers)
        if text is not None
    ]
    spans = cast(list[tuple[int, int]], encoding["offset_mapping"])
    notice_at: list[int] = []
    count_at: list[int] = []
    noticed, counted, whole = [NO_LEVELS], [NO_LEVELS], [NO_LEVELS]
    for text, tag, _ in counted_texts:
        places, cuts = _tokens_of(text, tag, prompt, spans)
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
        [tag for _, tag, _ in counted_texts],
        [tag for _, _, tag in counted_texts],
        np.concatenate(whole),
        value_at,
        value_from,
        operand_at,
        operand_from,
    )


def _tokens_of(
    text: str, tag: int, prompt: str, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """The positions of an answer's tokens before its tag, and how much of it stands up to each."""
    end = spans[tag][0] - 1  # one space stands before the tag
    start = end - len(text)
    if prompt[start:end] != text:  # shortened, or with a marker made harmless
        return [], []
    inside = [i for i in range(max(0, tag - len(text) - 1), tag) if spans[i][1] > start]
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
        ids = torch.full((len(batch), width), self._pad)
        labels = torch.full((len(batch), width), IGNORED)
        for row, encoded in enumerate(batch):
            size = len(encoded.input_ids)
            ids[row, :size] = torch.tensor(encoded.input_ids)
            labels[row, :size] = torch.tensor(encoded.labels)

        def places(name: str) -> torch.Tensor:
            flat = [
                row * width + at
                for row, encoded in enumerate(batch)
                for at in getattr(encoded, name)
            ]
            return torch.tensor(flat, dtype=torch.long)

        return {
            "input_ids": ids,
            "labels": labels,
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
