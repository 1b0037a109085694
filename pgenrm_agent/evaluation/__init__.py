"""Measure a judge of answers against what people chose: questions in, one table out.

The harness needs nothing of the training module; `pgenrm_agent.evaluation.datasets.questions` makes questions
from the datasets that the training module reads.
"""
