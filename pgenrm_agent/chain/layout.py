"""How a chain's text is laid out, and how a model is asked for the next part of it.

In prose a begun chain is continued where it ends. As a JSON object it is written in turns of a
conversation: the model is shown what it has written, or what was put in its place, and asked for
the sections that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from pgenrm_agent.chain.document import (
    KEYS,
    Document,
    Lengths,
    criteria_of,
    document_in,
    is_weights,
    part_of,
    persona_of,
    schema_of,
    write_document,
)
from pgenrm_agent.chain.sections import Section, split_reasoning, split_sections
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.schema import Criterion, Message, Rubric

SECTIONS: tuple[Section, ...] = ("persona", "rubric", "scores")
JSON_END = "<JSON_END>"
SYNTAX = 60
"""Characters of keys, quotes and brackets around an entry of a JSON chain, at most."""

Ask = Callable[[Sequence[Section]], str]


class Shown(NamedTuple):
    """What a prompt shows: how many responses, the chosen and the rejected text of past choices, wishes."""

    candidates: int
    choices: tuple[tuple[str, str], ...] = ()
    stated: bool = False


class Turn(NamedTuple):
    """What an engine is asked for: see `Prompt` and `SamplingParams` of the engines."""

    messages: tuple[Message, ...]
    partial: str = ""
    json_schema: Mapping[str, object] | None = None
    grammar: str | None = None
    stop: tuple[str, ...] = ()


@runtime_checkable
class Layout(Protocol):
    """How the text of a chain is laid out.

    in_turns: each section can be written in a turn of its own, by an engine that cannot continue a
        begun answer.
    """

    in_turns: bool

    def turn(
        self, messages: Sequence[Message], ask: Ask, text: str, goal: Section, shown: Shown
    ) -> Turn:
        """Return what to ask for, to bring `text` to the end of section `goal`."""

    def join(self, text: str, written: str, goal: Section) -> str:
        """Return `text` with what was written for the turn that `turn` returned."""

    def complete_through(self, text: str) -> Section | None:
        """Return the last section that is complete; None while there is none."""

    def takes_up(self, text: str) -> bool:
        """Return whether a begun chain is laid out like this, so that it can be taken up again."""

    def with_persona(self, text: str, persona: str) -> str:
        """Return the begun chain with another persona; what stood behind it is dropped."""

    def with_rubric(self, text: str, rubric: Rubric) -> str:
        """Return the begun chain with other criteria; what stood behind them is dropped."""


class ProseLayout:
    """Sections under headings, and scores as a JSON object between markers.

    rubric, scores: the headings that open the second and the third section.
    """

    in_turns = False

    def __init__(self, rubric: str, scores: str) -> None:
        self.rubric = rubric
        self.scores = scores

    def turn(
        self, messages: Sequence[Message], ask: Ask, text: str, goal: Section, shown: Shown
    ) -> Turn:
        """Ask for the continuation of `text`."""
        return Turn(tuple(messages), partial=text, stop=self.stop(goal))

    def stop(self, section: Section) -> tuple[str, ...]:
        """Return the strings at which sampling of `section` is cut; a whole chain ends itself."""
        if section == "persona":
            return (f"\n{self.rubric}", f"\n{self.scores}", JSON_END)
        if section == "rubric":
            return (f"\n{self.scores}", JSON_END)
        return ()

    def join(self, text: str, written: str, goal: Section) -> str:
        """Close the text after section `goal`: what comes next can be sampled as its continuation."""
        text += written
        through = self.complete_through(text)
        if through == "scores":
            # What a model writes behind its chain is no part of it.
            return text[: text.rindex(JSON_END) + len(JSON_END)]
        if through == goal or (through == "rubric" and goal == "persona"):
            return text
        body = text.rstrip()
        if goal == "persona":
            return f"{body}\n{self.rubric}\n"
        if goal == "rubric":
            return f"{body}\n{self.scores}\n"
        return f"{body}\n{JSON_END}"

    def complete_through(self, text: str) -> Section | None:
        """Return the last section of `text` that is complete; None while the persona is written."""
        if JSON_END in split_reasoning(text).answer:
            return "scores"
        sections = split_sections(text)
        if sections.scores is not None:
            return "rubric"
        if sections.rubric is not None:
            return "persona"
        return None

    def takes_up(self, text: str) -> bool:
        """Any text but a JSON object's."""
        return document_in(text) is None

    def with_persona(self, text: str, persona: str) -> str:
        """Raises ConfigurationError for a persona that holds a heading of a chain."""
        start, _ = split_sections(text).spans.get("persona", (0, 0))
        edited = self.join(f"{text[:start].rstrip()}\n{persona}".lstrip(), "", "persona")
        if (split_sections(edited).persona or "").strip() != persona:
            raise ConfigurationError(
                "the persona holds a heading or a marker of a chain, so that its end could not be"
                " told: take lines such as '### Criteria' and '<JSON_START>' out"
            )
        return edited

    def with_rubric(self, text: str, rubric: Rubric) -> str:
        """Raises ConfigurationError for a text without criteria."""
        spans = split_sections(text).spans
        if "rubric" not in spans:
            raise _nothing_to_replace()
        lines = [_line(number, criterion) for number, criterion in enumerate(rubric.criteria, 1)]
        head = text[: spans["rubric"][0]].rstrip()
        return self.join("\n".join([head, *lines]), "", "rubric")


