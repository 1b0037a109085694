"""What a newer choice or statement overrules: pure functions over what is remembered.

A choice is overruled by a newer one with the same query, conversation and answers, the other way
round. A statement is overruled by a newer one that says the same in other words, or the opposite of
the same things ("short" against "long", "lists" against "no lists"). Words tell, so these are clear
cases, and English ones; anything else stands beside the older, and the model sees both, oldest first.
Nothing is removed: what is overruled is kept, and is only not shown in prompts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

from pgenrm_agent.schema import Message, PreferencePair, StatedPreference

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

_FILLERS = """
    a all always am an and answer answers anymore are be best can could do for get give i i'd i'm in is it
    just keep like likes liked love loves make me more most much my need now of on only please prefer
    prefers preferred really replies reply response responses should so the them to too use using usually
    very want wants will with would write you your
"""
_NEGATIONS = """
    no not never without avoid hate hates dislike dislikes less stop skip don't dont doesn't shouldn't none
    neither nor
"""
FILLERS = frozenset(_FILLERS.split())
"""Words that say nothing of what is wished for."""
NEGATIONS = frozenset(_NEGATIONS.split())
# By word: what it is about, and which of the two sides of that it names.
SIDES: dict[str, tuple[str, bool]] = {
    word: (about, side)
    for about, sides in {
        "length": (
            "short shorter brief briefer concise terse crisp",
            "long longer detailed thorough extensive lengthy",
        ),
        "register": ("formal businesslike", "informal casual relaxed colloquial"),
        "difficulty": ("simple simpler plain easy", "technical complex advanced expert"),
        "warmth": ("warm warmer friendly chatty", "cold cool"),
        "confidence": ("confident blunt decisive", "cautious hedged tentative"),
        "layout": (
            "list lists bullet bullets steps numbered structured",
            "prose paragraph paragraphs flowing",
        ),
    }.items()
    for side, words in zip((True, False), sides, strict=True)
    for word in words.split()
}


Matter: TypeAlias = tuple[str, tuple[Message, ...], frozenset[str]]


def matter_of(pair: PreferencePair) -> Matter:
    """Return what a choice is about: choices of which this is the same agree, or contradict each other."""
    return (
        _plain(pair.query),
        pair.conversation,
        frozenset(map(_plain, (pair.chosen, pair.rejected))),
    )


def side_of(pair: PreferencePair) -> str:
    """Return on which side of its matter a choice is."""
    return _plain(pair.chosen)


def overruled_choices(pairs: Sequence[PreferencePair]) -> dict[str, str]:
    """Return the id of each choice that a newer one contradicts, and the newest such choice's id."""
    by_query: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        by_query.setdefault(_plain(pair.query), []).append(pair)
    overruled: dict[str, str] = {}
    for asked in by_query.values():
        if len(asked) == 1:  # as nearly all are, so that their answers need not be looked at
            continue
        latest: dict[Matter, PreferencePair] = {}
        for pair in sorted(asked, key=lambda pair: (pair.created_at, pair.id), reverse=True):
            newer = latest.setdefault(matter_of(pair), pair)
            if side_of(newer) != side_of(pair):
                overruled[pair.id] = newer.id
    return overruled


def overruled_statements(stated: Sequence[StatedPreference]) -> dict[int, int]:
    """Return the place of each statement that a newer one overrules, and that one's place.

    stated: oldest first.
    """
    overruled: dict[int, int] = {}
    meanings = [_meaning(statement.text) for statement in stated]
    for newer in reversed(range(len(stated))):
        if newer in overruled:
            continue
        for older in range(newer):
            same_kind = stated[older].kind == stated[newer].kind
            if older in overruled or not same_kind or not meanings[older]:
                continue
            if _settles(meanings[older], meanings[newer]):
                overruled[older] = newer
    return overruled


def standing_statements(stated: Sequence[StatedPreference]) -> tuple[StatedPreference, ...]:
    """Return the statements that no newer one overrules, in their order, which is oldest first."""
    overruled = overruled_statements(stated)
    return tuple(statement for place, statement in enumerate(stated) if place not in overruled)


def _settles(older: dict[str, bool], newer: dict[str, bool]) -> bool:
    """Return whether the newer one says the same, or of all the same things the opposite."""
    opposite = {about: not side for about, side in older.items()}
    return newer in (older, opposite)


def _meaning(text: str) -> dict[str, bool]:
    """Return what a statement is about, and on which side of that; a "not" is for its whole clause."""
    meaning: dict[str, bool] = {}
    said = _plain(text).replace("\u2019", "'").replace("no longer", "not")
    for clause in re.split(r"[.;:!?,]|\bbut\b|\band\b", said):
        words = _WORD.findall(clause)
        wished = not any(word in NEGATIONS for word in words)
        for before, word in zip(["", *words], words, strict=False):
            if word in FILLERS or word in NEGATIONS:
                continue
            about, side = SIDES.get(word, (_singular(word), True))
            if before == "too":  # "not too short" sets a limit, and does not ask for what is long
                about, side = f"too {_singular(word)}", True
            meaning[about] = side is wished
    return meaning


def _singular(word: str) -> str:
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word.removesuffix("s") if plural else word


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
