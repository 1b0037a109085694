"""Read an evaluation chain in prose: persona, rubric, marks and totals, from what models really write.

Only what the model wrote is read; the prompt never is. Marks and weights are read per criterion and
the totals are recomputed from them (paper Eq. 2: s = Extract(S)); the model's own totals are a second
reading, and the two have to agree. Nothing is guessed: a number that cannot be placed, that is in
doubt or out of range is left out and noted in `repairs`. docs/reference/chain-format.md lists what is repaired
and what is refused.

`sections` finds the parts of the text, `objects` the JSON object, `rubric` the criteria, `marks` the
marks by means of `numbers`; here they are put together, and compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pgenrm_agent.chain.agreement import check_winner, compare_readings
from pgenrm_agent.chain.marks import read_marks
from pgenrm_agent.chain.objects import read_totals, scores_object
from pgenrm_agent.chain.parsed import ParsedChain, complete_totals
from pgenrm_agent.chain.quotes import without_quotations
from pgenrm_agent.chain.response_names import winner_in
from pgenrm_agent.chain.rubric import breakdown_of, read_rubric
from pgenrm_agent.chain.sections import split_reasoning, split_sections
from pgenrm_agent.errors import ChainError
from pgenrm_agent.fields import whole_characters
from pgenrm_agent.schema import Persona

LONGEST_PROSE = 60_000

_NOTES = re.compile(r"\s{0,10}(?:\[|Pair \d|Tally:|Stated:|Strength:)")
_HEADING = re.compile(r"#{1,6}\s|(?:\*\*|__)[^*_]{1,60}(?:\*\*|__):?$")


def parse_chain(
    text: str, candidate_ids: Sequence[str], *, asks_totals: bool = True
) -> ParsedChain:
    """Read one chain.

    Args:
        text: what the model wrote.
        candidate_ids: ids in the order in which the prompt showed the candidates.
        asks_totals: whether the model was to work out totals. Where it was not, those that it writes
            are kept in `reported`, and count for nothing.

    Raises:
        ChainError: with reason "empty" (no text), "unfinished_reasoning" (the model thought and
            never answered), "no_scores" (nothing that looks like scores), "no_persona" (no analysis
            before the scores), "contradictory" (the model's totals, or the response that it calls the
            best one, are not what its marks come to) or "no_totals" (scores, but none that is readable,
            in range and of a candidate).
    """
    text = answer_in(whole_characters(text))
    if not text or text.isspace():
        raise ChainError("the model wrote nothing", reason="empty")
    sections = split_sections(text)
    if "scores" in sections.spans:
        text = text[: sections.spans["scores"][1]]
    scores = scores_object(text, sections.spans.get("scores", (0, 0))[0])
    if scores.begin < sections.spans.get("scores", (len(text), 0))[0]:
        # An object without a heading or marker before it: what precedes it is the analysis.
        sections = split_sections(text[: scores.begin])
    notes = dict.fromkeys(scores.notes)
    persona = _persona(sections.persona or "")
    rationale = without_quotations(scores.rationale)
    breakdown = breakdown_of(rationale)
    prose = ""
    if "scores" in sections.spans:
        prose = _own_words(text[sections.spans["scores"][0] : scores.begin])
    rubric, mended = read_rubric(sections.rubric, rationale, breakdown or prose)
    written = read_totals(scores.totals, candidate_ids)
    notes.update(dict.fromkeys((*mended, *written.notes)))
    marks: dict[str, tuple[float | None, ...]] = {}
    computed: dict[str, float] = {}
    if rubric is not None:
        checked = written.totals if asks_totals else {}
        reading = read_marks(breakdown, rubric.criteria, candidate_ids, checked, cut=scores.cut)
        if not reading.rows and prose:
            notes["marks_from_prose"] = None
            reading = read_marks(
                without_quotations(prose), rubric.criteria, candidate_ids, checked, cut=False
            )
            if not reading.rows:
                del notes["marks_from_prose"]
        marks = reading.rows
        notes.update(dict.fromkeys(reading.notes))
        if asks_totals:
            compare_readings(rubric.criteria, marks, written.totals)
        computed = complete_totals(rubric.criteria, marks)
        if len(computed) < len(marks):
            notes["mark_missing"] = None
    # One basis for all candidates of a chain, so that they stay comparable.
    from_marks = not asks_totals or (
        bool(computed)
        and (len(computed) >= len(written.totals) or not set(computed) <= set(written.totals))
    )
    if computed and not from_marks:
        notes["marks_incomplete"] = None
    totals = computed if from_marks else written.totals
    if not from_marks and written.off_scale is not None:
        raise ChainError(
            f"a total is {written.off_scale:g}, and the scale is 1 to 10: what the other totals mean is"
            " unknown, and there are no marks to tell; ask the model for totals from 1 to 10",
            reason="no_totals",
        )
    if not totals:
        raise ChainError(
            "the scores cannot be read: no candidate has a mark for every criterion, or a total from 1 to 10",
            reason="no_totals",
        )
    winner = winner_in(scores.verdicts, len(candidate_ids))
    check_winner(None if winner is None else candidate_ids[winner], totals)
    return ParsedChain(
        persona=persona,
        rubric=rubric,
        marks=marks,
        reported=written.totals,
        totals=totals,
        totals_from="marks" if from_marks else "reported",
        repairs=tuple(notes),
        missing=tuple(candidate_id for candidate_id in candidate_ids if candidate_id not in totals),
    )


def answer_in(text: str) -> str:
    """`text` without what a reasoning model thought before its answer.

    Raises ChainError "unfinished_reasoning" when it never came to an answer.
    """
    _, answer, finished = split_reasoning(text)
    if not finished:
        raise ChainError(
            "the model's reasoning never ends, so there is no answer: its tokens ran out, or it wrote"
            " a chain's end marker in it; turn its reasoning off or down, or allow more tokens"
            " (max_tokens in the chain format's format.json)",
            reason="unfinished_reasoning",
        )
    return answer


def read_persona(text: str) -> str | None:
    """The persona that a chain, whole or only begun, opens with; None where there is none.

    Working notes by themselves are none: whoever is compared by their persona would be compared by them.
    """
    return _prose(split_sections(text).persona or "") or None


def _persona(section: str) -> Persona:
    """The prose of the section; its working notes only where there is nothing else."""
    words = _prose(section) or " ".join(section.split())
    if not words:
        raise ChainError(
            "there is no persona: nothing is written before the criteria and scores",
            reason="no_persona",
        )
    return Persona(text=words)


def _prose(section: str) -> str:
    lines = (line.strip() for line in section.splitlines())
    return " ".join(
        line for line in lines if line and not _NOTES.match(line) and not _HEADING.match(line)
    )


def _own_words(section: str) -> str:
    """What precedes the object, without working notes."""
    lines = section[-LONGEST_PROSE:].splitlines()
    return "\n".join(line for line in lines if not _NOTES.match(line))
