"""Samples of one prompt from vLLM: in one request, or thinking and answer in two.

vLLM applies stop strings and grammars to all that a model writes. So where there are any and the
model thinks first, what it thinks is one request, which its closing mark ends, and the answer is
another, which goes on from there. vLLM keeps the keys and values in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pgenrm_agent.background_loop import all_or_cancel
from pgenrm_agent.engines.grammar import grammar_of
from pgenrm_agent.engines.openai import first_seed
from pgenrm_agent.engines.outcomes import TIME_OVER, read_once
from pgenrm_agent.engines.prompting import EncodedPrompt
from pgenrm_agent.engines.protocol import Completion, FinishReason, Prompt, SamplingParams
from pgenrm_agent.engines.reasoning import (
    NO_ANSWER,
    OPENING_MARKS,
    ThinkingTokens,
    closing,
    read_completion,
    read_held,
)
from pgenrm_agent.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.lora.request import LoRARequest
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

GREEDY_BELOW = 1e-5
"""vLLM takes lower temperatures for 0, and then only one sample a request."""
ENDS: dict[str, Literal["stop", "length", "timeout"]] = {
    "stop": "stop",
    "length": "length",
    "abort": "timeout",
}
ABORT_AGAIN_S = 0.05


@dataclass(frozen=True)
class _Piece:
    """What one request of vLLM wrote. `closed`: a mark ended the thinking."""

    tokens: list[int]
    text: str
    ended: Literal["stop", "length", "timeout"]
    closed: bool = False


@dataclass(frozen=True)
class _Call:
    """One prompt's sampling. grammar: what its answers are held to."""

    prompt: Prompt
    encoded: EncodedPrompt
    params: SamplingParams
    deadline: float | None
    grammar: str | None

    @property
    def over(self) -> str:
        return TIME_OVER.format(seconds=self.params.timeout_s or 0)


