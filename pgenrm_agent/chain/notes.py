"""A chain in plain English behind working notes: what the bundled model writes (format compact-2).

    ## Notes
    [1 chosen] substance 2 ...      readings and tallies, which nobody has to read
    ### Persona
    They want short answers, and a formal tone.
    ### Criteria
    1. Brevity (6): You can see it in choice 1: the chosen answer was shorter.
    ### Marks
    Response 1: Brevity 9.

A criterion's number is its points; weights are their shares. There are no totals. All that a model
may write is a grammar, so that what it does write can be read. The grammar knows the past choices as
they can be counted (`chain.signs`): a taste that they do not show on the whole cannot be named, unless
something was stated or the persona is already there, and for a taste only the choices that show it can
be cited. Which tastes a model names, and what they weigh, is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, NamedTuple

from pydantic import Field

from pgenrm_agent.chain.layout import SECTIONS, Ask, Shown, Turn
from pgenrm_agent.chain.parsed import ParsedChain, complete_totals
from pgenrm_agent.chain.sections import Section
from pgenrm_agent.chain.signs import shown_by
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.fields import Model, NonBlank
from pgenrm_agent.schema import Criterion, Message, Persona, Rubric

NOTES, PERSONA, CRITERIA, MARKS = "## Notes", "### Persona", "### Criteria", "### Marks"
HEADINGS: dict[Section, str] = {"persona": PERSONA, "rubric": CRITERIA, "scores": MARKS}
UNKNOWN = "Nothing is known of this person yet."
UNDECIDED = "What they chose and said shows no clear taste."
EDITED = "The persona says so."
ASKED = "They asked for it."
GENERAL, EVEN_MARK = "General fit", 5
"""Criterion and mark where nothing is known."""
PAIR_LIMIT = 3
MOST_CITED = 12
"""Past choices of a prompt: the grammar names every set of them."""
STRENGTHS = ("clearly want", "want", "seem to want")


_Words = Annotated[NonBlank, Field(pattern=r"^[^\r\n]+$")]
"""What stands within a line of a chain."""


class Theme(Model):
    """What the notes count, and what its two poles are called: as a criterion, wanted, and shown."""

    key: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,31}$")]
    cap: Annotated[int, Field(ge=1, le=9)]
    more: _Words
    less: _Words
    wants_more: _Words
    wants_less: _Words
    shows_more: _Words
    shows_less: _Words

    def name(self, sign: int) -> str:
        """The criterion for more (1) or less (-1) of it."""
        return self.more if sign > 0 else self.less

    def wants(self, sign: int) -> str:
        """What somebody wants of an answer, who wants more or less of it."""
        return self.wants_more if sign > 0 else self.wants_less

    def shows(self, sign: int) -> str:
        """What an answer is, compared with one that has less or more of it."""
        return self.shows_more if sign > 0 else self.shows_less


def refuse_alike(themes: Sequence[Theme]) -> None:
    """Raise ValueError for themes that notes or criteria could not tell apart."""
    for names in (
        [theme.key for theme in themes],
        [theme.name(sign) for theme in themes for sign in (1, -1)],
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"themes: {twice[0]!r} stands twice")


class Noted(NamedTuple):
    """A chain's sections, stripped; None for what is not begun. spans: where they stand."""

    notes: str
    persona: str | None
    rubric: str | None
    scores: str | None
    spans: dict[Section, tuple[int, int]]


_HEADING = re.compile(rf"^(?:{'|'.join(map(re.escape, HEADINGS.values()))})[ \t]*$", re.MULTILINE)
_CRITERION = re.compile(r"\d{1,2}\. (.+) \((\d{1,3}(?:\.\d{1,4})?)\):(?: (.*))?")
_RESPONSE = re.compile(r"Response (\d{1,3}): (.*)\.")


def noted_in(text: str) -> Noted | None:
    """Return the sections of a chain that begins with notes; None for any other text."""
    start = len(text) - len(text.lstrip())
    if not text.startswith(NOTES, start):
        return None
    starts = {match[0].strip(): match for match in reversed(list(_HEADING.finditer(text)))}
    places = sorted((match.start(), match.end(), heading) for heading, match in starts.items())
    ends = [*(begin for begin, _, _ in places), len(text)]
    spans: dict[Section, tuple[int, int]] = {}
    for section, heading in HEADINGS.items():
        for (_, begin, named), end in zip(places, ends[1:], strict=True):
            if named == heading:
                spans[section] = (begin, end)
    bodies = {section: text[slice(*span)].strip() for section, span in spans.items()}
    return Noted(
        notes=text[start + len(NOTES) : ends[0]].strip(),
        persona=bodies.get("persona"),
        rubric=bodies.get("rubric"),
        scores=bodies.get("scores"),
        spans=spans,
    )


