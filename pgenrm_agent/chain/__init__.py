"""The evaluation chain: prompts rendered, answers parsed. Pure text in, typed values out."""

from pgenrm_agent.chain.escape import escape
from pgenrm_agent.chain.format import ChainFormat
from pgenrm_agent.chain.parse import ParsedChain, answer_in, parse_chain, read_persona
from pgenrm_agent.chain.sections import Section, Sections, split_reasoning, split_sections

__all__ = [
    "ChainFormat",
    "ParsedChain",
    "Section",
    "Sections",
    "answer_in",
    "escape",
    "parse_chain",
    "read_persona",
    "split_reasoning",
    "split_sections",
]
