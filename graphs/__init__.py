"""LangGraph state machines: one evaluation, and the learning of prototypes.

Installed, this folder is `pgenrm_agent.graphs`.
"""
