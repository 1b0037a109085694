"""A thumbs up or down for one answer, as choices between it and the others of its evaluation."""

from __future__ import annotations

import hashlib
import json

from pgenrm_agent.arguments import yes_or_no
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Evaluation, PreferencePair

MOST_PAIRS = 3
"""So many choices at most come of one thumb: as many as a prompt shows."""


def feedback_pairs(evaluation: Evaluation, candidate_id: str, liked: bool) -> list[PreferencePair]:
    """Return the choices that a thumb stands for, between a candidate and the best others.

    Up or down, they are between the same texts and have the same ids, so that a thumb takes the place
    of the one before it. Where another evaluation of the same answers has another order, and there are
    more than four, the others are other ones.

    Raises:
        ConfigurationError: There is no such candidate, or no other one with another text.
    """
    liked = yes_or_no(liked, "liked")
    request = evaluation.request
    evaluation.score_of(candidate_id)  # refuses an id that is none
    texts = {candidate.id: candidate.text for candidate in request.candidates}
    judged = texts[candidate_id]
    others = [
        texts[other_id]
        for other_id in evaluation.ranking
        if other_id != candidate_id and texts[other_id].strip() != judged.strip()
    ]
    others = list(dict.fromkeys(others))[:MOST_PAIRS]
    if not others:
        raise ConfigurationError(
            f"candidate {candidate_id!r} is the only one that was scored, or the others are the same"
            " text: a thumb says something where there is another answer to compare with"
        )
    return [
        PreferencePair(
            id=_id(evaluation, judged, text),
            query=request.query,
            conversation=request.conversation,
            chosen=judged if liked else text,
            rejected=text if liked else judged,
        )
        for text in others
    ]


def _id(evaluation: Evaluation, *texts: str) -> str:
    request = evaluation.request
    turns = [turn.model_dump() for turn in request.conversation]
    content = json.dumps([request.query, turns, sorted(texts)])
    return f"feedback-{hashlib.sha256(content.encode()).hexdigest()[:32]}"
