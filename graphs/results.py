"""What comes of a run: drafts read, failures told, and what is left out of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pgenrm_agent.aggregation import count_reasons
from pgenrm_agent.chain import ParsedChain, answer_in, parse_chain
from pgenrm_agent.errors import ChainError, EngineTimeout, PGenRMError
from pgenrm_agent.graphs.state import Draft, EvaluationContext
from pgenrm_agent.model_files import BUNDLED_MODEL
from pgenrm_agent.schema import (
    ChainFailure,
    EvaluationChain,
    EvaluationRequest,
    Persona,
    Rubric,
    Usage,
)

WITHHELD = "(withheld: what is written of a similar person is not for others)"

# From so many texts on, none that can be read is no accident: a model that cannot write the format
# is named then, rather than sampled to its token limit again and again.
TELLING = 8
# How a sample ends that says nothing about what the model can write.
INTERRUPTED = frozenset({"filtered", "refused", "timeout", "failed"})
INCOMPLETE = frozenset({"missing_candidates", "missing_marks"})


def read_draft(draft: Draft, request: EvaluationRequest) -> ParsedChain | ChainError:
    """Return what the chain says, or why it cannot be used."""
    if draft["status"] == "failed":
        words = draft["problem"] or "nothing was written"
        return ChainError(words, reason=draft["finish"])
    if draft["status"] == "truncated":
        cut = draft["problem"] or f"the text ends at the limit of {draft['tokens']} tokens"
        try:
            answer_in(draft["text"])
        except ChainError as error:
            return ChainError(f"{cut}: {error}", reason=error.reason)
        return ChainError(cut, reason="truncated")
    try:
        parsed = parse_chain(
            draft["text"],
            tuple(request.candidates[i].id for i in draft["order"]),
            asks_totals=draft["asks_totals"],
        )
    except ChainError as error:
        return error
    return parsed.incomplete or parsed


def cannot_write(reasons: Sequence[str | None]) -> bool:
    """Return whether a model does not write what it is asked for.

    reasons: why each of its texts cannot be used; None for one that can. A text that can be read, and
    lacks a mark, tells that it does write it.
    """
    return len(reasons) >= TELLING and all(
        reason is not None and reason not in INTERRUPTED | INCOMPLETE for reason in reasons
    )


def not_scored(
    failures: Sequence[ChainFailure], context: EvaluationContext, usage: Usage
) -> PGenRMError:
    """Return the error of an evaluation of which no chain can be used, and what it has cost."""
    reasons = Counter(failure.reason for failure in failures)
    shown = [
        failure.message
        for failure in failures
        if failure.level == "individual" or context.show_neighbors
    ]
    last = shown[-1] if shown else WITHHELD if failures else "nothing was sampled"
    told = f"({count_reasons(failures)}; last: {last})"
    name = context.engine.name if context.engine else "the bundled model"
    if reasons and set(reasons) == {"timeout"}:
        return EngineTimeout(
            f"not scored: {name} had written no chain when the time was over {told}: allow more "
            "time, or ask for fewer chains (scaling.individual, scaling.prototype)"
        )
    advice = "use another model or chain format, or raise scaling.resamples"
    if not INTERRUPTED & set(reasons):
        advice = (
            f"{name} may not be able to write chains in this format: use another model, or another "
            "chain_format"
        )
    return ChainError(
        f"not scored: none of {len(failures)} texts sampled from {name} is an evaluation chain "
        f"{told}; {advice}",
        reason="no_usable_chain",
        failures=reasons,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def usage_of(counted: Mapping[str, int], context: EvaluationContext) -> Usage:
    """Return what was counted, with the model and, where prices are given, the money."""
    prices = context.prices
    return Usage(
        model=context.engine.name if context.engine else f"transformers:{BUNDLED_MODEL}",
        cost=prices and prices.cost(counted["prompt_tokens"], counted["completion_tokens"]),
        **counted,
    )


def reason_of(content: ParsedChain | ChainError) -> str | None:
    """Return why a text cannot be used, in a word; None for a chain."""
    return content.reason if isinstance(content, ChainError) else None


def failure_of(draft: Draft, error: ChainError, context: EvaluationContext) -> ChainFailure:
    """Return why a draft cannot be used; of a similar user's, in a word, unless these are shown."""
    shown = draft["level"] == "individual" or context.show_neighbors
    return ChainFailure(
        level=draft["level"],
        signals_of=draft["signals_of"],
        reason=error.reason,
        message=str(error) if shown else WITHHELD,
        text=draft["text"] if shown else "",
        tokens=draft["tokens"],
        seed=draft["seed"],
        attempt=draft["attempt"],
    )


def chain_of(draft: Draft, content: ParsedChain) -> EvaluationChain:
    """Return the chain that a draft became."""
    return EvaluationChain(
        level=draft["level"],
        signals_of=draft["signals_of"],
        order=tuple(draft["order"]),
        notes=content.notes,
        persona=content.persona,
        rubric=content.rubric,
        marks=content.marks,
        reported=content.reported,
        totals=content.totals,
        totals_from=content.totals_from,
        reasons=content.reasons,
        reasoning=draft["reasoning"],
        repairs=content.repairs,
        text=draft["text"],
        tokens=draft["tokens"],
        seed=draft["seed"],
    )


def withheld(chain: EvaluationChain) -> EvaluationChain:
    """Leave out what was written of somebody else; marks and weights stay, so that totals add up.

    The names of criteria are such texts, too: "Comfort after her divorce" tells of a life.
    """
    if chain.level == "individual":
        return chain
    rubric = chain.rubric and Rubric(
        criteria=tuple(
            criterion.model_copy(update={"name": f"criterion {number}", "reason": ""})
            for number, criterion in enumerate(chain.rubric.criteria, start=1)
        )
    )
    return chain.model_copy(
        update={
            "notes": "",
            "persona": Persona(text=WITHHELD),
            "rubric": rubric,
            "reasons": {},
            "reasoning": "",
            "repairs": (),
            "text": "",
        }
    )


def withheld_failure(failure: ChainFailure) -> ChainFailure:
    """Leave out what was written of somebody else."""
    if failure.level == "individual":
        return failure
    return failure.model_copy(update={"text": "", "message": WITHHELD})
