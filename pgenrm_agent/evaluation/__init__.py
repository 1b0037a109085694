"""Measure how often a judge is right about users: questions in, one table out.

`questions` says what is asked, `datasets` where it comes from, `judges` and `baselines` who answers,
`running` lets them, and `metrics` is the one place that counts. It needs nothing of the training module.
"""
