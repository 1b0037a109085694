"""Prototypes: groups of users who judge alike, and which of them are near (paper 4.2).

`PrototypeStore` keeps versions of them on Chroma, `Neighbors` finds similar users for an evaluation.
"""

from pgenrm_agent.prototypes.matching import Match, Neighbors
from pgenrm_agent.prototypes.store import PrototypeEntry, PrototypeStatus, PrototypeStore
from pgenrm_agent.prototypes.version import Member, PrototypeSet

__all__ = [
    "Match",
    "Member",
    "Neighbors",
    "PrototypeEntry",
    "PrototypeSet",
    "PrototypeStatus",
    "PrototypeStore",
]
