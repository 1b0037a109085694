"""A pretrained checkpoint as a folder that everything loads, from whatever it comes in."""

from __future__ import annotations

import shutil
from hashlib import file_digest
from pathlib import Path

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import write_text
from pgenrm_agent.model_files import loadable
from pgenrm_agent.training.parts import join_parts

SOURCE = "gguf.sha256"
"""The hash of the .gguf file, beside what was unpacked of it."""


def unpacked(place: str | Path, out: Path) -> str:
    """Return the folder of a checkpoint, or the hub name that it is; of one whose hub is away, its copy.

    place: a saved model's folder, a .gguf file, the folder of such a file or of its parts
        (`split_file`), or a hub name. out: where a .gguf file is unpacked to, unless it is there already;
        what is there of another file is replaced.

    Raises ConfigurationError for a path that leads to nothing of the kind, or where `out` holds what was
    not unpacked, and EngineUnavailable where the hub cannot be asked.
    """
    path = Path(place)
    if path.is_dir():
        if (path / "config.json").is_file():
            return str(path)
        files = [*path.glob("*.gguf"), *join_parts(path, out.with_name(f"{out.name}-file"))]
        if len(files) != 1:
            raise ConfigurationError(
                f"{path} holds no model (config.json) and {len(files)} .gguf files: name one of them"
            )
        path = files[0]
    if path.suffix != ".gguf":
        if path.is_absolute() or path.exists():
            raise ConfigurationError(
                f"{path} is no checkpoint: name a model's folder or .gguf file"
            )
        return str(loadable(str(place)))
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such file")
    with path.open("rb") as content:
        source = file_digest(content, "sha256").hexdigest()
    if out.exists() and not (out / SOURCE).is_file():
        raise ConfigurationError(
            f"{path.name} is unpacked to {out}, where what it was unpacked from is not told: move that away"
        )
    if not out.exists() or (out / SOURCE).read_text(encoding="utf-8") != source:
        unfinished = out.with_name(f"{out.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unpack_gguf(path, unfinished)
        write_text(unfinished / SOURCE, source)
        shutil.rmtree(out, ignore_errors=True)
        unfinished.replace(out)
    return str(out)


def unpack_gguf(file: Path, folder: Path) -> None:
    """Write the model and tokenizer of a .gguf file as safetensors in bfloat16 (package gguf)."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # From 5.18 on transformers keeps the weights packed unless it is told otherwise.
    unpack = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": unpack(dequantize=True)} if unpack else {}
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.bfloat16, **options
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
