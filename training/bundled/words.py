"""The words that texts are rewritten with and wishes are said with: words.yaml."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

WORDS: dict[str, Any] = yaml.safe_load(
    (resources.files(__package__ or "") / "words.yaml").read_text(encoding="utf-8")
)
"""phrases: openings and endings by pole. swaps: pattern and replacement.

wishes: what people say that they want, by pole; off_topic: what says nothing about style. foreign:
sentences by language."""