class VLLMSampler:
    """Samples prompts from a running vLLM. context: most tokens of a prompt and its answer."""

    def __init__(
        self,
        engine: AsyncLLM,
        tokenizer: PreTrainedTokenizerBase,
        context: int,
        adapter: LoRARequest | None,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._context = context
        self._adapter = adapter
        self._marks = ThinkingTokens.of(tokenizer)

    async def sample(
        self, prompt: Prompt, encoded: EncodedPrompt, params: SamplingParams, deadline: float | None
    ) -> list[Completion]:
        """Return a prompt's samples. deadline: by the running loop's clock.

        Raises what vLLM raises, and ConfigurationError for a schema that cannot be held to.
        """
        # In a thread: the loop has every other sample to serve.
        grammar = await asyncio.to_thread(grammar_of, prompt)
        call = _Call(prompt, encoded, params, deadline, grammar)
        count = 1 if params.temperature < GREEDY_BELOW else prompt.n
        if not (params.stop or grammar):
            samples = await self._whole(call, count)
        elif encoded.opened:
            samples = await all_or_cancel([self._thinking(call, number) for number in range(count)])
        elif self._marks.opening and not prompt.partial:
            samples = await self._hybrid(call, count)
        else:
            samples = await self._whole(call, count)
        return read_once(samples if count == prompt.n else samples * prompt.n)

    # --- ways to sample ---

    async def _whole(self, call: _Call, count: int) -> list[Completion]:
        """All samples in one request, their thinking split off afterwards."""
        pieces = await self._request(
            call, call.encoded.ids, count=count, seed=first_seed(call.prompt.seed), answer=True
        )
        return [self._plain(call, piece) for piece in pieces]

    async def _hybrid(self, call: _Call, count: int) -> list[Completion]:
        """Of a model that may think or not: its first token tells."""
        seed = first_seed(call.prompt.seed)
        first = await self._request(call, call.encoded.ids, count=count, seed=seed, most=1)
        thinks = [bool(set(piece.tokens) & self._marks.opening.keys()) for piece in first]
        if not any(thinks):
            return await self._whole(call, count)
        return await all_or_cancel(
            [
                self._thinking(call, number) if thinks[number] else self._single(call, number)
                for number in range(count)
            ]
        )

    async def _single(self, call: _Call, number: int) -> Completion:
        [piece] = await self._request(
            call,
            call.encoded.ids,
            count=1,
            seed=first_seed(call.prompt.seed) + number,
            answer=True,
        )
        return self._plain(call, piece)

    async def _thinking(self, call: _Call, number: int) -> Completion:
        """One sample whose thinking is a request of its own."""
        seed = first_seed(call.prompt.seed) + number
        ids, opened = call.encoded.ids, call.encoded.opened
        [thought] = await self._request(call, ids, count=1, seed=seed)
        spent = len(thought.tokens)
        text = self._marks.decode(thought.tokens, self._tokenizer)
        left = min(call.params.max_tokens - spent, self._context - len(ids) - spent)
        if not thought.closed or left < 1:
            ended: FinishReason = "length" if thought.closed else thought.ended
            detail = call.over if ended == "timeout" else ""
            if call.grammar and ended == "stop":
                ended, detail = "failed", NO_ANSWER
            return read_completion(
                text,
                tokens=spent,
                prompt_tokens=len(ids),
                ended=ended,
                opened=opened,
                stop=call.params.stop,
                detail=detail,
            )
        [answer] = await self._request(
            call,
            [*ids, *thought.tokens],
            count=1,
            seed=first_seed(seed),
            most=left,
            answer=True,
        )
        return read_held(
            answer.text.lstrip(),
            thought=text,
            tokens=spent + len(answer.tokens),
            prompt_tokens=len(ids),
            ended=answer.ended,
            stop=call.params.stop,
            detail=call.over if answer.ended == "timeout" else "",
        )

    def _plain(self, call: _Call, piece: _Piece) -> Completion:
        detail = call.over if piece.ended == "timeout" else ""
        count, prompt_tokens = len(piece.tokens), len(call.encoded.ids)
        if call.grammar:
            return read_held(
                piece.text,
                thought="",
                tokens=count,
                prompt_tokens=prompt_tokens,
                ended=piece.ended,
                stop=call.params.stop,
                detail=detail,
            )
        special = bool(self._marks.special)
        return read_completion(
            self._marks.decode(piece.tokens, self._tokenizer) if special else piece.text,
            tokens=count,
            prompt_tokens=prompt_tokens,
            ended=piece.ended,
            opened=call.encoded.opened,
            stop=call.params.stop,
            detail=detail,
        )

    # --- requests ---

    async def _request(
        self,
        call: _Call,
        ids: list[int],
        *,
        count: int,
        seed: int,
        most: int | None = None,
        answer: bool = False,
    ) -> list[_Piece]:
        """Return what vLLM writes after `ids`; sample j of `count` has the seed `seed + j`.

        answer: apply stop strings and grammar. Otherwise a mark that ends thinking ends it.
        """
        from vllm import SamplingParams as VLLMParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        if call.deadline is not None and asyncio.get_running_loop().time() >= call.deadline:
            return [_Piece([], "", "timeout")] * count
        params, grammar = call.params, call.grammar if answer else None
        stop = list(params.stop) if answer else [closing(mark) for mark in OPENING_MARKS]
        wanted = VLLMParams(
            n=count,
            temperature=params.temperature,
            top_p=params.top_p,
            max_tokens=min(most or params.max_tokens, self._context - len(ids)),
            stop=stop or None,
            stop_token_ids=None if answer else sorted(self._marks.closing) or None,
            include_stop_str_in_output=not answer,
            seed=seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(grammar=grammar) if grammar else None,
        )
        written: RequestOutput | None = None
        request_id = uuid.uuid4().hex
        async with self._aborted_at(call.deadline, request_id):
            # Canceling this task ends the generator, which aborts the request.
            async for output in self._engine.generate(
                tokens_input(ids), wanted, request_id=request_id, lora_request=self._adapter
            ):
                written = output
        samples = [] if written is None else sorted(written.outputs, key=_index)
        if len(samples) != count:
            raise EngineError(f"vLLM gave {len(samples)} of {count} samples")
        return [self._piece(sample, answer) for sample in samples]

    def _piece(self, sample: CompletionOutput, answer: bool) -> _Piece:
        reason, mark = str(sample.finish_reason), sample.stop_reason
        if reason not in ENDS:
            raise EngineError(f"vLLM ended a sample with {reason!r}")
        closed = not answer and (isinstance(mark, str) or mark in self._marks.closing)
        return _Piece(list(sample.token_ids), str(sample.text), ENDS[reason], closed)

    @contextlib.asynccontextmanager
    async def _aborted_at(self, deadline: float | None, request_id: str) -> AsyncIterator[None]:
        """Let vLLM end a request at the deadline, which then comes back with what it has written."""
        if deadline is None:
            yield
            return
        alarm = asyncio.create_task(self._abort_at(deadline, request_id))
        try:
            yield
        finally:
            alarm.cancel()

    async def _abort_at(self, deadline: float, request_id: str) -> None:
        await asyncio.sleep(deadline - asyncio.get_running_loop().time())
        while True:  # Before vLLM has taken the request in, there is nothing to abort.
            await self._engine.abort(request_id)
            await asyncio.sleep(ABORT_AGAIN_S)


def _index(sample: CompletionOutput) -> int:
    return int(sample.index)
