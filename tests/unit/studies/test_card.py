"""The model card: every figure from a run's record or a report, for a model of any stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.fitness import Fitness, RightShare
from pgenrm_agent.evaluation.metrics import Accuracy, Interval, MeanError
from studies.bundled.calibration import Calibration, Figures
from studies.bundled.card import write_card
from studies.bundled.evaluate import EvaluationReport
from studies.bundled.measure import MEASURED, PARTS, Measured, Speed
from studies.bundled.reasons import ReasonCheck

PSI: dict[str, Any] = {
    "recipe": {"name": "first", "seed": 4, "chain_format": "compact-2"},
    "parameters": 3_400_000,
    "steps": 90,
    "recipe_steps": 100,
    "padded_tokens": 2_500_000,
    "seconds": 600.0,
    "chains": {"kept": 6, "tie": 4},
    "start_from": None,
}
CRE: dict[str, Any] = {
    "stage": "cre",
    "recipe": {"name": "small", "seed": 5, "choices_per_step": 4, "samples": 8},
    "source": "simulated-train:/somewhere/private:500",
    "steps": 40,
    "seconds": 1020.0,
    "start_from": PSI,
}


def card(record: dict[str, Any], data: Path, folder: Path) -> str:
    report = EvaluationReport(
        simulation="styles-v1",
        users=50,
        history=3,
        chains=8,
        temperature=1.0,
        seed=0,
        engine="vllm:model",
        seconds=120.0,
        failed_chains=3,
        position_bias=0.5,
        arithmetic_slips=0.25,
        accuracy={
            "teacher": Accuracy(
                strict=MeanError(mean=0.735, standard_error=0.014),
                accuracy=MeanError(mean=0.75, standard_error=0.013),
                coverage=0.98,
                ties=1,
                comparisons=50,
            ),
            "silent": Accuracy.of([float("nan")] * 50),
        },
    )
    right = RightShare(right=0.875, interval=Interval(low=0.79, high=0.93), cases=96)
    fitness = Fitness(
        judge="p-genrm",
        verdict="unsure",
        every=right,
        chance=0.4,
        runs=5,
        splits={"taste: brief": right.model_copy(update={"right": 0.75, "cases": 12})},
        tied=0.02,
        not_scored=0.0,
        unreadable=0.0,
        contradictory=None,
        prefers_first=0.48,
        always_missed=("readme-rice",),
    )
    figures = Figures(
        chains=8, comparisons=400, confidence=0.9, right=0.7, ece=0.2, auroc=0.66, log_loss=0.6
    )
    better = figures.model_copy(update={"confidence": 0.71, "ece": 0.03})
    measured = Measured(
        test=report,
        obvious=fitness,
        pages=fitness.model_copy(update={"runs": 10}),
        reasons=ReasonCheck(
            cited=200, cited_true=190, personas=50, personas_true=46, poles_true=49
        ),
        calibration=Calibration(noise={}, before=(figures,), after=(better,)),
        speed=Speed(
            median=2.25,
            least=2.0,
            most=3.0,
            chains=8,
            candidates=3,
            history=3,
            engine="transformers:model",
            machine="2 CPU cores",
        ),
    )
    (folder / "model").mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / MEASURED).write_text(measured.model_dump_json())
    return write_card(folder, folder, data, "a machine").read_text()


def test_a_card_tells_the_stages_that_made_the_model(few_answers: Path, tmp_path: Path) -> None:
    text = card(PSI, few_answers, tmp_path)
    assert "| stage | 1, persona-guided scoring induction (PSI) |" in text
    assert "| recipe | `first`, seed 4: 90 of 100 steps, 2.5 M tokens, 10 minutes |" in text
    assert "6 of 10 chains kept by rejection sampling" in text
    assert "| teacher | 73.5 ± 1.4 % | 75.0 ± 1.3 % | 98.0 % | 1 of 50 |" in text
    # The headline orders the rows: who scores nothing is never right.
    assert text.index("| silent | 0.0 ± 0.0 % | - | 0.0 % |") < text.index("| teacher | 73.5")
    assert "differ from its own\nmarks and weights by more than 0.1: 25.0 %" in text
    assert "has seen no real person's\nchoice" in text

    text = card(CRE | {"stage": "curriculum", "start_from": CRE}, few_answers, tmp_path)
    assert "(PSI); 2, criteria-based reasoning enhancement (CRE, GRPO); 3, hard-negative" in text
    assert (
        "| cre | `small`, seed 5: 40 steps of 32 chains, choices of `simulated-train`, 17 minutes |"
        in text
    )
    assert "private" not in text
    assert "has seen no real person's\nchoice" in text


def test_a_card_tells_all_that_was_measured(few_answers: Path, tmp_path: Path) -> None:
    text = card(PSI, few_answers, tmp_path)
    assert "over 400 simulated validation users" in text
    assert "| 8 | by the spread alone | 90.0 % | 70.0 % | 0.200 | 0.660 |" in text
    assert "| 8 | with what is known of chains | 71.0 % | 70.0 % | 0.030 | 0.660 |" in text
    assert "| all | 87.5 % | 79 to 93 | 96 |\n| taste: brief | 75.0 % | 79 to 93 | 12 |" in text
    assert "Verdict: unsure. Ties: 2.0 %." in text
    assert "wrong in every run: readme-rice." in text
    assert "of 200 choices that\nchains cite, the property holds in 95.0 %" in text
    assert (
        "98.0 % first name a taste that the choices show on the whole, and 92.0 % the strongest"
        in text
    )
    assert "2.2 s\n(2.0 to 3.0) on 2 CPU cores" in text


def test_a_card_says_when_real_people_were_learned_from(few_answers: Path, tmp_path: Path) -> None:
    text = card(CRE | {"source": "people-topics:arguments.jsonl.gz"}, few_answers, tmp_path)
    assert "no real person" not in text
    assert "choices of `people-topics`" in text


def test_a_card_without_what_it_is_made_of_is_refused(few_answers: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"run\.json: no such file"):
        write_card(tmp_path, tmp_path, few_answers, "a machine")
    with pytest.raises(ConfigurationError, match="no record of a `pgenrm train psi` run"):
        card(CRE | {"start_from": {}}, few_answers, tmp_path)
    for part in PARTS:
        path = tmp_path / MEASURED
        figures = json.loads(path.read_text())
        path.write_text(json.dumps(figures | {part: None}))
        with pytest.raises(ConfigurationError, match=f"has no {part}: run"):
            write_card(tmp_path, tmp_path, few_answers, "a machine")
        path.write_text(json.dumps(figures))
