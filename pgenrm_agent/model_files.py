"""What lies in a model's folder: where the bundled model is, and which format a model speaks."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.wording import first_line

__all__ = [
    "ADAPTER_FILE",
    "BUNDLED_MODEL",
    "HUB_NAME",
    "adapter_source",
    "bundled_model",
    "format_of",
    "hub_trouble",
    "loadable",
    "model_source",
    "named_format",
    "refuse_pickled_weights",
    "refuse_without_model",
]

BUNDLED_MODEL = "pgenrm-tiny"
PUBLISHED = "published"
_CHECKPOINT = re.compile(r"p-?genrm", re.IGNORECASE)
FORMAT_FILE = "chain_format.json"
ADAPTER_FILE = "adapter_config.json"

_PICKLED = re.compile(
    r"(?:pytorch_model|adapter_model|model|weights|consolidated).*\.(?:bin|pt|pth|ckpt|pkl|pickle)"
)
HUB_NAME = re.compile(r"(?!.*(?:--|\.\.))(?:\w[\w.-]*/)?\w[\w.-]*")


def bundled_model() -> Path:
    """Return the folder of the model that comes with the package.

    Raises ConfigurationError when the installation lacks it, or lies in an archive.
    """
    folder = Path(str(files("pgenrm_agent"))) / "models" / BUNDLED_MODEL
    if not (folder / "config.json").is_file():
        raise ConfigurationError(
            f"the bundled model is not at {folder}: reinstall pgenrm-agent or pass a model"
        )
    return folder


def refuse_without_model(folder: Path) -> None:
    """Before long work that needs a saved model.

    Raises ConfigurationError when `folder` holds none, or its weights are pickled.
    """
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} holds no model (config.json): name a model's folder")
    refuse_pickled_weights(folder)


def refuse_pickled_weights(folder: Path) -> None:
    """Raises ConfigurationError for a folder whose only weights are in a pickle, which could run code."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(file.name for file in folder.glob("*") if _PICKLED.fullmatch(file.name))
    if pickled:
        raise ConfigurationError(
            f"{folder} has its weights in a pickle ({pickled[0]}), which is not read, since that can"
            " run code: save them as safetensors (`save_pretrained` of transformers or PEFT does)"
        )


def model_source(model: str | Path) -> str | Path:
    """Return where an engine is to load a model from: a folder, or a name on the hub as it is.

    Raises EngineUnavailable for a path that holds no model, and ConfigurationError for weights in a
    pickle. A string is a path where it leads to
    something, or cannot be a name on the hub.
    """
    return _source(model, "config.json", "a saved model")


def adapter_source(adapter: str | Path) -> str | Path:
    """Return where an engine is to load a PEFT adapter from; see `model_source`."""
    return _source(adapter, ADAPTER_FILE, "a PEFT adapter")


def _source(place: str | Path, file: str, what: str) -> str | Path:
    folder = Path(place).expanduser()
    if isinstance(place, str) and HUB_NAME.fullmatch(place) and not folder.exists():
        parent = folder.parent
        # "runs/modle" beside a folder "runs" is a slip rather than a name on the hub.
        if parent == Path() or not parent.is_dir():
            return place
    if not folder.exists():
        raise EngineUnavailable(f"{folder}: there is no such folder; pass that of {what}")
    if not (folder / file).is_file():
        raise EngineUnavailable(
            f"{folder}: no {file} there; pass the folder of {what}, or a hub name"
        )
    refuse_pickled_weights(folder)
    return folder


def hub_trouble(name: str, file: str = "config.json") -> str:
    """Return why the hub cannot be asked for a file of a model; "" where it answers, whatever it says."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(name, file))
    except HfHubHTTPError:  # an answer; what follows from it, loading the model tells
        return ""
    except Exception as error:  # of the hub's client, whose kind goes by its version
        return first_line(error)
    return ""


def loadable(source: str | Path, file: str = "config.json") -> str | Path:
    """Return what is loaded of a source: itself, or the copy of an earlier download while the hub is away.

    Asks the hub once: what loads models asks one that cannot be reached six times for each file,
    which takes a minute. source: what `model_source` returned; a folder asks nobody.

    Raises EngineUnavailable where the hub cannot be asked, and there is no copy.
    """
    if isinstance(source, Path):
        return source
    trouble = hub_trouble(source, file)
    if not trouble:
        return source
    from huggingface_hub import try_to_load_from_cache

    copy = try_to_load_from_cache(source, file)
    if isinstance(copy, str):
        return Path(copy).parent
    raise EngineUnavailable(
        f"{source}: there is no such folder, and the Hugging Face hub cannot be asked for it"
        f" ({trouble}); pass the folder of a saved model, or a hub name while the hub can be reached"
    )


def named_format(*models: str | Path) -> ChainFormat | None:
    """Return the chain format that a model was trained on; None where nothing tells.

    A folder tells it in `chain_format.json`, as {"format": name}; a format of its own by its folder, from
    there: {"format": "./my-format"}. The published checkpoints tell it by their name.

    models: folder or name of the model, then of its adapter, whose file counts before the model's.

    Raises ConfigurationError for a `chain_format.json` that cannot be read.
    """
    paths = [Path(model).expanduser() for model in models]
    file = next(
        (path / FORMAT_FILE for path in paths[::-1] if (path / FORMAT_FILE).is_file()), None
    )
    if file is None:
        published = any(_CHECKPOINT.search(path.name) for path in paths)
        return ChainFormat.load(PUBLISHED) if published else None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{file} is not JSON ({error}): correct or remove it") from None
    name = content.get("format") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise ConfigurationError(f'{file} names no format: write {{"format": "{PUBLISHED}"}}')
    return ChainFormat.load(file.parent / name if "/" in name else name)


def format_of(model: str | Path) -> ChainFormat:
    """Return the format in which a model's chains are written in training: prose unless it tells.

    Raises ConfigurationError as `named_format` does.
    """
    return named_format(model) or ChainFormat.load(PUBLISHED)
