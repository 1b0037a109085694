"""The vLLM engine: vLLM's asynchronous engine in this process, its cores in processes of their own.

All calls run together in vLLM's scheduler, whichever task or event loop they come from. Prompts
that begin alike share their keys and values (prefix caching), and so do the samples of a prompt.

What a seed guarantees: sample j of a prompt is drawn with the seed `first_seed(seed) + j`, from a
generator of its own; what a model answers after it has thought, with a seed derived from that one. But
vLLM computes logits in batches whose make-up depends on what else arrives and when, and other batches
round differently, so that the same call may now and then give another sample. With
`batch_invariant=True` it does not. vLLM offers that mode on NVIDIA GPUs of compute capability 8.0 or
higher, AMD Instinct and Intel XPU, and not on CPUs.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pgenrm_agent.background_loop import BackgroundLoop, all_or_cancel
from pgenrm_agent.engines.identity import identity
from pgenrm_agent.engines.outcomes import part_for_part
from pgenrm_agent.engines.prompting import PromptEncoder
from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.engines.transformers_loading import opened_from
from pgenrm_agent.engines.vllm_sampling import VLLMSampler
from pgenrm_agent.engines.vllm_start import ProcessLog, cpu_cache_bytes
from pgenrm_agent.errors import (
    ConfigurationError,
    EngineError,
    EngineUnavailable,
    PGenRMError,
)
from pgenrm_agent.model_files import ADAPTER_FILE, adapter_source, loadable, model_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.config import VllmConfig
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["VLLMEngine"]

THREADS_BIND = "VLLM_CPU_OMP_THREADS_BIND"
"""Read by vLLM's CPU build only: which cores its threads run on."""
FEW_CORES = 4
CACHE_SPACE = "VLLM_CPU_KVCACHE_SPACE"
"""Read by vLLM's CPU build only: the size of its cache in GiB."""
LOG_LEVEL = "VLLM_LOGGING_LEVEL"
LOG = {LOG_LEVEL: "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"
MODELSCOPE = "VLLM_USE_MODELSCOPE"
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Sizes in which vLLM reserves room for an adapter."""
SHUTDOWN_S = 15.0
"""vLLM's core gives its workers 5 s, and is killed before it is done if it gets no longer."""

# A start changes the environment and standard error of the whole process.
_STARTING = threading.Lock()


class VLLMEngine:
    """A causal language model in vLLM.

    model: folder or hub name.
    tensor_parallel_size: GPUs over which the model is split.
    adapter: folder or hub name of a LoRA adapter; all samples are drawn with it.
    batch_invariant: the same prompt and seed give the same samples whatever else is in the batch,
        at some cost in speed (see above for where).
    engine_args: anything else that vLLM's `AsyncEngineArgs` takes, such as `max_model_len`,
        `gpu_memory_utilization`, `kv_cache_memory_bytes`, `dtype` or `enforce_eager`.

    The constructor returns when the model is loaded, which takes a minute or more. vLLM's usage
    reports are switched off, unless VLLM_NO_USAGE_STATS says otherwise. What its processes write to
    standard error goes to a temporary file, from which this engine's errors quote; set
    VLLM_LOGGING_LEVEL to see it instead.

    On a CPU vLLM starts its processes by spawning, so a script that makes this engine needs an
    `if __name__ == "__main__":`. Its cache there has room for 16 prompts as long as the context,
    within 4 GiB and half of the free memory, unless `kv_cache_memory_bytes`,
    `gpu_memory_utilization` or VLLM_CPU_KVCACHE_SPACE says otherwise.

    An answer is held to a JSON schema or grammar by vLLM's structured outputs. Where the model thinks
    first (its template opens the thinking, or its first token does), schema and stop strings hold from
    the end of that on. Of a model that spells its opening mark in several tokens this engine does not
    know it in time: its answer is held from the first token on, and a stop string may end its thinking.

    Raises:
        ConfigurationError: vLLM is not installed, does not know an argument, has no batch-invariant
            mode here, or has no memory for a prompt as long as the context.
        EngineUnavailable: the model or adapter cannot be loaded.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        tensor_parallel_size: int = 1,
        adapter: str | Path | None = None,
        batch_invariant: bool = False,
        **engine_args: object,
    ) -> None:
        if tensor_parallel_size < 1:
            raise ConfigurationError(
                f"tensor_parallel_size is {tensor_parallel_size}: pass at least 1"
            )
        source = model_source(model)
        _refuse_unguarded_script()
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        self._batch_invariant = batch_invariant or os.environ.get(BATCH_INVARIANT) == "1"
        self._label = Path(source).name
        settings: dict[str, object] = {
            "tensor_parallel_size": tensor_parallel_size,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
        }
        if adapter is not None:
            adapter = adapter_source(adapter)
            self._label += f"+{Path(adapter).name}"
            settings |= {"enable_lora": True, "max_loras": 1, **_lora_rank(adapter)}
        self._loop = BackgroundLoop(self.name)
        shown = LOG_LEVEL in os.environ
        variables = {**({} if shown else LOG), **_binding(tensor_parallel_size)}
        if self._batch_invariant:
            variables[BATCH_INVARIANT] = "1"
        with _STARTING, _environment(variables):
            _refuse_missing_package()
            if self._batch_invariant:
                _refuse_without_batch_invariance()
            settings["model"] = str(_opened(source))
            opened = None if adapter is None else _opened(adapter, ADAPTER_FILE)
            self._log = ProcessLog(shown=shown)
            try:
                with self._log.catching():
                    self._engine, self._adapter = self._loop.run_blocking(
                        lambda: _start({**settings, **engine_args}, opened, self._log)
                    )
            except BaseException as error:
                self._loop.close()
                if not isinstance(error, EngineUnavailable):
                    self._log.remove()
                raise
        # Also runs when the interpreter exits and nobody closed the engine.
        self._shut_down = weakref.finalize(self, _end, self._engine.shutdown, self._log)
        tokenizer = cast("PreTrainedTokenizerBase", self._engine.get_tokenizer())
        try:
            self._encoder = PromptEncoder(
                tokenizer,
                owner=self.name,
                context=int(self._engine.model_config.max_model_len),
                remedy="raise max_model_len if the model allows it",
            )
        except EngineUnavailable:
            self._loop.close(self._stop)
            raise
        self._opened, self._engine_args = opened_from(source, adapter), engine_args
        self._sampler = VLLMSampler(self._engine, tokenizer, self._encoder.context, self._adapter)

    @property
    def name(self) -> str:
        """Name the engine in results and errors."""
        return f"vllm:{self._label}"

    @property
    def models(self) -> tuple[str, ...]:
        """What was opened: absolute folder or hub name of the model, then of the adapter."""
        return self._opened

    @property
    def source(self) -> str:
        """What was opened, and a digest of vLLM's own arguments where there are any."""
        return identity(*self._opened, engine_args=self._engine_args)

    @property
    def capabilities(self) -> Capabilities:
        """Say what it can do."""
        return Capabilities(
            continues=True,
            seeds="exact" if self._batch_invariant else "per_batch",
            json_schema=True,
            grammar=True,
        )

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Sample every prompt n times; see `Engine`. Canceling takes the requests out of vLLM.

        Raises:
            ConfigurationError: every prompt leaves no room in the model's context, cannot be held to
                its schema or rendered by the model's chat template, or vLLM refuses a parameter.
            EngineUnavailable: the engine is closed, or vLLM has died.
            EngineError: vLLM failed to answer.
        """
        if not prompts:
            return []
        return await self._loop.run(lambda: self._sample_all(prompts, params))

    async def aclose(self) -> None:
        """Abort what runs and end vLLM's processes. Calling it again does nothing."""
        await asyncio.to_thread(self._loop.close, self._stop)

    # --- on the background loop ---

    async def _sample_all(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        loop = asyncio.get_running_loop()
        deadline = None if params.timeout_s is None else loop.time() + params.timeout_s
        outcomes = await all_or_cancel(
            [self._sample_prompt(prompt, params, deadline) for prompt in prompts]
        )
        return part_for_part(prompts, outcomes)

    async def _sample_prompt(
        self, prompt: Prompt, params: SamplingParams, deadline: float | None
    ) -> list[Completion] | PGenRMError:
        try:
            encoded = await asyncio.to_thread(self._encoder.encode, prompt)
            return await self._sampler.sample(prompt, encoded, params, deadline)
        except Exception as error:
            explained = self._explained(error)
            if explained is not error:
                explained.__cause__ = error
            return explained

    async def _stop(self) -> None:
        self._shut_down()
        for held in ("_engine", "_sampler"):
            vars(self).pop(held, None)

    def _explained(self, error: Exception) -> PGenRMError:
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError

        if isinstance(error, PGenRMError):
            return error
        if isinstance(error, EngineDeadError):
            cause = self._log.cause(error) or "its log may tell why"
            return EngineUnavailable(
                f"{self.name} has died ({cause}): make another engine, where memory was short with"
                " a lower gpu_memory_utilization or max_model_len"
            )
        if isinstance(error, VLLMValidationError | ValueError):
            return ConfigurationError(f"{self.name} refuses the request: {_first_line(error)}")
        return EngineError(f"{self.name} failed while sampling: {_first_line(error)}")


def _end(shut_down: Callable[[float], None], log: ProcessLog) -> None:
    try:
        shut_down(SHUTDOWN_S)
    finally:
        log.remove()


async def _start(
    settings: dict[str, object], adapter: str | Path | None, log: ProcessLog
) -> tuple[AsyncLLM, LoRARequest | None]:
    """Start vLLM on the running loop, which its output handler then belongs to."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.lora.request import LoRARequest
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    if current_platform.is_cpu():
        # A seeded prompt that is read in two pieces makes vLLM wind its generator back, which
        # torch's CPU generator cannot do ("does not use offset"), and the whole engine dies of it.
        settings = {"enable_chunked_prefill": False, **settings}

    class Engine(AsyncLLM):  # type: ignore[misc]
        """Without the traceback that vLLM prints if it is collected as the interpreter exits."""

        def __del__(self) -> None:
            if not sys.is_finalizing():
                super().__del__()

    try:
        arguments = AsyncEngineArgs(**settings)
    except TypeError as error:
        raise ConfigurationError(f"vLLM does not take these arguments: {error}") from error
    try:
        config = arguments.create_engine_config()
        if current_platform.is_cpu():
            _fit_cache(config, settings)
        engine = Engine.from_vllm_config(
            config,
            enable_log_requests=arguments.enable_log_requests,
            disable_log_stats=arguments.disable_log_stats,
        )
    except ConfigurationError:
        raise
    except Exception as error:
        told = log.cause(error)
        # The exception that arrives here only points to what its processes told.
        raise _not_started(settings["model"], told or _first_line(error), log) from (
            None if told else error
        )
    if adapter is None:
        return engine, None
    request = LoRARequest(Path(adapter).name, 1, str(adapter))
    try:
        await engine.add_lora(request)
    except Exception as error:
        engine.shutdown()
        raise EngineUnavailable(
            f"vLLM cannot apply adapter {str(adapter)!r} to model {settings['model']!r}:"
            f" {_first_line(error)}"
        ) from error
    return engine, request


def _fit_cache(config: VllmConfig, settings: dict[str, object]) -> None:
    """Give vLLM's cache a size on a CPU, where it takes 92 % of all memory unless it is told one."""
    from vllm.utils.cpu_resource_utils import get_memory_node_info, get_visible_memory_node

    told = {"kv_cache_memory_bytes", "gpu_memory_utilization"} & settings.keys()
    if told or os.environ.get(CACHE_SPACE):
        return
    model, parallel, cache = config.model_config, config.parallel_config, config.cache_config
    states = 2 * model.get_num_kv_heads(parallel) * model.get_num_layers(parallel)
    width = 1 if cache.cache_dtype.startswith("fp8") else model.dtype.itemsize
    # A sequence's last block is reserved whole.
    length = model.max_model_len + cache.block_size
    weights = Path(str(settings["model"])).glob("*.safetensors")
    cache.kv_cache_memory_bytes = cpu_cache_bytes(
        states * model.get_head_size() * width * length,
        free=get_memory_node_info(get_visible_memory_node()[0]).available_memory,
        weights=sum(file.stat().st_size for file in weights),
    )


def _not_started(model: object, cause: str, log: ProcessLog) -> EngineUnavailable:
    if "memory" in cause:
        advice = (
            "free memory, or pass a smaller max_model_len, kv_cache_memory_bytes or"
            " gpu_memory_utilization"
        )
    else:
        advice = (
            "pass the folder of a saved model, or a hub name while the hub can be reached, and"
            " arguments that suit it"
        )
    return EngineUnavailable(
        f"vLLM cannot start with model {str(model)!r}: {cause}; {advice}{log.pointer()}"
    )


def _refuse_missing_package() -> None:
    try:
        import vllm  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise ConfigurationError(
                f"vLLM is installed, and {error.name}, which it needs, is not:"
                " pip install 'pgenrm-agent[vllm]'"
            ) from error
        raise ConfigurationError(
            "the vLLM engine needs the package vllm: pip install 'pgenrm-agent[vllm]'"
        ) from error


def _opened(source: str | Path, file: str = "config.json") -> str | Path:
    """Return what vLLM is given for a model or adapter; see `loadable`."""
    elsewhere = os.environ.get(MODELSCOPE, "").strip().lower() in ("1", "true")
    return source if elsewhere else loadable(source, file)


def _refuse_unguarded_script() -> None:
    """A spawned process runs the script again, as far as its `__main__` guard."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigurationError(
            "vLLM starts processes that run this script again: make its engine under"
            ' `if __name__ == "__main__":`'
        )


def _refuse_without_batch_invariance() -> None:
    from vllm.platforms import current_platform

    if current_platform.is_cpu() or (
        current_platform.is_cuda() and not current_platform.has_device_capability(80)
    ):
        raise ConfigurationError(
            f"batch_invariant=True, and vLLM has no such mode on {current_platform.device_name}: it"
            " needs an NVIDIA GPU of compute capability 8.0 or higher, AMD Instinct or Intel XPU."
            " On a CPU the transformers engine keeps seeds exact"
        )


def _lora_rank(adapter: str | Path) -> dict[str, object]:
    """Room for the adapter's rank, where its folder tells it."""
    file = Path(adapter) / ADAPTER_FILE
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        rank = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineUnavailable(f"{file} is no LoRA configuration ({error})") from error
    if rank > LORA_RANKS[-1]:
        raise EngineUnavailable(
            f"{file}: rank {rank} is more than vLLM's {LORA_RANKS[-1]}; merge the adapter into its"
            " model first"
        )
    return {"max_lora_rank": next(size for size in LORA_RANKS if size >= rank)}


def _binding(workers: int) -> dict[str, str]:
    """On a CPU of few cores, let the model compute on all of them.

    vLLM keeps one core for itself. Of two that leaves the model half the machine, and batches take
    half as long again (measured on 2 cores: 64 samples 19.0 s against 12.5 s).
    """
    if THREADS_BIND in os.environ or workers > 1 or not hasattr(os, "sched_getaffinity"):
        return {}
    cores = sorted(os.sched_getaffinity(0))
    return {THREADS_BIND: ",".join(map(str, cores))} if 1 < len(cores) <= FEW_CORES else {}


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables while vLLM starts: its processes inherit them, later engines do not."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _first_line(error: BaseException) -> str:
    """What is wrong, in one line; pydantic puts a headline before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 2 and "validation error" in lines[0]:
        lines = lines[1:]
        if not lines[0].startswith("Value error"):
            lines = [f"{lines[0]}: {lines[1]}"]
    return lines[0].removeprefix("Value error, ")[:300] if lines else type(error).__name__
