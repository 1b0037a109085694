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
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.engines.threads import Threads, choose_threads, computing_with
from pgenrm_agent.errors import ConfigurationError, EngineError, EngineUnavailable

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pgenrm_agent.engines.decoding import Row

__all__ = ["TransformersEngine"]

LINGER_S = 0.002
"""How long a batch waits for requests that are about to arrive."""
PROBE_ROWS = 12
"""Samples written at once to see how many threads pay; an evaluation has as many chains by default."""


@dataclass(eq=False)
class _Job:
    prompts: Sequence[Prompt]
    encoded: list[list[int]]
    params: SamplingParams
    answer: Future[list[list[Completion]]]
    written: list[Row] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(prompt.n for prompt in self.prompts)


class TransformersEngine:
    """A causal language model through Hugging Face transformers.

    model: folder, hub name, or a loaded model (then `tokenizer` is needed).
    device: "cpu", "cuda", ...; None takes a GPU where there is one.
    dtype: a torch dtype's name; None means bfloat16 on a GPU and float32 on a CPU.
    adapter: folder or hub name of a PEFT adapter to apply.
    max_batch: most samples written at once; more wait.
    threads: how many threads compute on a CPU. None keeps what OMP_NUM_THREADS, MKL_NUM_THREADS or an
        earlier torch.set_num_threads say; where they say nothing, a few steps of a model of up to 300
        million parameters are timed, and as many threads taken as pay. torch has one number for the
        whole process: it is set while the engine samples, and restored afterwards.

    Raises:
        EngineUnavailable: the model or adapter cannot be loaded, or is of a kind this engine does
            not sample from (sliding-window attention: use the vLLM engine).
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
        self._model, self._tokenizer, self._label = _load(model, tokenizer, device, dtype, adapter)
        self._max_batch = max_batch
        self._ends = _end_tokens(self._model, self._tokenizer)
        self._threads = None
        if self._model.device.type == "cpu":
            self._threads = choose_threads(threads, self._model.num_parameters(), self._probe)
        self._pieces: list[str] | None = None
        self._suspects: dict[tuple[str, ...], torch.Tensor] = {}
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._left_over: _Job | None = None
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._closed = False
        self._process = os.getpid()

    @property
    def name(self) -> str:
        return f"transformers:{self._label}"

    @property
    def threads(self) -> Threads | None:
        """With how many threads it computes, and why; None on a GPU."""
        return self._threads

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(continues=True, seeds="exact")

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Sample every prompt n times; see `Engine`.

        Raises:
            ConfigurationError: a prompt leaves no room in the model's context.
            EngineError: the engine is closed, was made in another process, or sampling failed.
        """
        if not prompts:
            return []
        self._refuse_unusable()
        encoded = await asyncio.to_thread(lambda: [self._encode(prompt) for prompt in prompts])
        job = _Job(prompts, encoded, params, Future())
        with self._lock:
            self._refuse_unusable()
            if self._worker is None:
                self._worker = threading.Thread(
                    target=self._work, name="pgenrm-sampling", daemon=True
                )
                self._worker.start()
            self._jobs.put(job)
        try:
            return await asyncio.wrap_future(job.answer)
        except asyncio.CancelledError:
            # Nobody waits for it any more: rows that are being written end with their next token.
            for row in job.written:
                row.limit = 0
            raise

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
            raise EngineError(f"{self.name} is closed: make another one")

    def _encode(self, prompt: Prompt) -> list[int]:
        text = cast(
            str,
            self._tokenizer.apply_chat_template(
                [message.model_dump() for message in prompt.messages],
                tokenize=False,
                add_generation_prompt=True,
            ),
        )
        ids = cast(
            list[int], self._tokenizer.encode(text + prompt.partial, add_special_tokens=False)
        )
        limit = self._context
        if len(ids) >= limit:
            raise ConfigurationError(
                f"a prompt has {len(ids)} tokens and {self.name} reads at most {limit}, answer"
                " included: show fewer past choices (scaling.history), fewer or shorter candidates,"
                " or use a model with a longer context"
            )
        return ids

    @property
    def _context(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", None) or 2**31)

    # --- the worker thread ---

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            batch = self._collect(job)
            running = [job for job in batch if job.answer.set_running_or_notify_cancel()]
            if not running:
                continue
            try:
                answers = self._write(running)
            except Exception as error:
                wrapped = EngineError(f"{self.name} failed while sampling: {error}")
                wrapped.__cause__ = error
                for job in running:
                    job.answer.set_exception(wrapped)
            else:
                for job, answer in zip(running, answers, strict=True):
                    job.answer.set_result(answer)

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
            if job.params != first.params or rows + job.rows > self._max_batch:
                self._left_over = job
                break
            batch.append(job)
            rows += job.rows
        return batch

    def _write(self, jobs: Sequence[_Job]) -> list[list[list[Completion]]]:
        from pgenrm_agent.engines.decoding import Row

        params = jobs[0].params
        prompts: dict[tuple[int, ...], int] = {}
        rows: list[Row] = []
        for job in jobs:
            for prompt, ids in zip(job.prompts, job.encoded, strict=True):
                place = prompts.setdefault(tuple(ids), len(prompts))
                limit = min(params.max_tokens, self._context - len(ids))
                for number in range(prompt.n):
                    noise = np.random.Generator(np.random.Philox(key=[prompt.seed, number]))
                    rows.append(Row(place, noise, limit))
                    job.written.append(rows[-1])
        every = list(prompts)
        with computing_with(self._threads.number) if self._threads else nullcontext():
            for start in range(0, len(rows), self._max_batch):
                self._decode(every, rows[start : start + self._max_batch], params)

        written = iter(rows)
        return [
            [
                [self._completion(next(written), len(ids), params.stop) for _ in range(prompt.n)]
                for prompt, ids in zip(job.prompts, job.encoded, strict=True)
            ]
            for job in jobs
        ]

    def _decode(
        self, prompts: Sequence[tuple[int, ...]], rows: Sequence[object], params: SamplingParams
    ) -> None:
        from pgenrm_agent.engines.decoding import Row, SamplingRules, decode

        chunk = cast(Sequence[Row], rows)
        used = sorted({row.prompt for row in chunk})
        renumbered = {old: new for new, old in enumerate(used)}
        for row in chunk:
            row.prompt = renumbered[row.prompt]
        rules = SamplingRules(
            params.temperature, params.top_p, self._ends, self._suspect_tokens(params.stop)
        )
        window = 2 + max((len(stop) for stop in params.stop), default=0)

        def stops_here(row: Row) -> bool:
            tail = self._tokenizer.decode(row.tokens[-window:], skip_special_tokens=True)
            return any(stop in tail for stop in params.stop)

        decode(self._model, [prompts[place] for place in used], chunk, rules, stops_here)

    def _probe(self) -> None:
        """What sampling does most: a step of one token a row."""
        import torch

        with torch.inference_mode():
            self._model(input_ids=torch.zeros(PROBE_ROWS, 1, dtype=torch.long), use_cache=False)

    def _suspect_tokens(self, stops: tuple[str, ...]) -> torch.Tensor | None:
        """Which tokens hold the last character of a stop string, so that most need no second look."""
        if not stops:
            return None
        if stops not in self._suspects:
            import torch

            if self._pieces is None:
                size = len(self._tokenizer)
                self._pieces = self._tokenizer.batch_decode([[token] for token in range(size)])
            # Logits may be wider than the vocabulary; such tokens have no text.
            mask = torch.zeros(
                max(len(self._pieces), self._model.config.vocab_size), dtype=torch.bool
            )
            lasts = {stop[-1] for stop in stops}
            for token, piece in enumerate(self._pieces):
                mask[token] = any(last in piece for last in lasts)
            self._suspects[stops] = mask.to(self._model.device)
        return self._suspects[stops]

    def _completion(self, row: object, prompt_tokens: int, stops: tuple[str, ...]) -> Completion:
        from pgenrm_agent.engines.decoding import Row

        sampled = cast(Row, row)
        text = cast(str, self._tokenizer.decode(sampled.tokens, skip_special_tokens=True))
        ends = [place for stop in stops if (place := text.find(stop)) >= 0]
        return Completion(
            text=text[: min(ends)] if ends else text,
            tokens=len(sampled.tokens),
            prompt_tokens=prompt_tokens,
            finish_reason="stop" if ends or sampled.ended == "stop" else "length",
        )


def _load(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    device: str | None,
    dtype: str | None,
    adapter: str | Path | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
    from transformers.utils.logging import disable_progress_bar

    from pgenrm_agent.engines.decoding import ATTENTION, attends_to_everything, layer_kinds

    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = dtype or ("bfloat16" if place.startswith("cuda") else "float32")
    precision = getattr(torch, kind, None)
    if not isinstance(precision, torch.dtype):
        raise ConfigurationError(
            f"dtype {kind!r} is no torch dtype: use float32, bfloat16 or float16"
        )
    if isinstance(model, PreTrainedModel):
        if tokenizer is None:
            raise ConfigurationError("a loaded model needs its tokenizer too: pass tokenizer=...")
        loaded, label = model, model.config.model_type
    else:
        if isinstance(model, Path) and not (model / "config.json").is_file():
            raise EngineUnavailable(
                f"{model}: no config.json there; pass the folder of a saved model, or a hub name"
            )
        label = Path(model).name
        if place == "cpu":
            disable_progress_bar()  # a bar for loading a few megabytes is noise
        try:
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=precision)
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise EngineUnavailable(
                f"model {str(model)!r} cannot be loaded: {str(error).splitlines()[0]}; pass the"
                " folder of a saved model, or a hub name while the hub can be reached"
            ) from error
    if adapter is not None:
        from peft import PeftModel

        try:
            merged = PeftModel.from_pretrained(loaded, str(adapter)).merge_and_unload()
        except (OSError, ValueError) as error:
            raise EngineUnavailable(
                f"adapter {str(adapter)!r} cannot be applied to {label}: {str(error).splitlines()[0]}"
            ) from error
        loaded, label = cast(PreTrainedModel, merged), f"{label}+{Path(adapter).name}"
    if not tokenizer or not tokenizer.chat_template:
        raise EngineUnavailable(
            f"the tokenizer of {label} has no chat template, so messages cannot be turned into a"
            " prompt: use an instruct model, or set tokenizer.chat_template"
        )
    if not attends_to_everything(loaded.config):
        others = sorted(layer_kinds(loaded.config) - {"full_attention"})
        raise EngineUnavailable(
            f"{label} has {', '.join(others)} layers, which this engine"
            " does not sample from: use engine='vllm'"
        )
    loaded.set_attn_implementation(ATTENTION)
    torch.nn.Module.to(loaded, device=place, dtype=precision)
    return loaded.eval(), tokenizer, label


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    ends: set[int] = set()
    for token in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        ends.update(token if isinstance(token, list) else [] if token is None else [token])
    return frozenset(ends)
