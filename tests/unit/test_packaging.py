"""What a user gets who installs the wheel, and what the build promises."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from needs import IN_CI
from packaging.requirements import Requirement
from packaging.version import Version

import pgenrm_agent

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "pgenrm_agent": "pgenrm_agent",
    "graphs": "pgenrm_agent/graphs",
    "training": "pgenrm_agent/training",
}


SOURCES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the source distribution of this tree unpacks to."""
    tree = tmp_path_factory.mktemp("tree")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copy(ROOT / name, tree)
    _run(tree, "-c", "from setuptools import build_meta; build_meta.build_sdist('out')")
    (built,) = (tree / "out").glob("*.tar.gz")
    with tarfile.open(built) as archive:
        archive.extractall(tree / "out", filter="data")
    return tree / "out" / built.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def built(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution."""
    out = tmp_path_factory.mktemp("wheel")
    # The build leaves folders beside the sources.
    sources = shutil.copytree(sdist, tmp_path_factory.mktemp("sources") / sdist.name)
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir")
    _run(sources, "-m", "pip", "--disable-pip-version-check", "wheel", *options, str(out), ".")
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(built: Path) -> dict[str, int]:
    """What is in the wheel: sizes in bytes by path."""
    with zipfile.ZipFile(built) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


@pytest.fixture(scope="module")
def metadata(built: Path) -> Message:
    """What the wheel says of itself; its text is the README."""
    with zipfile.ZipFile(built) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name), policy=default)


def _run(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table = tomllib.load(file)["project"]
    assert isinstance(table, dict)
    return table


def test_nothing_generic_lands_in_site_packages(wheel: dict[str, int]) -> None:
    tops = {name.partition("/")[0] for name in wheel}
    assert tops == {"pgenrm_agent", f"pgenrm_agent-{_version()}.dist-info"}


def test_every_file_of_the_packages_is_in_the_wheel(wheel: dict[str, int]) -> None:
    expected = {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected - set(wheel) == set()


def test_the_source_distribution_has_what_the_wheel_is_built_of_and_no_more(sdist: Path) -> None:
    files = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    tops = {name.partition("/")[0] for name in files}
    assert tops == {*FOLDERS, *SOURCES, "PKG-INFO", "setup.cfg", "pgenrm_agent.egg-info"}
    assert not [name for name in files if "__pycache__" in name or name.endswith(".pyc")]


def test_the_wheel_says_who_made_it_and_what_it_needs(metadata: Message) -> None:
    assert metadata["Author"] == "the pgenrm-agent developers"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_type_information_and_license_are_in_the_wheel(wheel: dict[str, int]) -> None:
    assert "pgenrm_agent/py.typed" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_the_bundled_model_is_at_most_25_mb(wheel: dict[str, int]) -> None:
    weights = [size for name, size in wheel.items() if name.endswith(".safetensors")]
    assert len(weights) == 1
    assert weights[0] <= 25_000_000


def test_the_license_is_the_published_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert re.findall(r"Copyright .*", text)[-1] == "Copyright [yyyy] [name of copyright owner]"


def test_pinned_versions_lie_in_the_declared_ranges(project: dict[str, object]) -> None:
    pins = _pins()
    required = project["dependencies"]
    assert isinstance(required, list)
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    everything = [*required, *(line for lines in extras.values() for line in lines)]
    for line in everything:
        requirement = Requirement(line)
        pinned = pins.get(requirement.name.lower())
        if pinned is not None:
            assert pinned in requirement.specifier, f"{line} excludes the pinned {pinned}"


def test_the_lowest_versions_are_the_ones_that_test_oldest_installs(
    project: dict[str, Any],
) -> None:
    oldest = _pins("constraints-oldest.txt")
    lines = list(project["dependencies"])
    for extra, required in project["optional-dependencies"].items():
        if extra not in ("vllm", "langgraph-dev", "docs", "dev"):  # not in that environment
            lines += required
    for requirement in map(Requirement, lines):
        lower = [part.version for part in requirement.specifier if part.operator == ">="]
        if lower and requirement.name not in ("mypy", "ruff"):  # which run nothing of this
            assert oldest[requirement.name.lower()] == Version(lower[0]), requirement


def test_every_core_dependency_is_named_with_a_lower_bound(project: dict[str, object]) -> None:
    required = project["dependencies"]
    assert isinstance(required, list)
    for line in required:
        assert {">=", "=="} & {part.operator for part in Requirement(line).specifier}, line


@pytest.mark.skipif(not IN_CI, reason="a developer's installation may be editable")
def test_ci_tests_the_installed_wheel() -> None:
    assert not Path(pgenrm_agent.__file__).is_relative_to(ROOT / "pgenrm_agent")


def _version() -> str:
    from importlib.metadata import version

    return version("pgenrm-agent")


def _pins(file: str = "constraints-cpu.txt") -> dict[str, Version]:
    """Name -> version, from a constraints file."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        name, _, version = line.partition("==")
        if version and not line.startswith("#"):
            pins[name.lower()] = Version(version)
    return pins


def test_python_started_in_a_clone_finds_every_package() -> None:
    # The clone's own folder comes first then, and two of the packages stand elsewhere in it.
    _run(
        ROOT,
        "-c",
        "from pgenrm_agent.graphs import evaluation; from pgenrm_agent.training import psi",
    )
