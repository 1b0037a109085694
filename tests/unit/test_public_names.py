"""What `import pgenrm_agent` offers, and what it costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module

import pytest
from import_graph import FOLDERS, ROOT, modules

import pgenrm_agent

HEAVY = ("torch", "transformers", "chromadb", "langgraph", "langchain_core", "vllm", "openai")


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


def test_only_packages_and_modules_that_the_docs_name_list_their_names() -> None:
    """Elsewhere a leading underscore tells what is a module's own; a second list could differ."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        module
        for page in pages
        for module in re.findall(r"pgenrm_agent(?:\.[a-z_0-9]+)+", page.read_text(encoding="utf-8"))
    }
    listing = {
        name
        for name, path in modules().items()
        if path.name != "__init__.py"
        and re.search(r"^__all__\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert listing <= named


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
