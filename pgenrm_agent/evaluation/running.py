"""Run judges over questions, again and again, so that a kill at any moment costs next to nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field, JsonValue

from pgenrm_agent.costs import CostLedger
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.judges import Judge
from pgenrm_agent.evaluation.questions import Question, check_questions, fingerprint
from pgenrm_agent.evaluation.records import Record, Verdict
from pgenrm_agent.fields import Model
from pgenrm_agent.files import write_text
from pgenrm_agent.jsonl import RecordLog, read_records
from pgenrm_agent.sampling import derive_seed

RECORDS = "records.jsonl"
RUN = "run.json"


class RunDescription(Model):
    """What a folder's records were made with; written once, and compared when a run is resumed.

    source and machine are for readers. fingerprint: of all `questions`. asked_with: what else figures
    depend on. judges: settings by name.
    """

    source: str
    questions: int
    fingerprint: str = ""
    engine: str
    model: str
    seed: int
    machine: str
    bundled_model: bool = False
    asked_with: dict[str, str | None] = Field(default_factory=dict)
    judges: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)


async def evaluate(
    questions: Sequence[Question],
    judges: Sequence[Judge],
    out: Path,
    description: RunDescription,
    *,
    runs: int = 1,
    concurrency: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
    ledger: CostLedger | None = None,
) -> list[Record]:
    """Let every judge answer every question `runs` times; return all records, kept ones included.

    Records are appended to `out`/records.jsonl one by one. Started again with the same questions
    and settings, a run goes on where it was; more runs, more judges, or more questions after the
    same ones may be asked for. Each record
    depends on the seed, the run and the question alone, so where the engine's seeds are exact, an
    interrupted run ends with the scores that an uninterrupted one has.

    concurrency: questions judged at the same time; they share the engine's batches.
    progress: told how many records there are, of how many.
    ledger: prices, and what all that is asked for may cost; records of earlier starts are in it already
        (see `enter_kept`).

    Raises:
        BudgetReached: No further question fits into the budget; the records stay.
        ConfigurationError: The folder's records were made with other settings. And what the engine
            raises.
    """
    check_questions(questions, source=description.source)
    names = [judge.name for judge in judges]
    if not judges or len(set(names)) < len(names):
        raise ConfigurationError(f"judges {names}: name at least one, and each once")
    if runs < 1 or concurrency < 1:
        raise ConfigurationError(f"{runs} runs, {concurrency} at a time: pass at least 1 of each")
    with RecordLog(out / RECORDS, Record) as log:
        _settle(out / RUN, description, questions, judges)
        done = {record.key: record for record in log.records}
        wanted = [
            (judge, run, question)
            for run in range(runs)
            for question in questions
            for judge in judges
        ]
        waiting = (
            (judge, run, question)
            for judge, run, question in wanted
            if (judge.name, run, question.id) not in done
        )
        kept = sum((judge.name, run, question.id) in done for judge, run, question in wanted)
        ledger = ledger or CostLedger()
        progress(kept, len(wanted))

        async def work(waiting: Iterator[tuple[Judge, int, Question]]) -> None:
            nonlocal kept
            for judge, run, question in waiting:
                if not ledger.begin(judge.name):
                    return
                record = await _judged(judge, run, question, description.seed)
                log.append(record)
                done[record.key] = record
                _enter(record, ledger)
                kept += 1
                progress(kept, len(wanted))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work(waiting))
        except ExceptionGroup as errors:
            # What went wrong first; the other questions were stopped for it.
            raise errors.exceptions[0] from None
        if ledger.stopped and kept < len(wanted):
            raise ledger.end(kept, len(wanted), "verdicts")
    return [done[judge.name, run, question.id] for judge, run, question in wanted]


def enter_kept(
    ledger: CostLedger,
    questions: Sequence[Question],
    judges: Sequence[Judge],
    out: Path,
    *,
    runs: int,
) -> None:
    """Enter what the records in `out` cost that `evaluate` would not ask for again.

    Of all sets that share a budget, before the first of them begins.
    """
    wanted = {question.id for question in questions}
    names = {judge.name for judge in judges}
    kept = {record.key: record for record in read_records(out / RECORDS, Record)}
    for (judge, run, question), record in kept.items():
        if judge in names and run < runs and question in wanted:
            _enter(record, ledger)


def _enter(record: Record, ledger: CostLedger) -> None:
    ledger.record(record.judge, record.verdict.prompt_tokens, record.verdict.completion_tokens)


async def _judged(judge: Judge, run: int, question: Question, seed: int) -> Record:
    # Not the judge's name: judges that are compared see the same answer orders.
    run_seed = derive_seed(seed, "run", run)
    own_seed = derive_seed(run_seed, question.id)
    started = time.perf_counter()
    try:
        verdict = await judge.judge(question, seed=own_seed, run_seed=run_seed)
        if len(verdict.scores) != len(question.candidates):
            raise ConfigurationError(
                f"judge {judge.name} gives {len(verdict.scores)} scores for"
                f" {len(question.candidates)} candidates: one for each, None where there is none"
            )
    except ConfigurationError as error:
        # Such as a prompt longer than the model's context: this question, not the whole run.
        verdict = Verdict(
            scores=(None,) * len(question.candidates), reason=str(error), failures={"refused": 1}
        )
    return Record(
        judge=judge.name,
        run=run,
        question=question.id,
        user_id=question.user_id,
        group=question.group,
        grades=question.grades,
        candidates=tuple(candidate.id for candidate in question.candidates),
        seed=own_seed,
        seconds=time.perf_counter() - started,
        verdict=verdict,
    )


def _settle(
    path: Path, description: RunDescription, questions: Sequence[Question], judges: Sequence[Judge]
) -> None:
    """Write down what the run is, or check that it is the one already there."""
    asked = fingerprint(questions)
    settings: dict[str, dict[str, JsonValue]] = {
        judge.name: json.loads(json.dumps(dict(judge.settings))) for judge in judges
    }
    before = None
    known: Mapping[str, dict[str, JsonValue]] = {}
    if path.is_file():
        try:
            before = RunDescription.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigurationError(f"{path} cannot be read: {error}") from error
        known = before.judges
        # More questions may follow those that were asked before.
        same = fingerprint(questions[: before.questions])
        now = _deciding(description.model_copy(update={"fingerprint": same}))
        there = _deciding(before)
        for name in now | there:
            if there.get(name) != now.get(name):
                raise ConfigurationError(
                    f"{path.parent} holds records of another run: its {name} is"
                    f" {there.get(name)!r}, and {now.get(name)!r} is asked for; use another folder, or"
                    " the same settings"
                )
        for name in settings.keys() & known.keys():
            if settings[name] != known[name]:
                raise ConfigurationError(
                    f"{path.parent} holds records of {name} with other settings ({known[name]}, now"
                    f" {settings[name]}): use another folder, or the same settings"
                )
    complete = description.model_copy(
        update={"fingerprint": asked, "questions": len(questions), "judges": {**known, **settings}}
    )
    if complete != before:
        write_text(path, complete.model_dump_json(indent=2) + "\n")


def _deciding(description: RunDescription) -> dict[str, object]:
    """What two runs have to have in common for one to go on where the other was."""
    named = ("fingerprint", "seed", "engine", "model")
    return {name: getattr(description, name) for name in named} | description.asked_with