class JSONLayout:
    """One JSON object, written at once or section by section.

    lengths: most characters of its strings. fewest, most: how many criteria it may have.
    """

    in_turns = True

    def __init__(self, lengths: Lengths, fewest: int, most: int) -> None:
        self.lengths = lengths
        self.counts = tuple(range(fewest, most + 1))

    def turn(
        self, messages: Sequence[Message], ask: Ask, text: str, goal: Section, shown: Shown
    ) -> Turn:
        """Show the sections that stand as earlier answers, and ask for those up to `goal`."""
        document = document_in(text) or {}
        place = SECTIONS.index(goal)
        begun = [section for section in SECTIONS[:place] if KEYS[section] in document]
        wanted = [section for section in SECTIONS[: place + 1] if section not in begun]
        *before, task = messages
        turns: list[Message] = list(before)
        for number, sections in enumerate([*([section] for section in begun), wanted]):
            asked = ask(sections)
            content = f"{task.content}\n\n{asked}" if number == 0 else asked
            turns.append(Message(role="user", content=content))
            if number < len(begun):
                answer = write_document(part_of(document, sections[0]))
                turns.append(Message(role="assistant", content=answer))
        return Turn(tuple(turns), json_schema=self._schema(wanted, document, shown.candidates))

    def _schema(
        self, wanted: Sequence[Section], document: Document, candidates: int
    ) -> Mapping[str, object]:
        counts: Sequence[int] = self.counts
        if "rubric" not in wanted:
            # An edited rubric may have any number of criteria.
            rows = document.get("criteria")
            counts = (max(1, len(rows)) if isinstance(rows, list) else self.counts[0],)
        return schema_of(wanted, candidates=candidates, criteria=counts, lengths=self.lengths)

    def longest(self, candidates: int) -> int:
        """Return the most characters that a whole chain over so many candidates has, none of them escaped."""
        lengths, most = self.lengths, self.counts[-1]
        rubric = most * (lengths.name + lengths.reason + SYNTAX)
        scores = candidates * (lengths.why + 4 * most + SYNTAX)
        return lengths.persona + 2 * SYNTAX + rubric + scores

    def join(self, text: str, written: str, goal: Section) -> str:
        """Put the sections that were written beside those that stood; unreadable text stays as it is."""
        document, added = document_in(text), document_in(written)
        if added is None:
            return f"{text}\n{written}" if text else written
        if persona := persona_of(added):
            added["persona"] = persona
        # A model that repeats an earlier section does not change it, nor what stands beside it.
        earlier = document or {}
        if "criteria" in earlier:
            added = {key: value for key, value in added.items() if not is_weights(key)}
        return write_document({**earlier, **added, **earlier})

    def complete_through(self, text: str) -> Section | None:
        """Return the last section of those that stand without a gap."""
        document = document_in(text) or {}
        through: Section | None = None
        for section in SECTIONS:
            if KEYS[section] not in document:
                break
            through = section
        return through

    def takes_up(self, text: str) -> bool:
        """Only a JSON object's."""
        return document_in(text) is not None

    def with_persona(self, text: str, persona: str) -> str:
        """Any text can be a persona."""
        return write_document({"persona": persona})

    def with_rubric(self, text: str, rubric: Rubric) -> str:
        """Raises ConfigurationError for a text without criteria."""
        document = document_in(text) or {}
        try:
            criteria_of(document)
        except ChainError:
            raise _nothing_to_replace() from None
        rows = [
            {
                "name": criterion.name,
                "weight": _plain(criterion.weight),
                "reason": criterion.reason,
            }
            for criterion in rubric.criteria
        ]
        return write_document({"persona": document.get("persona", ""), "criteria": rows})


def _nothing_to_replace() -> ConfigurationError:
    return ConfigurationError("this chain has no rubric that could be replaced")


def _plain(weight: float) -> float:
    return int(weight) if weight == int(weight) else round(weight, 4)


def _line(number: int, criterion: Criterion) -> str:
    why = f": {criterion.reason}" if criterion.reason else ""
    return f"{number}. {criterion.name} ({criterion.weight:.6g}%){why}"
