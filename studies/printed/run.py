"""Run the blocks of a page in order, in a folder of their own, and tell what they print."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from studies.printed.pages import ROOT, Block, blocks_of, printed_of

SEED = 7
WIDTH = 100
BLOCK_S = 3600
START_S = 300
SHORTENED = "...\n"
"""What a transcript shows instead of an output that it leaves out."""

_ADDRESS = re.compile(r"(?:127\.0\.0\.1|localhost):(\d+)")
_PORT_SETTINGS = {"8000": "PGENRM_SERVE_PORT", "8001": "PGENRM_MCP_PORT"}
_PROGRESS = re.compile(
    r"^(?:.*, for \d+ s|\d+ of \d+ .* a second, \d+ s left|\n?.*\d%\|.*\| \d+/\d+ .*)\n",
    re.MULTILINE,
)


class BlockError(Exception):
    """A block of a page did not run to its end."""

    def __init__(self, block: Block, why: str) -> None:
        super().__init__(f"line {block.line}: {why.strip()}")


@dataclass
class Outputs:
    """What a page's blocks print, by where the page shows it, and the pictures that they draw."""

    texts: dict[int, str] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)


def outputs(
    page: str,
    *,
    slow: bool = True,
    python: Path = Path(sys.executable),
    progress: Callable[[Block], None] = lambda block: None,
) -> Outputs:
    """Run the blocks of a page's text, and return what they print.

    slow: whether blocks that are marked so are run. python: of the environment that a reader has.
    progress: is told of each block before it runs.

    Raises:
        BlockError: A block that the page has run failed; the blocks after it were not run.
    """
    blocks = blocks_of(page)
    shown = {printed.block.start: printed.shown for printed in printed_of(blocks)}
    told = Outputs()
    with Page(page, python) as running:
        for block in blocks:
            if "saved as" in block.marks:
                running.save(block)
            if not block.run or skipped(block, slow=slow):
                continue
            progress(block)
            text = running.run(block)
            try:
                if block.start in shown:
                    told.texts[shown[block.start].start] = as_shown(shown[block.start], text)
                if "draws" in block.marks:
                    file, _, path = block.marks["draws"].partition(" as ")
                    told.pictures[path] = running.file(file)
            except (OSError, ValueError, KeyError) as error:
                raise BlockError(
                    block, f"{type(error).__name__}: {error}; printed: {text}"
                ) from error
    return told


def skipped(block: Block, *, slow: bool) -> bool:
    """Return whether this machine, or this run, leaves a block out."""
    needed = block.marks.get("needs", "").split(":")[0]
    return bool(needed and not os.environ.get(needed)) or ("slow" in block.marks and not slow)


def as_shown(shown: Block, text: str) -> str:
    """Return an output as a block shows it: without blank ends, or the fields that it names."""
    fields = shown.marks.get("fields")
    if fields:
        value = json.loads(text)
        picked = {name: value[name] for name in fields.split(", ")}
        text = json.dumps(picked, indent=2, ensure_ascii=False)
    lines = (line.rstrip() for line in text.strip("\n").splitlines())
    return "\n".join(lines) + "\n"


