"""What a build of prototypes fits on: personas and the choices behind them, as vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pgenrm_agent.embedding import Embedder, Vectors, vectors_of
from pgenrm_agent.graphs.learning_jobs import OpenPersona
from pgenrm_agent.prototypes.fitting import Choices
from pgenrm_agent.prototypes.refinement import Samples
from pgenrm_agent.schema import PreferencePair


def embedded_choices(
    personas: Sequence[OpenPersona],
    pairs: Mapping[str, Sequence[PreferencePair]],
    embedder: Embedder,
    *,
    history: int,
    on_progress: Callable[[int, int], None],
) -> Choices:
    """Return one row per persona; each text is embedded once.

    pairs: each user's choices, oldest first. history: how many others a row has at most.
    """
    texts = [persona.text for persona in personas]
    for own in pairs.values():
        for pair in own:
            texts += (pair.query, pair.chosen, pair.rejected)
    vectors = vectors_of(embedder, texts, on_progress)

    longest = max(1, min(history, max(len(own) - 1 for own in pairs.values())))
    shape = len(personas), longest, len(vectors[texts[0]])
    past_query = np.zeros(shape, dtype=np.float32)
    past_difference = np.zeros(shape, dtype=np.float32)
    past = np.zeros(shape[:2], dtype=bool)
    asked: list[PreferencePair] = []
    for row, persona in enumerate(personas):
        others = {pair.id: pair for pair in pairs[persona.user_id]}
        asked.append(others.pop(persona.pair_id))
        for step, pair in enumerate(list(others.values())[-longest:]):
            past_query[row, step] = vectors[pair.query]
            past_difference[row, step] = vectors[pair.chosen] - vectors[pair.rejected]
            past[row, step] = True

    def stacked(wanted: Sequence[str]) -> Vectors:
        return np.stack([vectors[text] for text in wanted])

    written = tuple(persona.text for persona in personas)
    numbers = {user: number for number, user in enumerate(pairs)}
    samples = Samples(
        persona=stacked(written),
        query=stacked([pair.query for pair in asked]),
        chosen=stacked([pair.chosen for pair in asked]),
        rejected=stacked([pair.rejected for pair in asked]),
        past_query=past_query,
        past_difference=past_difference,
        past=past,
    )
    return Choices(
        samples,
        written,
        users=tuple(numbers[persona.user_id] for persona in personas),
    )