def spans_in_noted(text: str) -> dict[Section, tuple[int, int]] | None:
    """Return [start, end) of each section, headings left out; None for a text without notes."""
    noted = noted_in(text)
    return noted and noted.spans


def criteria_of_noted(noted: Noted) -> tuple[Criterion, ...]:
    """Return the criteria with their points as weights.

    Raises ChainError "no_rubric" where a line is none.
    """
    criteria = []
    for line in (noted.rubric or "").splitlines():
        match = _CRITERION.fullmatch(line.strip())
        if match is None or float(match[2]) > 100:
            raise ChainError(f"this is no criterion: {line[:80]!r}", reason="no_rubric")
        criteria.append(Criterion(name=match[1], weight=float(match[2]), reason=match[3] or ""))
    names = [criterion.name for criterion in criteria]
    if not names or len(set(names)) < len(names):
        raise ChainError("there are no criteria, or one of them twice", reason="no_rubric")
    if not any(criterion.weight for criterion in criteria):
        raise ChainError("the points are all 0", reason="no_rubric")
    return tuple(criteria)


def parse_noted(noted: Noted, candidate_ids: Sequence[str]) -> ParsedChain:
    """Read a whole chain; a candidate without a mark for every criterion has no total.

    Raises:
        ChainError: with reason "no_persona", "no_rubric", "no_scores" or "no_totals".
    """
    if not noted.persona:
        raise ChainError("there is no persona", reason="no_persona")
    rubric = Rubric.normalized(criteria_of_noted(noted))
    if not noted.scores:
        raise ChainError("there are no marks", reason="no_scores")
    pattern = re.compile(
        ", ".join(rf"{re.escape(criterion.name)} (10|[1-9])" for criterion in rubric.criteria)
    )
    marks: dict[str, tuple[float | None, ...]] = {}
    for line in noted.scores.splitlines():
        response = _RESPONSE.fullmatch(line.strip())
        row = response and pattern.fullmatch(response[2])
        number = int(response[1]) if response else 0
        if row and 0 < number <= len(candidate_ids) and candidate_ids[number - 1] not in marks:
            marks[candidate_ids[number - 1]] = tuple(float(mark) for mark in row.groups())
    totals = complete_totals(rubric.criteria, marks)
    if not totals:
        raise ChainError("no response has a mark for every criterion", reason="no_totals")
    return ParsedChain(
        persona=Persona(text=" ".join(noted.persona.split())),
        rubric=rubric,
        marks=marks,
        reported={},
        totals=totals,
        totals_from="marks",
        notes=noted.notes,
        repairs=(),
        missing=tuple(name for name in candidate_ids if name not in totals),
    )


class NotesLayout:
    """Sections under headings, continued where they end, and held to a grammar."""

    in_turns = False

    def __init__(self, themes: Sequence[Theme]) -> None:
        self.themes = tuple(themes)

    def turn(
        self,
        messages: Sequence[Message],
        ask: Ask,
        text: str,
        goal: Section,
        shown: Shown,
    ) -> Turn:
        """Ask for the continuation of `text`."""
        place = SECTIONS.index(goal)
        stop = tuple(f"\n{HEADINGS[section]}" for section in SECTIONS[place + 1 :][:1])
        grammar = Writer(self.themes, shown).grammar(text, goal)
        return Turn(tuple(messages), partial=text, grammar=grammar, stop=stop)

    def join(self, text: str, written: str, goal: Section) -> str:
        """Close the text after section `goal`: what comes next can be sampled as its continuation."""
        text = (text + written).rstrip()
        following = SECTIONS[SECTIONS.index(goal) + 1 :][:1]
        if not following or self.complete_through(text) in (goal, *following, "scores"):
            return text
        return f"{text}\n{HEADINGS[following[0]]}\n"

    def complete_through(self, text: str) -> Section | None:
        """Return the last section that is complete; the marks are where they can be read."""
        noted = noted_in(text)
        if noted is None:
            return None
        if noted.scores and noted.scores.endswith("."):
            return "scores"
        if noted.scores is not None:
            return "rubric"
        return None if noted.rubric is None else "persona"

    def takes_up(self, text: str) -> bool:
        """Only one with notes."""
        return noted_in(text) is not None

    def with_persona(self, text: str, persona: str) -> str:
        """Raises ConfigurationError for a persona that holds a heading of a chain."""
        noted = noted_in(text)
        if noted and noted.persona is not None:
            before = text[: noted.spans["persona"][0]].rstrip()
        else:  # cut within its notes, which nobody has to read
            before = f"{NOTES}\n{PERSONA}"
        edited = self.join(f"{before}\n", " ".join(persona.split()), "persona")
        again = noted_in(edited)
        if again is None or again.persona != " ".join(persona.split()):
            raise ConfigurationError(
                "the persona holds a heading of a chain, so that its end could not be told: take"
                f" lines such as {CRITERIA!r} out"
            )
        return edited

    def with_rubric(self, text: str, rubric: Rubric) -> str:
        """Raises ConfigurationError for a text without criteria."""
        noted = noted_in(text)
        if noted is None or not noted.rubric:
            raise ConfigurationError("this chain has no rubric that could be replaced")
        lines = [
            f"{number}. {criterion.name} ({_points(criterion.weight)}): {criterion.reason}".rstrip()
            for number, criterion in enumerate(rubric.criteria, 1)
        ]
        head = text[: noted.spans["rubric"][0]].rstrip()
        return self.join("\n".join([head, *lines]), "", "rubric")


