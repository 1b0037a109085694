"""What an engine is: prompts in, samples out.

To add one, write a class with the methods of `Engine`, and give it a name in `engine_names` and in
`load_engine`; what it needs installed goes to `PACKAGES` beside that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model, WholeText
from pgenrm_agent.schema import Message

FinishReason = Literal["stop", "length", "filtered", "refused", "timeout", "failed"]
"""How a sample ended. Only after "stop" is its text whole."""


class Capabilities(Model):
    """What an engine can do, declared rather than guessed.

    continues: extends a partial answer (`Prompt.partial`).
    seeds: "exact": same prompt and seed give the same samples whatever else is in the batch;
        "per_batch": only when the whole batch is the same; "none": a seed is ignored.
    json_schema: holds an answer to `Prompt.json_schema`. A server is taken to, until it refuses.
    grammar: holds an answer to `Prompt.grammar`.
    """

    continues: bool
    seeds: Literal["exact", "per_batch", "none"]
    json_schema: bool = False
    grammar: bool = False


class Prompt(Model):
    """One conversation to answer n times. `partial` is an answer begun, to be continued.

    Sample j of a prompt is drawn with a seed derived from (seed, j).
    json_schema: what the answer, without what is thought before it, has to be an instance of. It
        goes with an empty `partial`.
    grammar: what is written behind `partial` is held to it: EBNF as xgrammar reads it, with `root`
        as its first rule. Not together with a JSON schema. An engine without
        `Capabilities.grammar` leaves it out of account.
    confidential: made of the words of somebody else than the user who is answered. An engine lets
        nothing of the prompt or its answer come to a callback, a tracer, a cache, a log or an error.
    """

    messages: tuple[Message, ...]
    partial: str = ""
    n: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    json_schema: Mapping[str, object] | None = None
    grammar: str | None = None
    confidential: bool = False

    @model_validator(mode="after")
    def _held_in_a_single_way(self) -> Self:
        if self.json_schema is not None and self.grammar is not None:
            raise ValueError("an answer is held to a JSON schema or to a grammar: pass one of both")
        return self


class SamplingParams(Model):
    """Shared by all prompts of a call. Completions do not include the stop string that ended them.

    max_tokens: new tokens a sample may take, what it thinks included.
    stop: no stop string ends a text while the model is still thinking.
    timeout_s: seconds after which samples that are not whole come back with finish_reason
        "timeout"; None waits as long as the engine does.
    """

    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] = 3072
    stop: tuple[str, ...] = ()
    timeout_s: Annotated[float, Field(gt=0)] | None = None


class Completion(Model):
    """One sample: the new text only, without `Prompt.partial`.

    reasoning: what a reasoning model thought before its answer, its marks left out. It is no part
        of `text` and never parsed.
    tokens: new tokens, those of the reasoning included.
    prompt_tokens: tokens read for this sample; samples that share one reading leave it to the first.
    detail: where there is no whole text, why, in the words of who knows ("the response was
        filtered"); else empty.
    """

    text: WholeText
    reasoning: WholeText = ""
    tokens: int
    prompt_tokens: int = 0
    finish_reason: FinishReason = "stop"
    detail: WholeText = ""


class SchemaRefused(ConfigurationError):
    """A server that was asked to hold an answer to a JSON schema cannot, in any of its ways.

    From then on the engine's `capabilities.json_schema` is False.
    """


@runtime_checkable
class Engine(Protocol):
    """A generative model behind two methods.

    `sample` returns one list per prompt, each with `prompt.n` completions, in order. A sample that
    fails is a completion with the finish_reason "filtered", "refused", "timeout" or "failed", beside
    those that did not; where every sample fails with the same error, that is raised: `EngineError`
    or one of its kinds, and `ConfigurationError` for a request the engine cannot do (such as a
    prompt longer than its context: what, where and what to do).

    Two attributes more tell what it asks, and may be left out:

    models: Folders or names of the model and then of its adapter. Their chain format is taken where none
        is asked for.
    source: A text that no other model, server or setting has. An `EvaluationCache` keeps an engine's
        evaluations under its name, its models with the date and size of their files, and this; where it
        is empty it keeps none.
    """

    @property
    def name(self) -> str:
        """Name the engine in results and errors."""

    @property
    def capabilities(self) -> Capabilities:
        """Say what it can do."""

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Sample every prompt; see the class."""

    async def aclose(self) -> None:
        """Free what the engine holds. Calling it again does nothing."""