class Page:
    """A reader's folder, shell and Python session. Ports that the page names are exchanged for free ones."""

    def __init__(self, page: str, python: Path) -> None:
        self._python = python
        self._stack = ExitStack()
        self._ports = {port: str(_free_port()) for port in set(_ADDRESS.findall(page))}
        self._session: subprocess.Popen[str] | None = None

    def __enter__(self) -> Page:
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="page-")))
        shutil.copytree(
            ROOT / "examples",
            self._folder / "examples",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        self._env = _environment(self._folder, self._ports, python=self._python)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def save(self, block: Block) -> None:
        """Write the file that a block shows."""
        (self._folder / block.marks["saved as"]).write_text(block.text, encoding="utf-8")

    def run(self, block: Block) -> str:
        """Run a block; return what it printed, or the transcript."""
        url = block.marks.get("goes on running")
        if url is not None:
            self._stack.enter_context(self._going_on(block, self._exchanged(url)))
            return ""
        if block.language == "python":
            return self._in_session(block)
        if block.language == "sh":
            return self._shell(block, block.commands)
        return "".join(self._transcript(block))

    def file(self, name: str) -> bytes:
        """Return what a block wrote into a file."""
        return (self._folder / name).read_bytes()

    def _transcript(self, block: Block) -> Iterator[str]:
        for command, output in _typed(block.text):
            yield f"$ {command}"
            printed = self._shell(block, command, transcript=True, fails="error: " in output)
            yield SHORTENED if output == SHORTENED else printed

    def _shell(
        self, block: Block, commands: str, *, transcript: bool = False, fails: bool = False
    ) -> str:
        """Run shell commands.

        transcript: whether what stands on standard error is told, too. fails: whether they may fail.
        """
        process = self._start(
            ["bash", "-eo", "pipefail", "-c", self._exchanged(commands)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if transcript else subprocess.PIPE,
        )
        with _ended(process):
            try:
                printed, complaint = process.communicate(timeout=BLOCK_S)
            except subprocess.TimeoutExpired as late:
                raise BlockError(block, f"not done after {BLOCK_S} s") from late
        if process.returncode and not fails:
            raise BlockError(
                block, f"exit code {process.returncode}: {complaint or printed}\n{commands}"
            )
        return self._told(printed)

    def _in_session(self, block: Block) -> str:
        if self._session is None:
            self._session = self._start(
                [str(self._python), "-P", str(Path(__file__).with_name("session.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stack.enter_context((self._folder / "errors").open("w")),
            )
            self._stack.enter_context(_ended(self._session))
        session = self._session
        assert session.stdin is not None
        assert session.stdout is not None
        asked = {"code": self._exchanged(block.text), "place": f"block on line {block.line}"}
        session.stdin.write(json.dumps(asked) + "\n")
        session.stdin.flush()
        answer = session.stdout.readline()
        if not answer:
            raise BlockError(block, "Python ended: " + (self._folder / "errors").read_text())
        done = json.loads(answer)
        if done["error"]:
            raise BlockError(block, done["error"])
        return self._told(done["printed"])

    @contextmanager
    def _going_on(self, block: Block, url: str) -> Iterator[None]:
        """Start a block and wait until its server answers; end it afterwards."""
        code = self._exchanged(block.commands)
        command = (
            [str(self._python), "-P", "-c", code]
            if block.language == "python"
            else ["bash", "-eo", "pipefail", "-c", code]
        )
        log = self._folder / f"server-{block.line}"
        with log.open("w") as told:
            process = self._start(command, stdout=told, stderr=subprocess.STDOUT)
        with _ended(process):
            ends = time.monotonic() + START_S
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > ends:
                    raise BlockError(block, f"{url} does not answer: {log.read_text()}")
                time.sleep(0.5)
            yield

    def _start(
        self,
        command: list[str],
        *,
        stdout: int | IO[str],
        stderr: int | IO[str],
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=self._folder,
            env=self._env,
            text=True,
            start_new_session=True,
        )

    def _exchanged(self, code: str) -> str:
        for port, free in self._ports.items():
            code = re.sub(rf"(?<=[:= ]){port}\b", free, code)
        return code

    def _told(self, text: str) -> str:
        for port, free in self._ports.items():
            text = text.replace(f":{free}", f":{port}")
        return _PROGRESS.sub("", text.replace(f"{self._folder}/", ""))


def _typed(transcript: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a transcript, with the lines that they go on in, and their outputs."""
    for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        command = re.match(r"(?:.*\\\n)*.*\n", part)
        assert command is not None
        yield command[0], part[command.end() :]


def _environment(folder: Path, ports: Mapping[str, str], python: Path) -> dict[str, str]:
    """Return a reader's environment: nothing set, nothing at home, and one seed for what draws its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PGENRM_", "XDG_")) or name == "PGENRM_RESPONSES"
    }
    if python != Path(sys.executable):
        kept.pop("PYTHONPATH", None)  # what is put before this environment's packages
    settings = {
        _PORT_SETTINGS[port]: free for port, free in ports.items() if port in _PORT_SETTINGS
    }
    return {
        **kept,
        **settings,
        "HOME": str(folder),
        "PGENRM_HOME": str(folder / "home"),
        "PGENRM_SEED": str(SEED),
        "PATH": os.pathsep.join((str(python.parent), os.environ["PATH"])),
        "COLUMNS": str(WIDTH),
        "NO_COLOR": "1",
        "TERM": "dumb",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
    }


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process and what it started."""
    try:
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            try:
                process.wait(timeout=0 if process.stdin is None else 30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as refused:
        return refused.code < 500
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
