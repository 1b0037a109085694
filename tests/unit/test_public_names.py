"""What `import pgenrm_agent` offers, what it costs, and who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import pgenrm_agent

ROOT = Path(__file__).parents[2]
# Where each module's source is: the wheel maps these folders under the package.
FOLDERS = {
    "pgenrm_agent": ROOT / "pgenrm_agent",
    "pgenrm_agent.graphs": ROOT / "graphs",
    "pgenrm_agent.training": ROOT / "training",
}
HEAVY = ("torch", "transformers", "chromadb", "langgraph", "langchain_core", "vllm", "openai")

# Lowest first: a module imports from its own layer and from those before it.
LAYERS = [
    {
        "background_loop",
        "errors",
        "files",
        "jsonl",
        "machine",
        "progress",
        "run_folder",
        "settings",
        "sync_wrappers",
    },
    {"schema"},
    {"chain", "ranking", "sampling", "aggregation"},
    {"engines", "embedding", "model_files", "testing"},
    {"memory"},
    {"prototypes", "local_engine", "opening"},
    {"graphs"},
    {"evaluation_input", "evaluation_run"},
    {"reward_model"},
    {"demo", "evaluation", "integrations", "debugging"},
    {"training", "studio", "benchmarks"},
    {"cli"},
]
PURE = {"errors", "schema", "chain", "ranking", "sampling", "aggregation"}


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def typed_homes() -> dict[str, str]:
    """Where type checkers find each public name: the imports under `if TYPE_CHECKING:`."""
    source = (FOLDERS["pgenrm_agent"] / "__init__.py").read_text(encoding="utf-8")
    homes: dict[str, str] = {}
    for block in ast.parse(source).body:
        if isinstance(block, ast.If):
            for node in block.body:
                if isinstance(node, ast.ImportFrom):
                    homes |= {alias.name: str(node.module) for alias in node.names}
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    homes[node.target.id] = "pgenrm_agent"
    return homes


def test_public_names_are_the_ones_that_type_checkers_see() -> None:
    assert sorted(typed_homes()) == sorted(pgenrm_agent.__all__)
    assert set(pgenrm_agent.__all__) <= set(dir(pgenrm_agent))


def test_every_public_name_is_what_type_checkers_take_it_for() -> None:
    for name, home in typed_homes().items():
        if name != "__version__":
            assert getattr(pgenrm_agent, name) is getattr(import_module(home), name), name


def test_every_public_name_comes_from_the_package_and_says_what_it_is() -> None:
    for name in set(pgenrm_agent.__all__) - {"__version__"}:
        value = getattr(pgenrm_agent, name)
        assert value.__module__.startswith("pgenrm_agent."), name
        assert value.__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        pgenrm_agent.Nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = python(f"import sys, pgenrm_agent; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert loaded == "[]"


def test_making_a_reward_model_loads_nothing_heavy() -> None:
    loaded = python(
        "import sys, pgenrm_agent as p; p.PGenRM(); p.Scaling(); p.PreferencePair; p.UserMemory;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert loaded == "[]"


def test_importing_the_package_takes_less_than_300_ms() -> None:
    timed = (
        "import time; t = time.perf_counter(); import pgenrm_agent; print(time.perf_counter() - t)"
    )
    assert min(float(python(timed)) for _ in range(3)) < 0.3


@cache
def modules() -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            paths[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return paths


def typing_only(tree: ast.Module) -> set[ast.AST]:
    """Nodes under `if TYPE_CHECKING:`, which never run."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def imports(module: str, path: Path) -> set[str]:
    """Absolute names of the modules that `module` imports, at its top or in its functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = typing_only(tree)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(
                [*(above if node.level else []), *([node.module] if node.module else [])]
            )
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def layer_of(part: str) -> int:
    for height, parts in enumerate(LAYERS):
        if part in parts:
            return height
    raise AssertionError(f"pgenrm_agent.{part} has no layer: add it to LAYERS in {__file__}")


def part_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "pgenrm_agent" and len(parts) > 1 else None


@cache
def known_parts() -> frozenset[str | None]:
    return frozenset(part_of(name) for name in modules())


def known_part(module: str) -> str | None:
    """The part that an imported name belongs to; None for names of the package itself."""
    part = part_of(module)
    return part if part in known_parts() else None


def test_modules_import_only_from_below() -> None:
    wrong = []
    for module, path in modules().items():
        part = part_of(module)
        if part is None:
            continue
        for imported in imports(module, path):
            below = known_part(imported)
            if below is not None and layer_of(below) > layer_of(part):
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_pure_modules_import_nothing_heavy() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, path in modules().items()
        if part_of(module) in PURE
        for imported in imports(module, path)
        if imported.split(".")[0] in HEAVY
    ]
    assert wrong == []
