"""Who imports whom in the package, read from the sources: modules, and the rooms that they are in."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Where each module's source is: the wheel maps these folders under the package.
FOLDERS = {
    "pgenrm_agent": ROOT / "pgenrm_agent",
    "pgenrm_agent.graphs": ROOT / "graphs",
    "pgenrm_agent.training": ROOT / "training",
}


@cache
def modules() -> dict[str, Path]:
    """The source of each module of the package, by its name when installed."""
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
    """Absolute names of what `module` imports, at its top or in its functions."""
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


def part_of(module: str) -> str | None:
    """The room of a module: the name behind `pgenrm_agent.`; None for others and the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pgenrm_agent" and len(parts) > 1 else None


@cache
def known_parts() -> frozenset[str | None]:
    return frozenset(part_of(name) for name in modules())


def known_part(module: str) -> str | None:
    """The room that an imported name belongs to; None for names of the package itself."""
    part = part_of(module)
    return part if part in known_parts() else None


@cache
def module_graph() -> dict[str, frozenset[str]]:
    """Module -> the modules of the package that it imports itself."""
    known = modules()
    # The package itself names everything, on first use; no module imports by way of it.
    return {
        module: frozenset((imports(module, path) & known.keys()) - {module, "pgenrm_agent"})
        for module, path in known.items()
        if module != "pgenrm_agent"
    }


def circles() -> list[list[str]]:
    """Groups of modules that import each other, however far around."""
    graph = module_graph()

    def reachable(start: str) -> set[str]:
        reached: set[str] = set()
        waiting = [start]
        while waiting:
            for module in graph[waiting.pop()] - reached:
                reached.add(module)
                waiting.append(module)
        return reached

    reach = {module: reachable(module) for module in graph}
    groups = {
        frozenset(peer for peer in reach[module] if module in reach[peer])
        for module in graph
        if module in reach[module]
    }
    return sorted(sorted(group) for group in groups)


def mermaid(layers: list[set[str]]) -> str:
    """The rooms as a Mermaid flowchart: an arrow for each import that no longer way stands for."""
    edges: dict[str, set[str]] = {part: set() for part in known_parts() if part}
    for module, path in modules().items():
        part = part_of(module)
        if part is None:
            continue
        edges[part] |= {
            below for name in imports(module, path) if (below := known_part(name)) and below != part
        }

    def below(part: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        for lower in edges[part] - seen:
            seen = below(lower, seen | {lower})
        return seen

    lines = ["flowchart TB"]
    for height in range(len(layers) - 1, -1, -1):
        names = sorted(part for part in edges if part in layers[height])
        if names:
            lines.append(f"  subgraph layer{height}[ ]")
            lines += [f"    {name}" for name in names]
            lines.append("  end")
    for part in sorted(edges):
        direct = edges[part]
        longer = frozenset().union(*(below(lower) for lower in direct)) if direct else frozenset()
        lines += [f"  {part} --> {lower}" for lower in sorted(direct - longer)]
    return "\n".join(lines) + "\n"
