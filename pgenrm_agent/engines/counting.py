"""An engine that samples nothing: it counts what it is asked, for an estimate of what that costs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pgenrm_agent.costs import Outline, tokens_in
from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams

PERSONA = (
    "Someone who knows the subject a little, wants an answer that they can use at once, and minds "
    "whether it is clear, complete and written for them rather than for everybody."
)


class CountingEngine:
    """Answers every prompt with a persona, the beginning of a chain, and counts.

    What it counts is what the engine of this name would be asked, as far as that is known before it
    is opened: a server is taken to hold answers to a JSON schema, and not to continue begun ones.

    Args:
        engine: The engine's name; None for "transformers".
        max_tokens: New tokens that it lets a sample take, in place of what a call asks for.

    Attributes:
        outline: What was asked since `restart`.
    """

    def __init__(self, engine: str | None, *, max_tokens: int | None = None) -> None:
        self._capabilities = Capabilities(
            continues=engine != "openai", seeds="exact", json_schema=True
        )
        self._max_tokens = max_tokens
        self._personas = 0
        self.outline = Outline()

    @property
    def name(self) -> str:
        """Return "counting"."""
        return "counting"

    @property
    def capabilities(self) -> Capabilities:
        """What the engine is taken to be able to do."""
        return self._capabilities

    def restart(self) -> None:
        """Count from nothing."""
        self.outline = Outline()

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Count, and answer."""
        self.outline.calls += 1
        for prompt in prompts:
            texts = [message.content for message in prompt.messages]
            read = tokens_in([*texts, prompt.partial] if prompt.partial else texts)
            self.outline.shared += read
            self.outline.unshared += read * prompt.n
            begun = any(message.role == "assistant" for message in prompt.messages)
            if not (begun or prompt.partial):  # else its limit is that of a chain counted already
                self.outline.chains += prompt.n
                self.outline.limit += (self._max_tokens or params.max_tokens) * prompt.n
        return [[self._answer(prompt) for _ in range(prompt.n)] for prompt in prompts]

    async def aclose(self) -> None:
        """Do nothing: there is nothing to free."""

    def _answer(self, prompt: Prompt) -> Completion:
        # No two are alike, as with a real model: what goes on from each is read on its own.
        self._personas += 1
        persona = f"{PERSONA} {self._personas}."
        text = json.dumps({"persona": persona})
        if prompt.json_schema is None:
            text = f"### Persona\n{persona}"
        return Completion(text=text, tokens=tokens_in([text]))
