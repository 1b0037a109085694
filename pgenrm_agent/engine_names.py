"""The engines by name. Light: settings, options and the constructor refuse any other."""

from __future__ import annotations

from typing import Literal, get_args

EngineName = Literal["transformers", "vllm", "openai"]
ENGINES: tuple[str, ...] = get_args(EngineName)
