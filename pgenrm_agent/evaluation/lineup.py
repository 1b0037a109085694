"""The judges that `pgenrm eval` knows by name, and how each is made.

Light to import: the command line shows the names before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from pgenrm_agent.embedding import Embedder
    from pgenrm_agent.engines.protocol import Engine
    from pgenrm_agent.evaluation.datasets.questions import QuestionSet
    from pgenrm_agent.evaluation.judges import Judge
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.schema import Scaling

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
    "crowd": "what other people chose between the same texts",
    "bradley-terry": "not personal, on embeddings of the training choices",
    "bradley-terry-personal": "the same, moved by past choices and the user's own words",
    "own-words": "the answer nearest to what the user wrote about themselves",
}
"""Every judge, with what it sees and does."""

READS_PAST = ("p-genrm", "psi-prompt", "judge-history", "bradley-terry-personal")
"""Judges that are shown past choices, as many as each question brings."""
READS_STATED = ("p-genrm", "judge-stated", "bradley-terry-personal")
"""Judges that are shown what the user stated, and can do without."""
HASHED_WORDS = 2048
"""Dimensions of embeddings, where no encoder is named."""


def judge_names(wanted: Sequence[str]) -> list[str]:
    """Return which judges are meant; `all` stands for every one, and nothing for the method's own.

    Raises ConfigurationError for a name that is none of JUDGES.
    """
    unknown = [name for name in wanted if name not in (*JUDGES, "all")]
    if unknown:
        raise ConfigurationError(f"judge {unknown[0]!r} is unknown: use {', '.join(JUDGES)} or all")
    return list(JUDGES) if "all" in wanted else list(wanted) or ["p-genrm"]


def judges_for(questions: QuestionSet) -> list[str]:
    """Return every judge that the data has what it needs for: others' choices, or own words."""
    from pgenrm_agent.evaluation.embedding_judges import own_words

    missing: set[str] = set()
    if not questions.training:
        missing |= {"crowd", "bradley-terry", "bradley-terry-personal"}
    if not any(own_words(question.stated) for question in questions.questions):
        missing.add("own-words")
    return [name for name in JUDGES if name not in missing]


def make_baselines(
    names: Sequence[str], questions: QuestionSet, embedder: Embedder | None = None
) -> dict[str, Judge]:
    """Return those of the judges that ask no model: what they lack is told before one is loaded.

    embedder: of those that read embeddings; hashed words if not given. Raises ConfigurationError
    where a judge has no choices to be fitted on.
    """
    from pgenrm_agent.embedding import HashingEmbedder
    from pgenrm_agent.evaluation.baselines import CrowdJudge, LengthJudge
    from pgenrm_agent.evaluation.embedding_judges import BradleyTerryJudge, Fits, OwnWordsJudge

    embedder = embedder or HashingEmbedder(HASHED_WORDS)
    baselines: dict[str, Judge] = {}
    fits: Fits | None = None
    for name in names:
        match name:
            case "longest" | "shortest":
                baselines[name] = LengthJudge(name)
            case "crowd":
                baselines[name] = CrowdJudge(questions.crowd)
            case "bradley-terry" | "bradley-terry-personal":
                fits = fits or Fits(questions.training, embedder)
                personal = name == "bradley-terry-personal"
                baselines[name] = BradleyTerryJudge(fits, personal=personal)
            case "own-words":
                baselines[name] = OwnWordsJudge(embedder)
    return baselines


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
    raise ConfigurationError(f"{name} asks no model: `make_baselines` makes it")
