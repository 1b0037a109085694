"""The transformers engine: any full-attention causal model, in this process, on CPU or GPU.

All samples of a prompt share its key-value cache, and requests that wait at the same time are
written in one batch, whichever task or event loop they come from. Each sample is drawn from its own
seed, so it depends on its prompt and seed alone, up to float rounding: other rows in a batch can
change a logit in its last bits, which matters only where two tokens are equal to those bits.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from pgenrm_agent.engines.identity import identity
from pgenrm_agent.engines.outcomes import TIME_OVER, failed_samples, part_for_part
from pgenrm_agent.engines.prompting import EncodedPrompt, PromptEncoder
from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.engines.threads import Threads, choose_threads, computing_with
from pgenrm_agent.engines.transformers_loading import end_tokens, load_model
from pgenrm_agent.errors import ConfigurationError, EngineError, EngineUnavailable, PGenRMError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from xgrammar import GrammarMatcher

    from pgenrm_agent.engines.decoding import Work
    from pgenrm_agent.engines.rows import SampleRow

__all__ = ["TransformersEngine"]

LINGER_S = 0.002
"""How long a batch waits for requests that are about to arrive."""
PROBE_ROWS = 12
"""Samples written at once to see how many threads pay; an evaluation has as many chains by default."""


@dataclass(frozen=True)
class _Asked:
    """A prompt, ready to be written."""

    prompt: Prompt
    encoded: EncodedPrompt
    grammar: GrammarMatcher | None


@dataclass(eq=False)
class _Job:
    asked: Sequence[_Asked]
    params: SamplingParams
    answer: Future[list[list[Completion]]]
    written: list[SampleRow] = field(default_factory=list)
    abandoned: bool = False

    @property
    def rows(self) -> int:
        return sum(asked.prompt.n for asked in self.asked)


class TransformersEngine:
    """A causal language model through Hugging Face transformers.

    model: folder, hub name, or a loaded model (then `tokenizer` is needed). A loaded one is used as it
        is, and changed: its attention is this engine's from then on, and it is in evaluation mode.
    device: "cpu", "cuda", ...; None takes a GPU where there is one. A loaded model stays where it is.
    dtype: a torch dtype's name; None means bfloat16 on a GPU and float32 on a CPU. A loaded model keeps
        its own.
    adapter: folder or hub name of a PEFT adapter to apply.
    max_batch: most samples written at once; more wait.
    threads: how many threads compute on a CPU. None keeps what OMP_NUM_THREADS, MKL_NUM_THREADS or an
        earlier torch.set_num_threads say; where they say nothing, a few steps of a model of up to 300
        million parameters are timed, and as many threads taken as pay. torch has one number for the
        whole process: it is set while the engine samples, and restored afterwards.

    An answer is held to a JSON schema or grammar by xgrammar, from its first token on, and what they
    leave no choice of is written without asking the model; where the model thinks
    first (its template opens the thinking, or its first token does), from the end of that on. A model
    that spells its opening mark in several tokens does not get to think before such an answer.

    Raises:
        ConfigurationError: there is no such device or dtype.
        EngineUnavailable: the model or adapter cannot be loaded, or is of a kind this engine does
            not sample from: with sliding-window attention, or with code of its own for attention
            (Falcon, BLOOM, GPT-J). Use the vLLM engine for these.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        device: str | None = None,
        dtype: str | None = None,
        adapter: str | Path | None = None,
        max_batch: int = 128,
        threads: int | None = None,
    ) -> None:
        if max_batch < 1:
            raise ConfigurationError(f"max_batch is {max_batch}: pass at least 1")
        self._model, self._tokenizer, self._label, self._opened = load_model(
            model, tokenizer, device, dtype, adapter
        )
        self._is_handed_over = not isinstance(model, (str, Path))
        from pgenrm_agent.engines.decoding import Work
        from pgenrm_agent.engines.rows import RowReader

        self._max_batch = max_batch
        config = self._model.config.get_text_config(decoder=True)
        self._ends = end_tokens(self._model, self._tokenizer)
        self._encoder = PromptEncoder(
            self._tokenizer,
            owner=self.name,
            context=int(getattr(config, "max_position_embeddings", None) or 2**31),
            remedy="use a model with a longer context",
        )
        self._reader = RowReader(self._tokenizer, config.vocab_size, self._ends)
        self._done = Work()
        self._threads = None
        if self._model.device.type == "cpu":
            self._threads = choose_threads(threads, self._model.num_parameters(), self._probe)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._left_over: _Job | None = None
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._closed = False
        self._process = os.getpid()

    @property
    def name(self) -> str:
        """Name the engine in results and errors."""
        return f"transformers:{self._label}"

    @property
    def models(self) -> tuple[str, ...]:
        """What was opened: absolute folder or hub name of the model, then of the adapter."""
        return self._opened

    @property
    def source(self) -> str:
        """What was opened, and as what dtype.

        Empty for a model that was handed over loaded: nothing tells it from others.
        """
        return "" if self._is_handed_over else identity(*self._opened, self._model.dtype)

    @property
    def threads(self) -> Threads | None:
        """With how many threads it computes, and why; None on a GPU."""
        return self._threads

    @property
    def work(self) -> Work:
        """How much it has done: steps of the model, and tokens drawn and written."""
        return self._done

    @property
    def capabilities(self) -> Capabilities:
        """Say what it can do."""
        return Capabilities(continues=True, seeds="exact", json_schema=True, grammar=True)

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Sample every prompt n times; see `Engine`.

        Raises:
            ConfigurationError: every prompt leaves no room in the model's context, or cannot be held
                to its schema, or rendered by the model's chat template.
            EngineUnavailable: the engine is closed.
            EngineError: it was made in another process, or sampling failed.
        """
        if not prompts:
            return []
        self._refuse_unusable()
        started = time.monotonic()
        outcomes = await asyncio.to_thread(lambda: [self._prepare(prompt) for prompt in prompts])
        asked = [outcome for outcome in outcomes if isinstance(outcome, _Asked)]
        samples: Iterator[list[Completion]] = iter(())
        if asked:
            deadline = None if params.timeout_s is None else started + params.timeout_s
            samples = iter(await self._written(_Job(asked, params, Future()), deadline))
        return part_for_part(
            prompts,
            [next(samples) if isinstance(outcome, _Asked) else outcome for outcome in outcomes],
        )

    async def _written(self, job: _Job, deadline: float | None) -> list[list[Completion]]:
        """Hand a job to the worker, and wait for it until the deadline (of `time.monotonic`)."""
        with self._lock:
            self._refuse_unusable()
            if self._worker is None:
                self._worker = threading.Thread(
                    target=self._work, name="pgenrm-sampling", daemon=True
                )
                self._worker.start()
            self._jobs.put(job)
        try:
            left = None if deadline is None else deadline - time.monotonic()
            async with asyncio.timeout(left):
                return await asyncio.wrap_future(job.answer)
        except TimeoutError:
            return self._completions(job)
        finally:
            # Nobody waits for it any more: rows that are being written end with their next token.
            job.abandoned = True
            for row in job.written:
                row.limit = 0

    async def aclose(self) -> None:
        """Finish what waits, then stop. Calling it again does nothing."""
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
            if worker is not None:
                self._jobs.put(None)
        if worker is not None:
            await asyncio.to_thread(worker.join)

    # --- prompts ---

    def _refuse_unusable(self) -> None:
        if os.getpid() != self._process:
            raise EngineError(
                f"{self.name} was made in process {self._process} and cannot be used in its fork"
                f" {os.getpid()}: make an engine in each process"
            )
        if self._closed:
            raise EngineUnavailable(f"{self.name} is closed: make another one")

    def _prepare(self, prompt: Prompt) -> _Asked | PGenRMError:
        try:
            return _Asked(prompt, self._encoder.encode(prompt), self._reader.matcher(prompt))
        except ConfigurationError as error:
            return error

    # --- the worker thread ---

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            batch = self._collect(job)
            running = [job for job in batch if job.answer.set_running_or_notify_cancel()]
            if not running:
                continue
            failed: Exception | None = None
            try:
                self._write(running)
            except Exception as error:
                failed = error
            for job in running:
                self._hand_back(job, failed)

    def _hand_back(self, job: _Job, failed: Exception | None) -> None:
        """Give a job its samples. Nothing may end the thread: whoever asks later would wait forever."""
        try:
            if failed is not None:
                raise failed
            job.answer.set_result(self._completions(job))
        except Exception as error:
            wrapped = EngineError(f"{self.name} failed while sampling: {error}")
            wrapped.__cause__ = error
            job.answer.set_exception(wrapped)

    def _next_job(self) -> _Job | None:
        job, self._left_over = self._left_over, None
        return job if job is not None else self._jobs.get()

    def _collect(self, first: _Job) -> list[_Job]:
        """The job and those waiting behind it that go into the same batch."""
        batch, rows = [first], first.rows
        deadline = time.monotonic() + LINGER_S
        while rows < self._max_batch:
            try:
                job = self._jobs.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            if not _alike(job.params, first.params) or rows + job.rows > self._max_batch:
                self._left_over = job
                break
            batch.append(job)
            rows += job.rows
        return batch

    def _write(self, jobs: Sequence[_Job]) -> None:
        params = jobs[0].params
        prompts: dict[tuple[int, ...], int] = {}
        rows: list[SampleRow] = []
        for job in jobs:
            for asked in job.asked:
                place = prompts.setdefault(tuple(asked.encoded.ids), len(prompts))
                limit = min(params.max_tokens, self._encoder.context - len(asked.encoded.ids))
                for number in range(asked.prompt.n):
                    noise = np.random.Generator(np.random.Philox(key=[asked.prompt.seed, number]))
                    row = self._reader.begin(
                        place,
                        noise,
                        limit,
                        opened=asked.encoded.opened,
                        grammar=asked.grammar,
                        begun=bool(asked.prompt.partial),
                    )
                    rows.append(row)
                    job.written.append(row)
                    if job.abandoned:
                        row.limit = 0
        every = list(prompts)
        with computing_with(self._threads.number) if self._threads else nullcontext():
            for start in range(0, len(rows), self._max_batch):
                self._decode(every, rows[start : start + self._max_batch], params)

    def _decode(
        self, prompts: Sequence[tuple[int, ...]], rows: Sequence[SampleRow], params: SamplingParams
    ) -> None:
        from pgenrm_agent.engines.decoding import SamplingRules, decode

        waiting = [row for row in rows if row.limit > 0]
        if not waiting:
            return
        used = sorted({row.prompt for row in waiting})
        renumbered = {old: new for new, old in enumerate(used)}
        for row in waiting:
            row.prompt = renumbered[row.prompt]
        rules = SamplingRules(
            params.temperature,
            params.top_p,
            self._ends,
            self._reader.suspects(waiting, params.stop),
            frozenset(self._reader.marks.opening),
            lambda row: self._reader.ends_here(cast("SampleRow", row), params.stop),
            self._reader.grammars,
        )
        self._done += decode(self._model, [prompts[place] for place in used], waiting, rules)

    def _completions(self, job: _Job) -> list[list[Completion]]:
        """What a job's rows say; those that are not whole have run out of time."""
        params = job.params
        over = TIME_OVER.format(seconds=params.timeout_s or 0)
        rows = iter(job.written)
        samples: list[list[Completion]] = []
        for asked in job.asked:
            samples.append([])
            for _ in range(asked.prompt.n):
                row = next(rows, None)
                if row is None:  # its turn has not come
                    samples[-1] += failed_samples(1, over, "timeout")
                    continue
                samples[-1].append(
                    self._reader.read(
                        row,
                        params.stop,
                        prompt_tokens=0 if samples[-1] else len(asked.encoded.ids),
                        ended=row.ended or "timeout",
                        detail="" if row.ended else over,
                    )
                )
        return samples

    def _probe(self) -> None:
        """What sampling does most: a step of one token a row."""
        import torch

        with torch.inference_mode():
            self._model(input_ids=torch.zeros(PROBE_ROWS, 1, dtype=torch.long), use_cache=False)


def _alike(first: SamplingParams, second: SamplingParams) -> bool:
    """Whether rows with these parameters can be written together. Each job keeps its own time."""
    untimed = {"timeout_s": None}
    return first.model_copy(update=untimed) == second.model_copy(update=untimed)
