"""Load a model for the transformers engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.model_files import ADAPTER_FILE, adapter_source, loadable, model_source
from pgenrm_agent.wording import first_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def opened_from(*sources: str | Path | None) -> tuple[str, ...]:
    """Return the absolute folders or hub names of a model and of the adapter, if there is one.

    sources: as `model_source` and `adapter_source` return them, folders as paths.
    """
    return tuple(
        str(source.resolve() if isinstance(source, Path) else source)
        for source in sources
        if source is not None
    )


def load_model(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    device: str | None,
    dtype: str | None,
    adapter: str | Path | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str, tuple[str, ...]]:
    """Return a model ready to sample from, its tokenizer, a short name for both, and what was opened.

    Raises what `TransformersEngine` does. A path that leads to no model, and a name on a hub that cannot
    be reached, are refused before anything heavy is imported.
    """
    source = model_source(model) if isinstance(model, (str, Path)) else None
    adapted = None if adapter is None else adapter_source(adapter)
    opened = None if source is None else loadable(source)
    adapter_opened = None if adapted is None else loadable(adapted, ADAPTER_FILE)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
    from transformers.utils.logging import disable_progress_bar

    from pgenrm_agent.engines.attention import attends_to_everything, layer_kinds, take_over

    handed_over = isinstance(model, PreTrainedModel)
    place, precision = _placed(device, dtype, handed_over=handed_over)
    if isinstance(model, PreTrainedModel):
        if tokenizer is None:
            raise ConfigurationError("a loaded model needs its tokenizer too: pass tokenizer=...")
        loaded, label = model, model.config.model_type
    else:
        assert source is not None
        assert opened is not None
        label = Path(source).name
        if place == torch.device("cpu"):
            disable_progress_bar()  # a bar for loading a few megabytes is noise
        try:
            loaded = AutoModelForCausalLM.from_pretrained(
                opened, dtype=precision, use_safetensors=True
            )
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(opened)
        except Exception as error:  # whatever a broken file makes of the libraries
            raise EngineUnavailable(
                f"model {str(source)!r} cannot be loaded: {first_line(error)}; pass the"
                " folder of a saved model, or a hub name while the hub can be reached"
            ) from error
    if adapted is not None:
        from peft import PeftModel

        try:
            merged = PeftModel.from_pretrained(loaded, str(adapter_opened)).merge_and_unload()
        except Exception as error:
            raise EngineUnavailable(
                f"adapter {str(adapted)!r} cannot be applied to {label}: {first_line(error)}"
            ) from error
        loaded, label = cast(PreTrainedModel, merged), f"{label}+{Path(adapted).name}"
    if not attends_to_everything(loaded.config):
        others = sorted(layer_kinds(loaded.config) - {"full_attention"})
        raise EngineUnavailable(
            f"{label} has {', '.join(others)} layers, which this engine"
            " does not sample from: use engine='vllm'"
        )
    try:
        torch.nn.Module.to(loaded, device=place, dtype=precision)
    except (RuntimeError, AssertionError) as error:
        raise EngineUnavailable(
            f"{label} cannot be moved to device {str(place)!r}: {first_line(error)}"
        ) from error
    if trouble := take_over(loaded.eval()):
        raise EngineUnavailable(
            f"this engine does not sample from {label} ({trouble}): use engine='vllm'"
        )
    return loaded, tokenizer, label, opened_from(source, adapted)


def _placed(
    device: str | None, dtype: str | None, *, handed_over: bool
) -> tuple[torch.device | None, torch.dtype | None]:
    """Where a model goes, and as what; None for a loaded one that stays as it is.

    Raises ConfigurationError for a device or dtype that there is not.
    """
    import torch

    if device is None and not handed_over:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            f"device {device!r} is none of torch ({first_line(error)}): use cpu or cuda"
        ) from error
    if dtype is None and not handed_over:
        dtype = "bfloat16" if place is not None and place.type == "cuda" else "float32"
    precision = None if dtype is None else getattr(torch, dtype, None)
    if dtype is not None and not isinstance(precision, torch.dtype):
        raise ConfigurationError(
            f"dtype {dtype!r} is no torch dtype: use float32, bfloat16 or float16"
        )
    return place, precision


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a turn: those of the tokenizer, and those of the model."""
    ends: set[int] = set()
    for token in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        ends.update(token if isinstance(token, list) else [] if token is None else [token])
    return frozenset(ends)
