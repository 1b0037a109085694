"""Who may import whom, and the picture of it in docs/concepts/architecture.md."""

from __future__ import annotations

import os
import re

from import_graph import ROOT, circles, imports, known_part, mermaid, modules, part_of

PAGE = ROOT / "docs" / "concepts" / "architecture.md"
LONGEST_FILE = 500
HEAVY = (
    "torch",
    "transformers",
    "xgrammar",
    "chromadb",
    "langgraph",
    "langchain_core",
    "vllm",
    "openai",
)

# Lowest first: a module imports from its own layer and from those before it.
LAYERS = [
    {
        "background_loop",
        "errors",
        "engine_names",
        "extras",
        "figures",
        "files",
        "jsonl",
        "machine",
        "progress",
        "run_folder",
        "settings",
        "sync_wrappers",
        "tracing",
        "user_ids",
        "wording",
    },
    {"fields", "schema", "arguments", "evaluation_cache"},
    {
        "aggregation",
        "chain",
        "chat_messages",
        "confidence",
        "costs",
        "evidence",
        "feedback",
        "language",
        "ranking",
        "sampling",
    },
    {"engines", "embedding", "model_files", "testing"},
    {"memory"},
    {"prototypes", "opening"},
    {"graphs"},
    {"evaluation_input", "evaluation_run"},
    {"remembering", "reward_model"},
    {"client", "demo", "evaluation", "integrations", "debugging"},
    {"training", "studio", "benchmarks"},
    {"cli"},
]
PURE = {"errors", "fields", "schema", "user_ids"} | LAYERS[2]


def test_modules_import_only_from_below() -> None:
    heights = {part: height for height, parts in enumerate(LAYERS) for part in parts}
    wrong = []
    for module, path in modules().items():
        part = part_of(module)
        if part is None:
            continue
        assert part in heights, f"pgenrm_agent.{part} has no layer: add it to LAYERS"
        for imported in imports(module, path):
            below = known_part(imported)
            if below is not None and heights[below] > heights[part]:
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_no_modules_import_each_other() -> None:
    assert circles() == []


def test_pure_modules_import_nothing_heavy() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, path in modules().items()
        if part_of(module) in PURE
        for imported in imports(module, path)
        if imported.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_files_stay_short() -> None:
    folders = ("pgenrm_agent", "graphs", "training", "studies")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in files}
    assert [path for path, lines in lengths.items() if lines > LONGEST_FILE] == []


def test_the_picture_shows_the_imports_as_they_are() -> None:
    """PGENRM_DRAW=1 draws it anew."""
    page = PAGE.read_text(encoding="utf-8")
    picture = f"```mermaid\n{mermaid(LAYERS)}```"
    if os.environ.get("PGENRM_DRAW"):
        page = re.sub(r"```mermaid\n.*?```", lambda _: picture, page, flags=re.DOTALL)
        PAGE.write_text(page, encoding="utf-8")
    assert picture in page, "the imports changed: run this test with PGENRM_DRAW=1"
