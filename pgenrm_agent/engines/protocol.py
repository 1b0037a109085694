"""What an engine is: prompts in, samples out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import Field

from pgenrm_agent.schema import Message, Model

__all__ = ["Capabilities", "Completion", "Engine", "Prompt", "SamplingParams"]


class Capabilities(Model):
    """What an engine can do, declared rather than guessed.

    continues: extends a partial answer (`Prompt.partial`).
    seeds: "exact": same prompt and seed give the same samples whatever else is in the batch;
        "per_batch": only when the whole batch is the same; "none": a seed is ignored.
    grammar: can constrain the output to a grammar.
    """

    continues: bool
    seeds: Literal["exact", "per_batch", "none"]
    grammar: bool = False


class Prompt(Model):
    """One conversation to answer n times. `partial` is an answer begun, to be continued.

    Sample j of a prompt is drawn with a seed derived from (seed, j).
    """

    messages: tuple[Message, ...]
    partial: str = ""
    n: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0)] = 0


class SamplingParams(Model):
    """Shared by all prompts of a call. Completions do not include the stop string that ended them."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] = 3072
    stop: tuple[str, ...] = ()


class Completion(Model):
    """One sample: the new text only, without `Prompt.partial`."""

    text: str
    tokens: int
    prompt_tokens: int = 0
    finish_reason: Literal["stop", "length"] = "stop"


@runtime_checkable
class Engine(Protocol):
    """A generative model behind two methods.

    `sample` returns one list per prompt, each with `prompt.n` completions, in order. It raises
    `EngineError` or one of its kinds, and `ConfigurationError` for a request the engine cannot do
    (such as a prompt longer than its context: what, where and what to do).
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]: ...

    async def aclose(self) -> None: ...
