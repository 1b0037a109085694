"""LangGraph state machines: one evaluation, and the learning of prototypes."""
