"""What an evaluation rests on: choices, statements, similar users, what was cut, what it warns of. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pgenrm_agent.chain.format import ChainFormat
from pgenrm_agent.language import writing_of
from pgenrm_agent.schema import (
    ClippedText,
    EvaluationRequest,
    Evidence,
    UserSignals,
    Writing,
)
from pgenrm_agent.wording import counted, plural

NAMED = 3
"""So many texts are named in a warning; how many more there are is counted."""


def shown_signals(
    request: EvaluationRequest, signals: UserSignals, chain_format: ChainFormat
) -> UserSignals:
    """Return what every prompt of an evaluation has room for, whichever candidates it holds.

    So a choice has one number in all chains.
    """
    texts = [request.candidates[place].text for place in request.usable]
    history, stated = chain_format.fitting(request.query, texts, signals.history, signals.stated)
    return signals.model_copy(update={"history": tuple(history), "stated": tuple(stated)})


def evidence_of(
    request: EvaluationRequest,
    signals: UserSignals,
    chain_format: ChainFormat,
    *,
    neighbors: int,
    asked_for: int,
    copies: int = 0,
) -> Evidence:
    """Return what chains of a format rest on.

    Args:
        request: What is judged.
        signals: What is known of the user, as it was selected for the prompts.
        chain_format: How prompts are written.
        neighbors: Similar users whose chains count.
        asked_for: How many past choices were to be selected at most.
        copies: Chains of the same prompt as another, sampled without chance.
    """
    known = signals.choices_known
    shown = shown_signals(request, signals, chain_format)
    judged = [request.candidates[place] for place in request.usable]
    request = request.model_copy(update={"candidates": tuple(judged)})
    clipped = tuple(_clipped(request, shown, chain_format))
    query_writing = writing_of(request.query)
    candidate_writings = {
        candidate.id: writing_of(candidate.text) for candidate in request.candidates
    }
    unknown = not (signals.history or signals.stated or known) and asked_for > 0
    warnings = [
        _nothing_known(request.user_id) if unknown else "",
        _copied(copies),
        _cut(clipped, chain_format),
        _left_out(signals, shown, chain_format),
        _groups(request, chain_format),
        _no_conversation(request, chain_format),
        _language(query_writing, candidate_writings, chain_format),
    ]
    return Evidence(
        choices=len(shown.history),
        choice_ids=tuple(pair.id for pair in shown.history),
        choices_known=None if known is None else max(known, len(signals.history)),
        statements=len(shown.stated),
        neighbors=neighbors,
        clipped=clipped,
        query_writing=query_writing,
        candidate_writings=candidate_writings,
        warnings=tuple(filter(None, warnings)),
    )


def evidence_line(user_id: str, evidence: Evidence) -> str:
    """Return in one line what an evaluation for a user rests on, and its warnings."""
    more = evidence.choices_known is not None and evidence.choices_known > evidence.choices
    choices = f"{evidence.choices} of {evidence.choices_known}" if more else str(evidence.choices)
    number = (evidence.choices_known or 0) if more else evidence.choices
    line = (
        f"judged by {choices} past {plural('choice', number)} and {evidence.statements}"
        f" {plural('statement', evidence.statements)} of {user_id!r}"
    )
    if evidence.neighbors:
        line += f", and by {evidence.neighbors} similar {plural('user', evidence.neighbors)}"
    return "; ".join([line, *evidence.warnings])


def _clipped(
    request: EvaluationRequest, signals: UserSignals, chain_format: ChainFormat
) -> Iterator[ClippedText]:
    """Return every text that a prompt cuts, the request's before the user's."""
    texts: list[tuple[str, Literal["query", "answer", "stated"], str]] = [
        ("query", "query", request.query),
        *((candidate.id, "answer", candidate.text) for candidate in request.candidates),
    ]
    for number, pair in enumerate(signals.history, start=1):
        texts += [
            (f"choice {number}, query", "query", pair.query),
            (f"choice {number}, chosen", "answer", pair.chosen),
            (f"choice {number}, rejected", "answer", pair.rejected),
        ]
    for number, statement in enumerate(signals.stated, start=1):
        texts.append((f"statement {number}", "stated", statement.text))
    for place, kind, text in texts:
        whole, shown = text.strip(), chain_format.beginning(kind, text)
        if shown != whole:
            kept = len(shown.removesuffix(" ..."))
            yield ClippedText(place=place, characters=len(whole), shown=kept)


def _nothing_known(user_id: str) -> str:
    return f"nothing is known of user {user_id!r}: is the name right?"


def _copied(copies: int) -> str:
    if not copies:
        return ""
    return (
        f"at temperature 0, {counted(copies, 'chain')} {'repeats' if copies == 1 else 'repeat'} what others"
        " say, so standard errors are too small: raise the temperature, or sample fewer chains"
    )


def _cut(clipped: Sequence[ClippedText], chain_format: ChainFormat) -> str:
    if not clipped:
        return ""
    named = [f"{text.place} ({text.shown:,} of {text.characters:,})" for text in clipped[:NAMED]]
    rest = len(clipped) - len(named)
    told = ", ".join(named) + (f" and {rest} more" if rest else "")
    return f"too long for format {chain_format.name}, so judged by the first characters: {told}"


def _left_out(known: UserSignals, shown: UserSignals, chain_format: ChainFormat) -> str:
    """What was recalled for the prompt and does not fit into it."""
    choices = len(known.history) - len(shown.history)
    statements = len(known.stated) - len(shown.stated)
    told = " and ".join(
        counted(count, noun)
        for count, noun in ((choices, "past choice"), (statements, "statement"))
        if count
    )
    if not told:
        return ""
    return f"left out, since a prompt of format {chain_format.name} has no room for more: {told}"


def _groups(request: EvaluationRequest, chain_format: ChainFormat) -> str:
    room, count = chain_format.max_candidates, len(request.candidates)
    if room is None or count <= room:
        return ""
    return (
        f"{count} candidates are more than a prompt of format {chain_format.name} holds ({room}), so"
        " they are judged in groups"
    )


def _no_conversation(request: EvaluationRequest, chain_format: ChainFormat) -> str:
    if chain_format.shows_conversation or not request.conversation:
        return ""
    return (
        f"format {chain_format.name} has no place for a conversation, so the query is judged alone"
    )


def _language(query: Writing, candidates: dict[str, Writing], chain_format: ChainFormat) -> str:
    """Warn of texts in another language than the format's model knows; the rule knows English only."""
    if chain_format.language != "English":
        return ""
    writings = {"query": query, **candidates}
    foreign = [place for place, writing in writings.items() if writing.language == "other"]
    if not foreign:
        return ""
    rest = len(foreign) - NAMED
    told = ", ".join(foreign[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
    return f"not in English, which is all that the model was trained on: {told}"
