"""The evaluation chain: prompts rendered, answers parsed. Pure text in, typed values out."""

from pgenrm_agent.chain.escape import escape
from pgenrm_agent.chain.format import ChainFormat
from pgenrm_agent.chain.layout import SECTIONS, Turn
from pgenrm_agent.chain.parse import (
    parse_chain,
    read_criteria,
    read_notes,
    read_persona,
    section_spans,
    written_persona,
)
from pgenrm_agent.chain.parsed import ParsedChain
from pgenrm_agent.chain.prose import answer_in
from pgenrm_agent.chain.sections import Section, Sections, split_reasoning, split_sections

__all__ = [
    "SECTIONS",
    "ChainFormat",
    "ParsedChain",
    "Section",
    "Sections",
    "Turn",
    "answer_in",
    "escape",
    "parse_chain",
    "read_criteria",
    "read_notes",
    "read_persona",
    "section_spans",
    "split_reasoning",
    "split_sections",
    "written_persona",
]
