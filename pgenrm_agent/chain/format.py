"""Chain formats: a folder with Jinja templates and a format.json, bundled or your own."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from jinja2 import Template, TemplateError
from pydantic import Field, model_validator

from pgenrm_agent.arguments import path_of
from pgenrm_agent.chain.document import Lengths
from pgenrm_agent.chain.escape import escape
from pgenrm_agent.chain.layout import SECTIONS, JSONLayout, Layout, ProseLayout, Shown, Turn
from pgenrm_agent.chain.notes import MOST_CITED, NotesLayout, Theme, refuse_alike
from pgenrm_agent.chain.room import Room, estimated_tokens, within
from pgenrm_agent.chain.sections import Section
from pgenrm_agent.chain.templates import compiled, given_to, rendered
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model
from pgenrm_agent.schema import (
    Message,
    PreferencePair,
    Rubric,
    StatedPreference,
)

KINDS = get_args(StatedPreference.model_fields["kind"].annotation)
LONGEST_WORD = 40
"""A text is cut between words where there are any: some scripts have no blanks."""


class _Clip(Model):
    """Longest text shown, in characters."""

    query: int = Field(gt=0)
    answer: int = Field(gt=0)
    stated: int = Field(gt=0)


class _Headings(Model):
    """The headings that open the second and the third section."""

    rubric: str
    scores: str

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        begun = f"Who they are.\n{self.rubric}\n"
        criteria = f"{begun}- Brevity (weight: 100)\n"
        layout = ProseLayout(self.rubric, self.scores)
        through = [layout.complete_through(text) for text in (begun, f"{criteria}{self.scores}\n")]
        if through != ["persona", "rubric"]:
            which = "rubric" if through[0] != "persona" else "scores"
            raise ValueError(
                f"{getattr(self, which)!r} is not read as the heading of the {which}: write one such as"
                f" {'### Criteria' if which == 'rubric' else '### Scores'!r}"
            )
        return self


class _Settings(Model):
    """What makes a layout: prose has headings, a JSON object lengths, notes have themes.

    Prose and notes have a limit of tokens, a JSON object numbers of criteria.
    """

    name: str
    max_candidates: int | None = Field(ge=1)
    max_history: int | None = Field(ge=0)
    clip: _Clip | None
    room: Room | None = None
    headings: _Headings | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    lengths: Lengths | None = None
    criteria: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(le=64)]] | None = None
    themes: tuple[Theme, ...] | None = Field(default=None, min_length=1)
    totals: bool = True
    language: Literal["English"] | None = None

    @model_validator(mode="after")
    def _of_a_kind(self) -> Self:
        given = {
            field
            for field in ("headings", "max_tokens", "lengths", "criteria", "themes")
            if getattr(self, field) is not None
        }
        if self.criteria is not None and self.criteria[0] > self.criteria[1]:
            raise ValueError(f"criteria: fewest and most are {self.criteria}, in this order")
        if given not in (
            {"headings", "max_tokens"},
            {"themes", "max_tokens"},
            {"lengths", "criteria"},
        ):
            raise ValueError(
                "a format in prose has headings and max_tokens, one with notes themes and max_tokens,"
                " one as a JSON object lengths and criteria"
            )
        if self.themes is not None:
            refuse_alike(self.themes)
            if self.max_history is None or self.max_history > MOST_CITED:
                raise ValueError(
                    f"max_history: a format with notes shows at most {MOST_CITED} choices, since its"
                    " grammar names every set of them"
                )
        return self


@dataclass(frozen=True)
class ChainFormat:
    """How a prompt is written, and how an answer is laid out.

    max_candidates: most responses in one prompt; None for no limit of the format's own.
    max_history: most past choices in one prompt; further ones are left out, the first ones kept.
    asks_totals: the model works out totals, which its marks then have to agree with.
    in_turns: the sections can be written in turns of a conversation, by any engine; otherwise a
        chain is written section by section only by an engine that continues a begun answer.
    shows_conversation: whether a prompt shows the conversation before the query.
    digest: a hash of its files: two formats of one name can differ.
    """

    settings: _Settings
    layout: Layout
    system: Template
    user: Template
    ask: Template | None
    shows_conversation: bool
    digest: str

    @classmethod
    def load(cls, name_or_folder: str | Path, *, judges: bool = True) -> ChainFormat:
        """A bundled format ("published", "structured-1", "compact-2") by name, or a folder of your own.

        judges: whether it has to show the query and every candidate.

        Raises:
            ConfigurationError: no such format, or one of its files is missing or wrong.
        """
        path = path_of(name_or_folder, "chain_format")
        if isinstance(name_or_folder, Path) or "/" in name_or_folder or "\\" in name_or_folder:
            folder: Traversable = path
        else:
            formats = resources.files("pgenrm_agent.chain") / "formats"
            folder = formats / name_or_folder
            if not folder.is_dir():
                known = ", ".join(sorted(item.name for item in formats.iterdir() if item.is_dir()))
                raise ConfigurationError(
                    f"no chain format named {name_or_folder!r}; bundled are: {known}."
                    " A folder of your own is given as a path"
                )
        try:
            described = (folder / "format.json").read_text(encoding="utf-8")
            settings = _Settings.model_validate(json.loads(described))
            layout = _layout(settings)
            files = ("system.j2", "user.j2", *(("ask.j2",) if layout.in_turns else ()))
            sources = [(folder / file).read_text(encoding="utf-8") for file in files]
            templates = [
                compiled(source, file) for file, source in zip(files, sources, strict=True)
            ]
        except (OSError, ValueError, TemplateError, RecursionError) as error:
            raise ConfigurationError(
                f"chain format {str(name_or_folder)!r} cannot be read: {error}; a format is a folder"
                " with format.json, system.j2 and user.j2, and ask.j2 where chains are JSON objects"
            ) from error
        system, user, *ask = templates
        digest = hashlib.sha256("\0".join([described, *sources]).encode()).hexdigest()
        made = cls(
            settings,
            layout,
            system,
            user,
            ask[0] if ask else None,
            shows_conversation=any("conversation" in given_to(source) for source in sources),
            digest=digest,
        )
        made._try_out(judges)
        return made

    def _try_out(self, judges: bool) -> None:
        """Refuse templates that fail on some prompt, or leave out what is judged."""
        asked, answers = "Wq1", ("Wa1", "Wa2")[: self.max_candidates]
        known: dict[str, Any] = {
            "history": [PreferencePair(query="Wq2", chosen="Wa3", rejected="Wa4")],
            "stated": [StatedPreference(text="Ws1", kind=kind) for kind in KINDS],
            "conversation": [Message(role="user", content="Wt1")],
        }
        for some in (known, {}):
            messages = self.messages(query=asked, candidates=answers, **some)
            prompt = "".join(message.content for message in messages)
            wanted = [self.beginning("query", asked)]
            wanted += [self.beginning("answer", text) for text in answers]
            if judges and any(text not in prompt for text in wanted):
                raise ConfigurationError(
                    f"chain format {self.name} leaves the query or a candidate out of its prompts: let"
                    " user.j2 show `query` and each of `candidates`"
                )
        for sections in (SECTIONS, SECTIONS[1:], *((section,) for section in SECTIONS)):
            if self.ask is not None:
                self._asked_for(sections, len(answers))

    @property
    def name(self) -> str:
        """Name of the format."""
        return self.settings.name

    @property
    def max_candidates(self) -> int | None:
        """Most responses in one prompt; None for no limit of its own."""
        return self.settings.max_candidates

    @property
    def max_history(self) -> int | None:
        """Most past choices in one prompt; None for no limit of its own."""
        return self.settings.max_history

    @property
    def language(self) -> str | None:
        """The only language that its model was trained on; None where nothing is known of that."""
        return self.settings.language

    @property
    def asks_totals(self) -> bool:
        """Whether the model works out totals."""
        return self.settings.totals

    @property
    def in_turns(self) -> bool:
        """Whether the sections can be written in turns of a conversation."""
        return self.layout.in_turns

    def max_tokens(self, candidates: int) -> int:
        """Return how many new tokens a whole chain over so many candidates may take.

        For a JSON object as many as its longest text has characters, so that none in plain English is cut
        short.
        """
        if isinstance(self.layout, JSONLayout):
            return self.layout.longest(candidates)
        assert self.settings.max_tokens is not None
        return self.settings.max_tokens

    def messages(
        self,
        *,
        query: str,
        candidates: Sequence[str],
        history: Sequence[PreferencePair] = (),
        stated: Sequence[StatedPreference] = (),
        conversation: Sequence[Message] = (),
    ) -> tuple[Message, ...]:
        """The prompt for one answer order; all texts are escaped first.

        candidates: their texts, in the order shown.

        Raises:
            ConfigurationError: no candidates, or more than `max_candidates`.
        """
        history, stated = self.fitting(query, candidates, history, stated)
        return self._messages(query, candidates, history, stated, conversation)

    def _messages(
        self,
        query: str,
        candidates: Sequence[str],
        history: Sequence[PreferencePair],
        stated: Sequence[StatedPreference],
        conversation: Sequence[Message],
    ) -> tuple[Message, ...]:
        """The prompt that shows all that it is given.

        Raises:
            ConfigurationError: no candidates, or more than `max_candidates`.
        """
        if not candidates:
            raise ConfigurationError("there are no candidates to show; pass at least one")
        limit = self.max_candidates
        if limit is not None and len(candidates) > limit:
            raise ConfigurationError(
                f"{len(candidates)} candidates in one prompt, and chain format {self.name} shows at"
                f" most {limit}; split them into groups"
            )
        shown = {
            "query": escape(self.beginning("query", query)),
            "candidates": [escape(self.beginning("answer", text)) for text in candidates],
            "conversation": _turns(conversation),
            "history": [
                {
                    "query": escape(self.beginning("query", pair.query)),
                    "chosen": escape(self.beginning("answer", pair.chosen)),
                    "rejected": escape(self.beginning("answer", pair.rejected)),
                    "conversation": _turns(pair.conversation),
                }
                for pair in history
            ],
            "stated": [
                {
                    "kind": statement.kind,
                    "text": escape(self.beginning("stated", statement.text)),
                }
                for statement in stated
            ],
        }
        system = self._rendered("system.j2", self.system, shown)
        user = self._rendered("user.j2", self.user, shown)
        return (Message(role="system", content=system), Message(role="user", content=user))

    def _asked_for(self, sections: Sequence[Section], candidates: int) -> str:
        assert self.ask is not None
        shown = {"sections": list(sections), "candidates": candidates}
        return self._rendered("ask.j2", self.ask, shown)

    def _rendered(self, file: str, template: Template, shown: Mapping[str, object]) -> str:
        try:
            return rendered(template, shown)
        except (TemplateError, TypeError, ArithmeticError, ValueError, MemoryError) as error:
            raise ConfigurationError(
                f"{file} of chain format {self.name} cannot be rendered: {error}; it is given"
                f" {', '.join(sorted(shown))}"
            ) from error

    def beginning(self, kind: Literal["query", "answer", "stated"], text: str) -> str:
        """Return as much of a text as a prompt shows: all, or cut at a word where it is too long."""
        text, clip, room = text.strip(), self.settings.clip, self.settings.room
        shown = text if clip is None else text[: getattr(clip, kind)]
        if room is not None:
            shown = within(shown, room.text)
        if shown == text:
            return text
        whole, _, part = shown.rpartition(" ")
        return f"{whole if whole and len(part) <= LONGEST_WORD else shown} ..."

    def fitting(
        self,
        query: str,
        candidates: Sequence[str],
        history: Sequence[PreferencePair],
        stated: Sequence[StatedPreference],
    ) -> tuple[Sequence[PreferencePair], Sequence[StatedPreference]]:
        """Return what a prompt has room for: past choices and statements, the first of each.

        Past choices are returned, and so numbered, oldest first; those given at the same moment, as given.
        Statements take at most half of the room that the candidates leave.
        """
        history, room = history[: self.max_history], self.settings.room
        if room is None:
            return _oldest_first(history), stated

        def size(kind: Literal["query", "answer", "stated"], text: str) -> float:
            return estimated_tokens(self.beginning(kind, text))

        answers = sorted(size("answer", text) for text in candidates)
        left = room.prompt - size("query", query) - sum(answers[-(self.max_candidates or 0) :])
        said = list(accumulate(size("stated", statement.text) for statement in stated))
        stated = stated[: bisect_right(said, left / 2)]
        left -= said[len(stated) - 1] if stated else 0
        chosen = accumulate(
            size("query", pair.query) + size("answer", pair.chosen) + size("answer", pair.rejected)
            for pair in history
        )
        return _oldest_first(history[: bisect_right(list(chosen), left)]), stated

    def turn(
        self,
        goal: Section,
        text: str = "",
        *,
        query: str,
        candidates: Sequence[str],
        history: Sequence[PreferencePair] = (),
        stated: Sequence[StatedPreference] = (),
        conversation: Sequence[Message] = (),
    ) -> Turn:
        """Return what to ask an engine for, to bring the chain `text` to the end of section `goal`.

        Raises:
            ConfigurationError: as for `messages`.
        """
        history, stated = self.fitting(query, candidates, history, stated)
        messages = self._messages(query, candidates, history, stated, conversation)

        def ask(sections: Sequence[Section]) -> str:
            return self._asked_for(sections, len(candidates))

        choices = tuple(
            (self.beginning("answer", pair.chosen), self.beginning("answer", pair.rejected))
            for pair in history
        )
        shown = Shown(len(candidates), choices, bool(stated))
        return self.layout.turn(messages, ask, text, goal, shown)

    def join(self, text: str, written: str, goal: Section) -> str:
        """Return the chain `text` with what was written for its `turn` to the end of `goal`."""
        return self.layout.join(text, written, goal)

    def complete_through(self, text: str) -> Section | None:
        """Return the last section of `text` that is complete; None while there is none."""
        return self.layout.complete_through(text)

    def takes_up(self, text: str) -> bool:
        """Return whether a begun chain is of this layout, so that it can be taken up again."""
        return self.layout.takes_up(text)

    def with_persona(self, text: str, persona: str) -> str:
        """Return the begun chain with another persona; what stood behind it is dropped.

        Raises:
            ConfigurationError: the persona could not be told from what follows it.
        """
        return self.layout.with_persona(text, persona)

    def with_rubric(self, text: str, rubric: Rubric) -> str:
        """Return the begun chain with other criteria; what stood behind them is dropped.

        Raises:
            ConfigurationError: the chain has no criteria yet.
        """
        return self.layout.with_rubric(text, rubric)


def _oldest_first(history: Sequence[PreferencePair]) -> tuple[PreferencePair, ...]:
    return tuple(sorted(history, key=lambda pair: pair.created_at))


def _layout(settings: _Settings) -> Layout:
    if settings.headings is not None:
        return ProseLayout(settings.headings.rubric, settings.headings.scores)
    if settings.themes is not None:
        return NotesLayout(settings.themes)
    assert settings.lengths is not None
    assert settings.criteria is not None
    return JSONLayout(settings.lengths, *settings.criteria)


def _turns(conversation: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": escape(turn.content.strip())} for turn in conversation]
