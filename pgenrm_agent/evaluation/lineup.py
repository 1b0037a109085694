"""The judges that `pgenrm eval` knows by name, and how each is made.

Light to import: the command line shows the names before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from pgenrm_agent.engines.protocol import Engine
    from pgenrm_agent.evaluation.datasets.questions import QuestionSet
    from pgenrm_agent.evaluation.judges import Judge
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.schema import Scaling

__all__ = ["JUDGES", "judge_names", "make_baseline", "make_judge"]

JUDGES = {
    "p-genrm": "evaluation chains with past choices and statements",
    "psi-prompt": "one chain with past choices",
    "blind": "as p-genrm, with nothing known of the user",
    "judge": "scores at once, nothing known",
    "judge-thinking": "thinks before it scores, nothing known",
    "judge-history": "scores at once, past choices shown",
    "judge-stated": "scores at once, statements shown",
    "static-persona": "one persona a user, shown for every question",
    "longest": "the longest answer",
    "shortest": "the shortest answer",
    "bradley-terry": "not personal, on embeddings of the training choices",
}
"""Every judge, with what it sees and does."""

HASHED_WORDS = 2048
"""Dimensions of the Bradley-Terry fit."""


def judge_names(wanted: Sequence[str]) -> list[str]:
    """Return which judges are meant; `all` stands for every one, and nothing for the method's own.

    Raises ConfigurationError for a name that is none of JUDGES.
    """
    unknown = [name for name in wanted if name not in (*JUDGES, "all")]
    if unknown:
        raise ConfigurationError(f"judge {unknown[0]!r} is unknown: use {', '.join(JUDGES)} or all")
    return list(JUDGES) if "all" in wanted else list(wanted) or ["p-genrm"]


def make_baseline(name: str, questions: QuestionSet) -> Judge | None:
    """Return a judge that asks no model, so that what it lacks is told before one is loaded.

    None for a judge that does ask one. Raises ConfigurationError where `bradley-terry` has no
    choices to be fitted on, or scikit-learn is missing.
    """
    from pgenrm_agent.evaluation.baselines import BradleyTerryJudge, LengthJudge

    if name == "longest":
        return LengthJudge("longest")
    if name == "shortest":
        return LengthJudge("shortest")
    if name == "bradley-terry":
        from pgenrm_agent.embedding import HashingEmbedder

        return BradleyTerryJudge(questions.training, HashingEmbedder(HASHED_WORDS))
    return None


def make_judge(
    name: str,
    model: PGenRM,
    engine: Engine,
    questions: QuestionSet,
    scaling: Scaling,
    *,
    embedder: str | None = None,
) -> Judge:
    """Return a judge that asks a model.

    model, engine: the reward model, and the engine behind it for judges that prompt in plain words.
    scaling: how much the method samples; what is shown and how hot is sampled goes for all.
    embedder: name of what finds similar users, where it is not the bundled model.
    """
    from pgenrm_agent.evaluation.judges import ChainJudge, PromptJudge, StaticPersonaJudge

    heat, shown = scaling.temperature, scaling.history
    match name:
        case "p-genrm":
            return ChainJudge(name, model, scaling, embedder=embedder)
        case "blind":
            return ChainJudge(name, model, scaling, history=False, stated=False, embedder=embedder)
        case "psi-prompt":
            single = scaling.model_copy(update={"individual": 1, "prototype": 0})
            return ChainJudge(name, model, single, stated=False)
        case "judge":
            return PromptJudge(name, engine, temperature=heat)
        case "judge-thinking":
            return PromptJudge(name, engine, thinking=True, temperature=heat)
        case "judge-history":
            return PromptJudge(name, engine, history=shown, temperature=heat)
        case "judge-stated":
            return PromptJudge(name, engine, stated=True, temperature=heat)
        case "static-persona":
            return StaticPersonaJudge(
                name, engine, questions.questions, history=shown, temperature=heat
            )
    raise ConfigurationError(f"{name} asks no model: `make_baseline` makes it")
