"""What is installed, which engines can work here, which settings are in force, and from where."""

from __future__ import annotations

import os
from importlib import metadata
from importlib.util import find_spec
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.extras import EXTRAS
from pgenrm_agent.fields import Model

PACKAGES = (
    ("torch", "models"),
    ("transformers", "models"),
    ("peft", "adapters"),
    ("langgraph", "the evaluation graph"),
    ("langchain-core", "the LangChain tool"),
    ("chromadb", "user memory"),
    ("pydantic-settings", "settings"),
)
DISTRIBUTION = "pgenrm-agent"


class PackageState(Model):
    """One package that nothing works without: its version, None where it is missing."""

    name: str
    version: str | None
    needed_for: str


class ExtraState(Model):
    """One extra: what it is for, and which of its packages are missing, or of another version."""

    name: str
    missing: tuple[str, ...]
    needed_for: str


class EngineState(Model):
    """Whether an engine can be made here, and what speaks for or against it."""

    name: str
    works: bool
    detail: str


class SettingState(Model):
    """A setting that is in force. `source` is a variable, a file, or "default"."""

    name: str
    value: str | None
    source: str


class DoctorReport(Model):
    """What was found.

    `works` is False when something the library cannot do without is missing, or what the engine of
    the settings needs.
    """

    works: bool
    packages: tuple[PackageState, ...]
    extras: tuple[ExtraState, ...]
    engines: tuple[EngineState, ...]
    device: str
    threads: str
    model: str
    memory: str
    settings: tuple[SettingState, ...]


def examine() -> DoctorReport:
    """Look, and load the bundled model to see with how many threads it runs best; open no memory."""
    from pgenrm_agent.settings import read_settings

    packages = tuple(
        PackageState(name=name, version=_version(name), needed_for=use) for name, use in PACKAGES
    )
    engines = (_transformers(), _vllm(), _openai())
    wanted = read_settings().engine
    works = all(package.version for package in packages) and all(
        engine.works for engine in engines if engine.name == wanted
    )
    return DoctorReport(
        works=works,
        packages=packages,
        extras=tuple(
            ExtraState(name=name, missing=_missing(name), needed_for=use)
            for name, use in EXTRAS.items()
        ),
        engines=engines,
        device=_device(),
        # What is missing is told before a model is loaded.
        threads=_threads() if works else "not measured, since something is missing",
        model=_model(),
        memory=_memory(),
        settings=_settings(),
    )


def _version(name: str) -> str | None:
    for alias in (name, f"{name}-cpu"):
        try:
            return metadata.version(alias)
        except metadata.PackageNotFoundError:
            continue
    return None


def _missing(extra: str) -> tuple[str, ...]:
    """Return the requirements of an extra that are not met, those of extras within it included."""
    missing = []
    for line in metadata.requires(DISTRIBUTION) or ():
        wanted = Requirement(line)
        here = wanted.marker is not None and wanted.marker.evaluate({"extra": extra})
        if not here or wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            continue
        if canonicalize_name(wanted.name) == DISTRIBUTION:
            missing += [name for inner in wanted.extras for name in _missing(inner)]
            continue
        version = _version(wanted.name)
        if version is None:
            missing.append(wanted.name)
        elif not wanted.specifier.contains(version, prereleases=True):
            missing.append(f"{wanted.name}{wanted.specifier} (is {version})")
    return tuple(dict.fromkeys(missing))


def _transformers() -> EngineState:
    works = find_spec("torch") is not None and find_spec("transformers") is not None
    return EngineState(name="transformers", works=works, detail="any full-attention causal model")


def _vllm() -> EngineState:
    if find_spec("vllm") is None:
        return EngineState(name="vllm", works=False, detail="pip install 'pgenrm-agent[vllm]'")
    return EngineState(name="vllm", works=True, detail="fastest; needs about a minute to start")


def _openai() -> EngineState:
    if find_spec("openai") is None:
        return EngineState(name="openai", works=False, detail="pip install 'pgenrm-agent[openai]'")
    key = (
        "OPENAI_API_KEY is set" if os.environ.get("OPENAI_API_KEY") else "OPENAI_API_KEY is not set"
    )
    return EngineState(name="openai", works=True, detail=f"a server that speaks its API; {key}")


def _device() -> str:
    if find_spec("torch") is None:
        return "unknown: torch is not installed"
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} GPU(s): {torch.cuda.get_device_name(0)}"
    return "CPU"


def _threads() -> str:
    from pgenrm_agent.model_files import bundled_model

    try:
        from pgenrm_agent.engines.transformers import TransformersEngine

        threads = TransformersEngine(bundled_model(), device="cpu").threads
    except (ImportError, PGenRMError) as error:
        return f"unknown: {error}"
    assert threads is not None
    return (
        f"{threads.number} for the bundled model on a CPU ({threads.why}); set OMP_NUM_THREADS, or"
        " pass TransformersEngine(threads=...), to choose"
    )


def _model() -> str:
    from pgenrm_agent.model_files import bundled_model
    from pgenrm_agent.settings import read_settings

    wanted = read_settings().model
    if wanted is not None:
        return wanted
    try:
        folder = bundled_model()
        size = (folder / "model.safetensors").stat().st_size
    except (ConfigurationError, OSError) as error:
        return f"the bundled model cannot be read: {error}"
    return f"{folder.name}, {size / 1e6:.1f} MB, bundled"


def _memory() -> str:
    from pathlib import Path

    from pgenrm_agent.files import is_address
    from pgenrm_agent.memory import default_directory
    from pgenrm_agent.settings import read_settings

    wanted = read_settings().memory
    if wanted is not None and is_address(wanted):
        return _without_password(wanted)
    folder = default_directory() if wanted is None else Path(wanted)
    return f"{folder} ({'exists' if folder.is_dir() else 'not made yet'})"


def _settings() -> tuple[SettingState, ...]:
    from pgenrm_agent.settings import read_settings, settings_sources, unknown_variables

    settings = read_settings()
    states = []
    for name, source in settings_sources().items():
        value = getattr(settings, name)
        shown = None if value is None else _without_password(str(value))
        states.append(SettingState(name=name, value=shown, source=source))
    for name in unknown_variables():
        states.append(SettingState(name=name, value=None, source="set, and no setting"))
    return tuple(states)


def _without_password(url: str) -> str:
    """Return a URL as it may be shown to others; any other text as it is."""
    password = urlsplit(url).password if "://" in url else None
    return url if not password else url.replace(f":{password}@", ":***@", 1)
