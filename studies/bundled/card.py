"""The model card, written from a run's own records and a measured report: no figure by hand."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.metrics import plus_minus
from pgenrm_agent.files import write_text
from pgenrm_agent.run_folder import RUN
from pgenrm_agent.training.bundled.simulation import load_answers
from studies.bundled.measure import MEASURED, PARTS, Measured

STAGES = {
    "cre": "2, criteria-based reasoning enhancement (CRE, GRPO)",
    "curriculum": "3, hard-negative curriculum (GRPO)",
}
SIMULATED = ("simulated", "simulated-train")


def write_card(run: Path, measured: Path, data: Path, machine: str) -> Path:
    """Write `run/model/MODEL_CARD.md`; returns its path.

    run: of any stage, on a model that began with `pgenrm train psi`; its record names the runs before it.
    measured: folder of what `studies.bundled.measure` measured, every part of it.

    Raises:
        ConfigurationError: the run or a figure is not there, or the first of the runs is no psi run.
    """
    for path in (run / RUN, measured / MEASURED):
        if not path.is_file():
            raise ConfigurationError(
                f"{path}: no such file; run `pgenrm train psi` and `python -m studies.bundled measure` first"
            )
    figures = Measured.model_validate_json((measured / MEASURED).read_text(encoding="utf-8"))
    missing = [part for part in PARTS if getattr(figures, part) is None]
    if missing or figures.test is None or figures.calibration is None:
        raise ConfigurationError(
            f"{measured / MEASURED} has no {', '.join(missing)}: run `python -m studies.bundled measure`"
        )
    runs = [json.loads((run / RUN).read_text(encoding="utf-8"))]
    while runs[0].get("start_from"):
        runs.insert(0, runs[0]["start_from"])
    supervised = [record for record in runs if "stage" not in record]
    if not supervised or "parameters" not in supervised[0]:
        raise ConfigurationError(
            f"{run / RUN}: the model that it started from has no record of a `pgenrm train psi` run beside it"
        )
    # A folder's name is nobody's business.
    reinforced = [
        record | {"source_kind": record["source"].partition(":")[0] or "unknown"}
        for record in runs
        if "stage" in record
    ]
    answers = load_answers(data / "train.jsonl.gz")
    chains: Counter[str] = Counter()
    for record in supervised:
        chains.update(record["chains"])
    template = (resources.files("studies.bundled") / "model_card.md.j2").read_text(encoding="utf-8")
    text = (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
        .from_string(template)
        .render(
            supervised=supervised,
            reinforced=reinforced,
            stages=STAGES,
            real_choices=any(record["source_kind"] not in SIMULATED for record in reinforced),
            report=figures.test,
            figures=figures,
            machine=machine,
            parameters=supervised[0]["parameters"],
            training_answers=len(answers.texts),
            training_queries=len(answers.queries),
            kept=chains["kept"],
            written=chains.total(),
            rows=sorted(figures.test.accuracy.items(), key=lambda item: item[1].strict.mean),
            plus_minus=plus_minus,
            calibrated=list(
                zip(figures.calibration.before, figures.calibration.after, strict=True)
            ),
        )
    )
    target = run / "model" / "MODEL_CARD.md"
    write_text(target, text)
    return target