class Writer:
    """Writes the grammar of the chains for a prompt (EBNF as xgrammar reads it)."""

    def __init__(self, themes: Sequence[Theme], shown: Shown) -> None:
        self.themes = themes
        self.candidates, self.history, self.stated = (
            shown.candidates,
            len(shown.choices),
            shown.stated,
        )
        self._more = [shown_by(*choice) for choice in shown.choices]
        self._rules: dict[str, str] = {}

    def grammar(self, text: str, goal: Section) -> str | None:
        """Return the grammar of what may follow `text`, to the end of section `goal`.

        None behind criteria that cannot be read, which an engine without a grammar may have written:
        the chain is refused when it is read.
        """
        noted = noted_in(text)
        self._rules = {"mark": '"10" | [1-9]'}
        if noted is None or noted.persona is None:
            start = self._from_notes(goal)
        elif noted.rubric is None or not noted.rubric:
            start = self._from_criteria(noted.persona, goal)
        else:
            try:
                criteria = criteria_of_noted(noted)
            except ChainError:
                return None
            start = self._marks([criterion.name for criterion in criteria])
        rules = [
            f"root ::= {start}",
            *(f"{name} ::= {body}" for name, body in self._rules.items()),
        ]
        return "\n".join(rules) + "\n"

    def _rule(self, name: str, body: str) -> str:
        self._rules.setdefault(name, body)
        return name

    def _showing(self, theme: Theme, sign: int) -> list[int]:
        """The numbers of the choices that show a taste; all, for a theme that is not counted.

        None where others show as much of its contrary, unless somebody may have asked for it.
        """
        shown = [sign * more.get(theme.key, sign) for more in self._more]
        whole = sum(max(-PAIR_LIMIT, min(PAIR_LIMIT, more)) for more in shown)
        if whole <= 0 and not self.stated:
            return []
        return [number for number, more in enumerate(shown, 1) if more > 0]

    # --- notes ---

    def _from_notes(self, goal: Section) -> str:
        lines = [_quoted(f"{NOTES}\n")]
        pair, tally = self._signed("pair", PAIR_LIMIT), self._signed("tally", 9)
        values = self._rule(
            "reading",
            " ".join(f"{_quoted(f' {theme.key} ')} [0-{theme.cap}]" for theme in self.themes),
        )
        for number in range(1, self.history + 1):
            lines += [
                f"{_quoted(f'[{number} chosen]')} {values}",
                f"{_quoted(f'{chr(10)}[{number} rejected]')} {values}",
                f"{_quoted(f'{chr(10)}Pair {number}:')} {pair}",
                f'{_quoted(f"{chr(10)}Tally:")} {tally} "\\n"',
            ]
        if self.stated:
            lines.append(f'"Stated:" {tally} "\\nTally:" {tally} "\\n"')
        for number in range(1, self.candidates + 1):
            lines.append(f'{_quoted(f"[response {number}]")} {values} "\\n"')
        lines.append(_quoted(f"{PERSONA}\n"))
        if not self.history and not self.stated:
            return " ".join([*lines, self._unknown(UNKNOWN, goal)])
        tastes = [
            (at, _quoted(theme.wants(sign)))
            for at, theme in enumerate(self.themes)
            for sign in (1, -1)
            if self.stated or self._showing(theme, sign)
        ]
        if not tastes:
            return " ".join([*lines, self._unknown(UNDECIDED, goal)])
        wants = " | ".join(f"{words} {self._second(at, tastes)}".rstrip() for at, words in tastes)
        strength = " | ".join(map(_quoted, STRENGTHS))
        sentence = f'"They " ({strength}) " " ({wants}) "."'
        rest = "" if goal == "persona" else f' "\\n" {self._criteria(goal, edited=False)}'
        return " ".join([*lines, f"({sentence}{rest} | {self._unknown(UNDECIDED, goal)})"])

    def _second(self, first: int, tastes: Sequence[tuple[int, str]]) -> str:
        """What a persona may name behind a taste: one of another theme, or nothing."""
        others = [words for at, words in tastes if at != first]
        if not others:
            return ""
        return f'(", and " {self._rule(f"beside{first}", " | ".join(others))})?'

    def _signed(self, name: str, limit: int) -> str:
        size = self._rule(f"{name}size", f'" +" [0-{limit}] | " -" [1-{limit}]')
        return self._rule(
            name, " ".join(f"{_quoted(f' {theme.key}')} {size}" for theme in self.themes)
        )

    # --- criteria ---

    def _from_criteria(self, persona: str, goal: Section) -> str:
        if persona in (UNKNOWN, UNDECIDED):
            return self._general(persona, goal)
        return self._criteria(goal, edited=True, headed=False)

    def _unknown(self, words: str, goal: Section) -> str:
        if goal == "persona":
            return _quoted(words)
        return f"{_quoted(f'{words}{chr(10)}{CRITERIA}{chr(10)}')} {self._general(words, goal)}"

    def _general(self, words: str, goal: Section) -> str:
        line = f"1. {GENERAL} (1): {words}"
        if goal == "rubric":
            return _quoted(line)
        rows = [f"Response {k}: {GENERAL} {EVEN_MARK}." for k in range(1, self.candidates + 1)]
        return _quoted("\n".join([line, MARKS, *rows]))

    def _criteria(self, goal: Section, *, edited: bool, headed: bool = True) -> str:
        """Criteria in the order of the themes, each theme once at most, and what follows them."""
        first = self._criterion(0, (), goal, edited)
        return f"{_quoted(f'{CRITERIA}{chr(10)}')} {first}" if headed else first

    def _criterion(
        self, begin: int, chosen: tuple[tuple[int, int], ...], goal: Section, edited: bool
    ) -> str:
        name = "c" + "".join(f"{at}{'p' if sign > 0 else 'm'}" for at, sign in chosen) + f"x{begin}"
        if name in self._rules:
            return name
        options = []
        for at in range(begin, len(self.themes)):
            for sign in (1, -1):
                theme = self.themes[at]
                reason = self._reason(theme, sign, edited)
                if reason is None:
                    continue
                after = (*chosen, (at, sign))
                line = _quoted(f"{len(after)}. {theme.name(sign)} (")
                if at + 1 < len(self.themes):
                    following = self._criterion(at + 1, after, goal, edited)
                else:
                    following = self._end(after, goal)
                options.append(f'{line} [1-9] "): " {reason} {following}')
        if chosen:
            options.append(self._end(chosen, goal))
        return self._rule(name, " | ".join(options))

    def _end(self, chosen: Sequence[tuple[int, int]], goal: Section) -> str:
        if goal == "rubric":
            return '""'
        names = [self.themes[at].name(sign) for at, sign in chosen]
        rule = "m" + "".join(f"{at}{'p' if sign > 0 else 'm'}" for at, sign in chosen)
        return self._rule(rule, f"{_quoted(f'{MARKS}{chr(10)}')} {self._marks(names)}")

    def _reason(self, theme: Theme, sign: int, edited: bool) -> str | None:
        """What can be said for a taste; None where nothing can."""
        options = [_quoted(EDITED)] if edited else []
        if self.stated:
            options.append(_quoted(ASKED))
        if numbers := self._showing(theme, sign):
            cited = self._rule(
                f"cited{'_'.join(map(str, numbers))}",
                " | ".join(
                    _quoted(cite(subset))
                    for size in range(1, len(numbers) + 1)
                    for subset in combinations(numbers, size)
                ),
            )
            clear = f'ou can see it in " {cited} {_quoted(f": the chosen answer was {theme.shows(sign)}.")}'
            slight = f'here is a slight sign of it in " {cited} "."'
            options += [f'"Y{clear}', f'"T{slight}']
            if self.stated:
                options += [
                    f'"They asked for it, and y{clear}',
                    f'"They asked for it, and t{slight}',
                ]
        if not options:
            return None
        body = " | ".join(f'{option} "\\n"' for option in options)
        return self._rule(f"r{theme.key}{'p' if sign > 0 else 'm'}", body)

    # --- marks ---

    def _marks(self, names: Sequence[str]) -> str:
        row = ' ", " '.join(f"{_quoted(f'{name} ')} mark" for name in names)
        lines = [
            f'{_quoted(f"Response {number}: ")} {row} "."'
            for number in range(1, self.candidates + 1)
        ]
        return ' "\\n" '.join(lines)


def _points(weight: float) -> str:
    return f"{weight:.4f}".rstrip("0").rstrip(".")


def cite(numbers: Sequence[int]) -> str:
    """Name past choices: "choice 1", "choices 1, 2 and 4"."""
    *most, last = [str(number) for number in numbers]
    return f"choices {', '.join(most)} and {last}" if most else f"choice {last}"


def _quoted(text: str) -> str:
    """A literal of a grammar."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"
