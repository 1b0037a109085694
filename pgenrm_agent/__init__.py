"""How much would this particular user like each candidate answer?

    from pgenrm_agent import PGenRM

    with PGenRM() as rm:
        evaluation = rm.score("ada", "How do I descale a kettle?", ["Use vinegar.", "Buy another."])

Names are imported on first use, so that `import pgenrm_agent` stays fast and heavy packages are
loaded by those who need them only.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgenrm_agent.chain import ChainFormat
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.engines.protocol import (
        Capabilities,
        Completion,
        Engine,
        Prompt,
        SamplingParams,
    )
    from pgenrm_agent.errors import (
        BudgetReached,
        ChainError,
        ConfigurationError,
        EngineError,
        EngineTimeout,
        EngineUnavailable,
        EntryConflict,
        EntryRefused,
        InvalidInput,
        MemoryStoreError,
        PGenRMError,
    )
    from pgenrm_agent.evaluation_cache import EvaluationCache
    from pgenrm_agent.integrations.langchain.node import as_node
    from pgenrm_agent.integrations.langchain.tool import as_tool
    from pgenrm_agent.integrations.trl import as_reward_func
    from pgenrm_agent.memory import UserMemory
    from pgenrm_agent.model_files import bundled_model
    from pgenrm_agent.ranking import RerankItem, RerankResult
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.schema import (
        Candidate,
        CandidateScore,
        ChainFailure,
        Criterion,
        Evaluation,
        EvaluationChain,
        EvaluationRequest,
        Message,
        Persona,
        PreferencePair,
        Prices,
        Rubric,
        Scaling,
        StatedPreference,
        Usage,
        UserSignals,
    )

    __version__: str

# In a clone graphs/ and training/ stand beside this package, and Python started there finds it first.
_HERE = Path(__file__).resolve().parent
if not (_HERE / "graphs").is_dir():
    __path__.append(str(_HERE.parent))

__all__ = [
    "BudgetReached",
    "Candidate",
    "CandidateScore",
    "Capabilities",
    "ChainError",
    "ChainFailure",
    "ChainFormat",
    "Completion",
    "ConfigurationError",
    "Criterion",
    "Engine",
    "EngineError",
    "EngineTimeout",
    "EngineUnavailable",
    "EntryConflict",
    "EntryRefused",
    "Evaluation",
    "EvaluationCache",
    "EvaluationChain",
    "EvaluationRequest",
    "InvalidInput",
    "MemoryStoreError",
    "Message",
    "PGenRM",
    "PGenRMError",
    "Persona",
    "PreferencePair",
    "Prices",
    "Prompt",
    "RerankItem",
    "RerankResult",
    "Rubric",
    "SamplingParams",
    "Scaling",
    "StatedPreference",
    "Usage",
    "UserMemory",
    "UserSignals",
    "__version__",
    "as_node",
    "as_reward_func",
    "as_tool",
    "bundled_model",
    "load_engine",
]

_HOME = {
    name: module
    for module, names in {
        "chain": "ChainFormat",
        "engines": "load_engine",
        "engines.protocol": "Capabilities Completion Engine Prompt SamplingParams",
        "evaluation_cache": "EvaluationCache",
        "errors": "BudgetReached ChainError ConfigurationError EngineError EngineTimeout "
        "EngineUnavailable EntryConflict EntryRefused InvalidInput MemoryStoreError PGenRMError",
        "integrations.langchain.node": "as_node",
        "integrations.langchain.tool": "as_tool",
        "integrations.trl": "as_reward_func",
        "memory": "UserMemory",
        "model_files": "bundled_model",
        "ranking": "RerankItem RerankResult",
        "reward_model": "PGenRM",
        "schema": "Candidate CandidateScore ChainFailure Criterion Evaluation EvaluationChain "
        "EvaluationRequest Message Persona PreferencePair Prices Rubric Scaling StatedPreference Usage "
        "UserSignals",
    }.items()
    for name in names.split()
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("pgenrm-agent")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
