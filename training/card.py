"""The model card, written from a run's own records and a measured report: no figure by hand."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from pgenrm_agent.training.evaluate import EvaluationReport
from pgenrm_agent.training.simulation import load_answers

from pgenrm_agent.errors import ConfigurationError

__all__ = ["write_card"]


def write_card(run: Path, report: Path, data: Path, machine: str) -> Path:
    """Write `run/model/MODEL_CARD.md`; returns its path.

    Raises:
        ConfigurationError: the run or the report is not there.
    """
    for path in (run / "run.json", report):
        if not path.is_file():
            raise ConfigurationError(
                f"{path}: no such file; run `pgenrm train psi` and `evaluate` first"
            )
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    measured = EvaluationReport.model_validate_json(report.read_text(encoding="utf-8"))
    answers = load_answers(data / "train.jsonl.gz")
    runs = [record]
    while runs[0].get("start_from"):
        runs.insert(0, runs[0]["start_from"])
    chains: Counter[str] = Counter()
    for one in runs:
        chains.update(one["chains"])
    template = (resources.files("pgenrm_agent.training") / "model_card.md.j2").read_text(
        encoding="utf-8"
    )
    text = (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
        .from_string(template)
        .render(
            run=record,
            runs=runs,
            report=measured,
            machine=machine,
            parameters=record["parameters"],
            training_answers=len(answers.texts),
            training_queries=len(answers.queries),
            kept=chains["kept"],
            written=chains.total(),
            rows=sorted(measured.accuracy.items(), key=lambda item: item[1].mean),
        )
    )
    target = run / "model" / "MODEL_CARD.md"
    target.write_text(text, encoding="utf-8")
    return target
