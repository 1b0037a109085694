"""Where a model is loaded from: a folder, or a name on the hub."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from huggingface_hub import constants
from needs import needs

from pgenrm_agent.embedding import SentenceTransformerEmbedder
from pgenrm_agent.engines import load_engine, vllm
from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.model_files import (
    adapter_source,
    bundled_model,
    hub_trouble,
    loadable,
    model_source,
    refuse_without_model,
)
from pgenrm_agent.training.checkpoint import unpacked


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, which is also the home, with runs/good (a model) and runs/empty."""
    for name in ("good", "empty"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "good" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["gpt2", "meta-llama/Llama-3.1-8B", "owner/name_2.v1"])
def test_a_name_on_the_hub_stays_as_it_is(here: Path, name: str) -> None:
    assert model_source(name) == name
    assert adapter_source(name) == name


@pytest.mark.parametrize("place", ["runs/good", "./runs/good", "~/runs/good", "runs/../runs/good"])
def test_a_folder_with_a_model_is_taken(here: Path, place: str) -> None:
    for spelled in (place, Path(place)):
        assert (Path(model_source(spelled)) / "config.json").is_file()


@pytest.mark.parametrize(
    "place",
    [
        *("./gpt2", "../gpt2", "/nowhere/gpt2", "~/gpt2", "a/b/c", "gpt2/", ".hidden"),
        *("runs/modle", "runs/deeper/still", "C:\\models\\gpt2", Path("gpt2"), "a--b/c", "a..b/c"),
    ],
    ids=str,
)
def test_a_path_that_leads_nowhere_says_so(here: Path, place: str | Path) -> None:
    with pytest.raises(EngineUnavailable, match="there is no such folder"):
        model_source(place)


@pytest.mark.parametrize("place", ["runs/empty", "./runs/empty", Path("runs")], ids=str)
def test_a_folder_without_a_model_names_the_missing_file(here: Path, place: str | Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"no config\.json there"):
        model_source(place)
    with pytest.raises(EngineUnavailable, match=r"no adapter_config\.json there"):
        adapter_source("runs/good")


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_an_adapter_that_leads_nowhere_says_so(here: Path, engine: str) -> None:
    with pytest.raises(EngineUnavailable, match="no such folder"):
        load_engine(engine, bundled_model(), adapter="./nowhere")  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_a_wrong_path_is_refused_before_anything_heavy_is_imported(engine: str) -> None:
    needs(find_spec(engine), f"needs {engine}")
    script = (
        "import sys\n"
        "from pgenrm_agent import PGenRM\n"
        "from pgenrm_agent.errors import EngineUnavailable\n"
        f"try: PGenRM('./nowhere/at-all', engine={engine!r})\n"
        "except EngineUnavailable as error: print(error)\n"
        "print([m for m in ('torch', 'transformers', 'vllm', 'xgrammar') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    said, heavy = done.stdout.strip().splitlines()
    assert "nowhere/at-all: there is no such folder" in said
    assert heavy == "[]"


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "model.ckpt"]
)
def test_weights_in_a_pickle_are_refused_in_a_line(here: Path, name: str) -> None:
    folder = here / "runs" / "good"
    (folder / name).write_bytes(b"\x80\x04cos\nmkdir\n(Vmade\ntR.")
    with pytest.raises(ConfigurationError, match="in a pickle") as refused:
        load_engine("transformers", folder)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigurationError, match="pickle"):
        refuse_without_model(folder)
    (folder / "model.safetensors").write_bytes(b"")  # what is beside it is not read
    assert model_source(folder) == folder


def test_an_adapter_in_a_pickle_is_refused(here: Path) -> None:
    folder = here / "runs" / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="in a pickle"):
        load_engine("transformers", bundled_model(), adapter=folder)
    (folder / "training_args.bin").write_bytes(b"")
    (folder / "adapter_model.bin").rename(folder / "adapter_model.safetensors")
    assert adapter_source(folder) == folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A hub that knows no model; after `server_close` nobody is at its address. The cache is empty."""

    class Knowing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Knowing)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_that_answers_is_left_to_what_loads_the_model(hub: ThreadingHTTPServer) -> None:
    assert loadable("owner/nothere") == "owner/nothere"


@pytest.mark.parametrize("name", ["nothere", "owner/nothere", "owner/name_2.v1"])
def test_a_name_while_the_hub_is_away_is_refused_at_once(
    here: Path, hub: ThreadingHTTPServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.server_close()
    began = time.monotonic()
    with pytest.raises(EngineUnavailable):
        loadable(name)
    assert time.monotonic() - began < 15  # the libraries' six tries take 23 s, for each file
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    for make in (
        lambda: load_engine("transformers", name),
        lambda: load_engine("vllm", name),
        lambda: load_engine("transformers", bundled_model(), adapter=name),
        lambda: load_engine("vllm", bundled_model(), adapter=name),
        lambda: unpacked(name, here / "out"),
    ):
        with pytest.raises(EngineUnavailable, match="the Hugging Face hub cannot be asked") as said:
            make()
        assert str(said.value).startswith(f"{name}: ")
        assert "\n" not in str(said.value)


def test_vllm_may_load_from_a_hub_of_its_own(
    hub: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.server_close()
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    assert vllm._opened("owner/elsewhere") == "owner/elsewhere"


def test_an_offline_hub_is_not_asked(
    hub: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EngineUnavailable, match="HF_HUB_OFFLINE"):
        loadable("owner/nothere")


def test_while_the_hub_is_away_an_earlier_download_is_loaded(
    tmp_path: Path, hub: ThreadingHTTPServer
) -> None:
    kept = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(bundled_model(), kept / "snapshots" / "a1")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("a1")
    assert loadable("owner/tiny") == "owner/tiny"
    hub.server_close()
    assert loadable("owner/tiny") == kept / "snapshots" / "a1"
    engine = load_engine("transformers", "owner/tiny")
    assert engine.name == "transformers:tiny"


def test_an_encoder_on_a_hub_that_is_away_is_refused_in_a_line(hub: ThreadingHTTPServer) -> None:
    needs(find_spec("sentence_transformers"), "needs sentence-transformers")
    hub.server_close()
    assert hub_trouble("owner/encoder", "modules.json")
    with pytest.raises(
        ConfigurationError, match="cannot load the sentence-transformers model"
    ) as no:
        SentenceTransformerEmbedder("owner/encoder").embed(["So."])
    assert "\n" not in str(no.value)
