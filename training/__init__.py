"""Training in three stages, of a model from scratch or of any instruct model; see `pgenrm train`.

Installed, this folder is `pgenrm_agent.training`.
"""
