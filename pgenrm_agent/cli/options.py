"""Options and arguments that several commands share, each defined once.

An option behind which a setting stands has no default in a command's signature: what is not given
comes from the environment or a settings file (pgenrm_agent/settings.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pgenrm_agent.engine_names import EngineName
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.user_ids import valid_user_id

MAX_SEED = 2**31 - 1


def from_setting(name: str, otherwise: str, default: object = None) -> dict[str, Any]:
    """Return the arguments of an option whose default is a setting.

    Args:
        name: The setting.
        otherwise: What the default is where nothing sets it, as the help shows it.
        default: That default, where the setting itself has none.
    """

    def value() -> object:
        from pgenrm_agent.settings import read_settings

        chosen = getattr(read_settings(), name)
        return default if chosen is None else chosen

    return {"default_factory": value, "show_default": f"PGENRM_{name.upper()}, else {otherwise}"}


def _user_id(text: str | None) -> str | None:
    try:
        return None if text is None else valid_user_id(text, "the user's id")
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


def _answers_folder() -> Path:
    from pgenrm_agent.settings import read_settings

    folder = read_settings().responses
    if folder is None:
        raise typer.BadParameter("--data is needed, or the setting PGENRM_RESPONSES")
    return folder


# What is printed.
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

# Who is asked about, and what.
UserArgument = Annotated[str, typer.Argument(help="The user's id.", callback=_user_id)]
AnyUserArgument = Annotated[
    str | None, typer.Argument(help="One user; everyone if not given.", callback=_user_id)
]
UserOption = Annotated[
    str, typer.Option("--user", "-u", help="Whose taste counts.", callback=_user_id)
]
OnlyUserOption = Annotated[
    str | None,
    typer.Option(
        "--user",
        "-u",
        help="Whose taste counts.",
        callback=_user_id,
        **from_setting("mcp_user", "each call names somebody"),
    ),
]
QueryOption = Annotated[str, typer.Option("--query", "-q", help="What was asked.")]
CandidatesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Candidate answers: texts; @FILE for the text of a file; @FILE.jsonl for one answer a"
        ' line, as {"id": ..., "text": ...} or as a string.',
        metavar="ANSWER...",
    ),
]

# Where things are.
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Folder of the user memory, or the URL of a Chroma server.",
        **from_setting("memory", "in the data folder"),
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        help="Address of a `pgenrm serve`: its model and its memory are used.",
        **from_setting("server", "none"),
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="SQLite file, or PostgreSQL URL, with the runs.",
        **from_setting("runs", "runs.sqlite in the data folder"),
    ),
]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--keys", help="File of the keys.", **from_setting("keys", "keys.jsonl in the data folder")
    ),
]
AnswersOption = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Folder with train.jsonl.gz and val.jsonl.gz.",
        default_factory=_answers_folder,
        show_default="PGENRM_RESPONSES",
    ),
]

# What judges.
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="Model folder or name.", **from_setting("model", "the bundled model")
    ),
]
EngineOption = Annotated[
    EngineName | None,
    typer.Option(
        "--engine",
        help="What runs the model.",
        **from_setting("engine", "openai where a server is named, or transformers"),
    ),
]
EmbedderOption = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        help="A sentence-transformers model that finds similar users, such as"
        " Qwen/Qwen3-Embedding-0.6B: the same for building prototypes and for using them.",
        **from_setting("embedder", "the bundled model's own token embeddings"),
    ),
]

# How much is sampled.
IndividualOption = Annotated[
    int,
    typer.Option(
        "--individual",
        min=0,
        max=1024,
        help="Evaluation chains with the user's own choices.",
        **from_setting("individual", "8"),
    ),
]
PrototypeOption = Annotated[
    int,
    typer.Option(
        "--prototype",
        min=0,
        max=1024,
        help="Evaluation chains with similar users' choices, where prototypes were built.",
        **from_setting("prototype", "4"),
    ),
]
SimilarOption = Annotated[
    int,
    typer.Option(
        "--prototype",
        min=0,
        max=1024,
        help="Evaluation chains with similar users' choices; none unless asked for.",
    ),
]
SureOption = Annotated[
    float | None,
    typer.Option(
        "--stop-when-sure",
        min=0.5,
        max=1.0,
        help="End early once more chains leave the same answer in front with this probability.",
        **from_setting("stop_when_sure", "never"),
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=MAX_SEED,
        help="Seed of the samples.",
        **from_setting("seed", "drawn and reported"),
    ),
]
FixedSeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=MAX_SEED,
        help="Seed of everything that is drawn.",
        **from_setting("seed", "0", 0),
    ),
]
TemperatureOption = Annotated[float, typer.Option(min=0.0, max=2.0, help="Of the samples.")]
PastChoicesOption = Annotated[
    int,
    typer.Option(
        "--history",
        min=0,
        max=64,
        help="Past choices of a user that a prompt shows, at most; drawn at random.",
        **from_setting("history", "3"),
    ),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most so many, users in turn.")
]
ConcurrencyOption = Annotated[
    int, typer.Option("--concurrency", min=1, help="Evaluations at the same time.")
]

# What it may cost.
PricesOption = Annotated[
    str | None,
    typer.Option(
        "--prices",
        metavar="PROMPT,COMPLETION",
        help="What a million tokens read and a million tokens written cost, such as 0.15,0.60:"
        " results then say what they cost.",
        **from_setting("prices", "not known"),
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="File that keeps evaluations: the same one is not made, and paid for, twice.",
        **from_setting("cache", "nothing is kept"),
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget",
        min=0.0,
        help="What the whole job may cost, earlier starts included: it does not begin when it would"
        " cost more, and ends before it does. Needs --prices.",
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.001,
        help="Seconds after which the chains that are whole by then have to do.",
    ),
]

# What is written of people.
ExportOption = Annotated[
    Path | None,
    typer.Option("--out", help="Write to this file, for you alone to read; else to the output."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]

# Training runs.
ModelFolderOption = Annotated[Path, typer.Option("--model", help="Folder of the model.")]
OutOption = Annotated[
    Path, typer.Option("--out", help="Folder of the run; an unfinished run there continues.")
]
RecipeOption = Annotated[
    str, typer.Option("--recipe", help="Name of a bundled recipe, or a YAML file.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done, and what it takes.")
]
