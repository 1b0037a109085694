"""What failed and what did not, part for part: a prompt that fails is that prompt's samples."""

from __future__ import annotations

from collections.abc import Sequence

from pgenrm_agent.engines.protocol import Completion, FinishReason, Prompt
from pgenrm_agent.errors import PGenRMError

TIME_OVER = "it was not whole when the {seconds:g} s were over that it was given"


def part_for_part(
    prompts: Sequence[Prompt], outcomes: Sequence[list[Completion] | PGenRMError]
) -> list[list[Completion]]:
    """Return the samples by prompt, those of a prompt that failed with the error's words.

    Raises the first error where every prompt failed.
    """
    errors = [outcome for outcome in outcomes if isinstance(outcome, PGenRMError)]
    if errors and len(errors) == len(outcomes):
        raise errors[0]
    return [
        failed_samples(prompt.n, str(outcome)) if isinstance(outcome, PGenRMError) else outcome
        for prompt, outcome in zip(prompts, outcomes, strict=True)
    ]


def read_once(samples: Sequence[Completion]) -> list[Completion]:
    """Return samples of one reading of their prompt: its tokens count with the first of them."""
    return [
        sample.model_copy(update={"prompt_tokens": 0}) if number else sample
        for number, sample in enumerate(samples)
    ]


def failed_samples(
    count: int, detail: str, finish_reason: FinishReason = "failed"
) -> list[Completion]:
    """Return that many samples without a text."""
    return [Completion(text="", tokens=0, finish_reason=finish_reason, detail=detail)] * count
