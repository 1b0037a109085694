"""From an adapter to a plain checkpoint: the model that a LoRA adapter makes of its base."""

from __future__ import annotations

import json
from pathlib import Path

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.model_files import FORMAT_FILE, refuse_pickled_weights
from pgenrm_agent.training.format_files import place_told, write_format


def merge_adapter(
    adapter: Path, out: Path, *, model: Path | None = None, precision: str | None = None
) -> str:
    """Write base plus adapter into the new folder `out`, with tokenizer and chain format.

    Args:
        adapter: the folder of a LoRA adapter.
        out: a new or empty folder.
        model: the base's folder; the one that the adapter was trained on if not given.
        precision: float32 or bfloat16, of the weights that are written; as in the base if not given.
            The sum is formed in float32, and bfloat16 rounds it to 8 bits: scores stay the same
            within sampling error, texts need not.

    Returns the base's folder or name.

    Raises:
        ConfigurationError: no adapter there, `out` has something in it, an unknown precision, or the
            base cannot be loaded or is another architecture.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = adapter / "adapter_config.json"
    if not config.is_file():
        raise ConfigurationError(f"{adapter} holds no adapter (adapter_config.json)")
    refuse_pickled_weights(adapter)
    if out.exists() and any(out.iterdir()):
        raise ConfigurationError(f"{out} is not empty: name a new folder")
    if precision not in (None, "float32", "bfloat16"):
        raise ConfigurationError(f"precision {precision!r} is unknown: use float32 or bfloat16")
    base = str(model or json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])
    try:
        written = AutoConfig.from_pretrained(base).dtype or torch.float32
        loaded = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float32, use_safetensors=True
        )
        merged = PeftModel.from_pretrained(loaded, str(adapter)).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"adapter {adapter} cannot be added to {base}: {str(error).splitlines()[0]}; name the"
            " folder of its base with --model"
        ) from error
    torch.nn.Module.to(merged, dtype=written if precision is None else getattr(torch, precision))
    merged.save_pretrained(out)
    own = adapter if (adapter / "tokenizer_config.json").is_file() else base
    AutoTokenizer.from_pretrained(own).save_pretrained(out)
    for folder in (adapter, Path(base)):
        if (folder / FORMAT_FILE).is_file():
            write_format(out, place_told(folder))
            break
    return base
