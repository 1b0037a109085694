"""Choices of real people without given splits: users are held out by a hash of their ids, and prompts.

`people:FILE` reads any such file. Seven sets have a source of their own (`PEOPLE_SETS`), which
knows what a prompt of theirs is and what their people said about themselves: `llmfao:FILE` holds
people out, and `llmfao-prompts:FILE` people and prompts, so that neither the person nor the query
was met before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.jsonl import Located, read_jsonl
from pgenrm_agent.evaluation.datasets.parsing import parse_row
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow, Split
from pgenrm_agent.schema import StatedPreference

# Shares of users without given splits, and of a held-out user's rows that are their history.
TEST_SHARE, VALIDATION_SHARE, HISTORY_SHARE = 0.2, 0.1, 0.5
PROMPT_SHARE = 0.25  # of prompts or topics, where they are held out


def _query(row: PreferenceRow) -> str:
    return row.pair.query


def _first_message(row: PreferenceRow) -> str:
    """Return the question that a conversation began with: what follows it is held out with it."""
    first = row.pair.query.removeprefix("First message: ")
    return first.partition("\n\nSecond message")[0]


def _debate(row: PreferenceRow) -> str:
    """Return the topic without what stands behind its last underscore: both sides of a debate."""
    topic = row.topic or ""
    return topic.rpartition("_")[0] or topic


@dataclass(frozen=True)
class PeopleSet:
    """A public set of real people's choices.

    about: what was chosen between, by whom. source: where it is from, and its license.
    prompt_of: what is held out together, where prompts are.
    in_turn: there are too few people for a part of their own to train on, so that everybody is
        asked about and nothing may be trained on the set; a baseline is fitted on all the others.
    """

    about: str
    source: str
    prompt_of: Callable[[PreferenceRow], str] = _query
    in_turn: bool = False

    def read(self, file: str) -> list[PreferenceRow]:
        """Read the set with people held out."""
        rows = self._rows(file)
        return ask_everyone(rows) if self.in_turn else _halved(rows, _split_of_user)

    def read_prompts(self, file: str) -> list[PreferenceRow]:
        """Read the set with people and prompts held out."""
        split_of = _everyone if self.in_turn else _split_of_user
        return _by_prompt(self._rows(file), self.prompt_of, split_of)

    def _rows(self, file: str) -> list[PreferenceRow]:
        rows = _parsed(read_jsonl(Path(file)))
        return [row.model_copy(update={"stated": _with_kinds(row.stated)}) for row in rows]


PEOPLE_SETS = {
    "llmfao": PeopleSet(
        about="votes between two language models' answers to 13 prompts",
        source="LLMFAO, Dmitry Ustalov, with the Crowdsourced LLM Benchmark of llmonitor.com, CC BY 4.0",
    ),
    "mtbench": PeopleSet(
        about="votes between two language models' answers to the questions of MT-bench",
        source="MT-bench human judgments, Zheng et al. 2023 (arXiv 2306.05685), CC BY 4.0; answers"
        " from FastChat, Apache-2.0",
        prompt_of=_first_message,
        in_turn=True,
    ),
    "polarized": PeopleSet(
        about="choices between what two other people wrote about public issues, with demographics"
        " and the person's own answers",
        source="Polarized Issues Dataset, Remesh 2024 (akonya/polarized-issues-data), CC BY 4.0",
    ),
    "lamp": PeopleSet(
        about="choices of professional writers between versions of a paragraph",
        source="LAMP, Chakrabarty, Laban and Wu 2024 (arXiv 2409.14509), Salesforce, BSD 3-Clause",
        in_turn=True,
    ),
    "squality": PeopleSet(
        about="choices of trained reviewers between answers about a story",
        source="SQuALITY, NYU, CC BY 4.0",
        in_turn=True,
    ),
    "arguments": PeopleSet(
        about="which of two arguments on one side of a debate convinces more",
        source="UKPConvArg1 (UKPLab/acl2016-convincing-arguments), CC BY 4.0",
        prompt_of=_debate,
    ),
    "polis": PeopleSet(
        about="a statement agreed with over one disagreed with, in public consultations",
        source="gathered using Polis, sub-licensed under CC BY 4.0 with attribution to The"
        " Computational Democracy Project; pairs derived from the votes",
    ),
}
"""The sets by the name of their source."""


def read_people(file: str) -> list[PreferenceRow]:
    """Read JSONL of {user_id, query, chosen, rejected}; see `split_by_user`."""
    return split_by_user(read_jsonl(Path(file)))


def read_people_topics(file: str) -> list[PreferenceRow]:
    """Read the same with a topic each, and hold topics out together with users.

    Nobody is trained on held-out topics; held-out users are asked about nothing else, and their
    history is what they chose on other topics. A topic is what stands before the last underscore, so
    that the two sides of a debate, told apart behind it, are held out together.
    """
    rows = []
    for where, record in read_jsonl(Path(file)):
        rows += _parsed([(where, record)])
        if rows[-1].topic is None:
            raise ConfigurationError(
                f"{where}, field topic: missing, and people-topics: holds topics out; use people:"
            )
    return _by_prompt(rows, _debate, _split_of_user)


def split_by_user(records: Iterable[Located]) -> list[PreferenceRow]:
    """Split by user, by a hash of the id; the first half of a held-out user's choices is history."""
    return _halved(_parsed(records), _split_of_user)


def ask_everyone(rows: Iterable[PreferenceRow]) -> list[PreferenceRow]:
    """Put the first half of each user's choices into "history", and the other half into "test"."""
    return _halved(rows, _everyone)


def _parsed(records: Iterable[Located]) -> list[PreferenceRow]:
    return [parse_row(where, {**record, "split": "train"}) for where, record in records]


def _halved(rows: Iterable[PreferenceRow], split_of: Callable[[str], Split]) -> list[PreferenceRow]:
    by_user: dict[str, list[PreferenceRow]] = {}
    for row in rows:
        by_user.setdefault(row.user_id, []).append(row)
    halved = []
    for user, own in by_user.items():
        split = split_of(user)
        shown = round(len(own) * HISTORY_SHARE)
        halved += [
            row.model_copy(
                update={"split": "history" if split != "train" and number < shown else split}
            )
            for number, row in enumerate(own)
        ]
    return halved


def _by_prompt(
    rows: Iterable[PreferenceRow],
    prompt_of: Callable[[PreferenceRow], str],
    split_of: Callable[[str], Split],
) -> list[PreferenceRow]:
    divided = []
    for row in rows:
        held = place_of(prompt_of(row)) < PROMPT_SHARE
        split = split_of(row.user_id)
        if split == "train":
            split = "crowd" if held else "train"
        elif not held:
            split = "history"
        divided.append(row.model_copy(update={"split": split}))
    return divided


def _split_of_user(user_id: str) -> Split:
    place = place_of(user_id)
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def _everyone(user_id: str) -> Split:
    return "test"


_SELF = re.compile(r'Asked "|Believes ')
"""How a statement begins that tells what somebody thinks; the others tell who they are."""


def _with_kinds(stated: Sequence[StatedPreference]) -> tuple[StatedPreference, ...]:
    return tuple(
        StatedPreference(
            kind="self_description" if _SELF.match(wish.text) else "demographics", text=wish.text
        )
        for wish in stated
    )


def place_of(name: str) -> float:
    """Return where a name falls in [0, 1), evenly and always the same."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
