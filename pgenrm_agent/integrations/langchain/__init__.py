"""LangChain and LangGraph: tools, rerankers, best-of-n, a node."""
