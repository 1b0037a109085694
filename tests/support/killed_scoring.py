"""A job to be killed: `python killed_scoring.py IN OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.integrations.dataset_scoring import DatasetJob, in_process, score_dataset
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling
from pgenrm_agent.testing import ScriptedEngine, write_chain


def chain(prompt: Prompt, sample: int) -> str:
    shown = prompt.messages[1].content.split("[The Start of Response ")[1:]
    return write_chain([float(one.split("\n")[1][1:]) for one in shown])


if __name__ == "__main__":
    job = DatasetJob(
        model="scripted", engine="scripted", scaling=Scaling(individual=2, prototype=0), seed=4
    )
    with PGenRM(engine=ScriptedEngine(chain, latency_s=0.02)) as model:
        score_dataset(Path(sys.argv[1]), Path(sys.argv[2]), job, in_process(model, concurrency=2))
