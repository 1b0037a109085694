"""Evaluation chains to learn from: a teacher writes them, and rejection sampling keeps the right ones.

    pgenrm train chains --data prb:FOLDER --teacher MODEL --engine vllm --out runs/chains

The teacher, any engine, sees the user's past choices and what they stated (H and E of the paper,
4.1.1), and writes k chains about a choice of which it is not told how it ended. A chain is kept where
it ranks the chosen answer above the other. Half of the chains see the chosen answer first. Of those
kept it need not be half: a teacher that favors a place is right more often where the chosen answer
stands there. The report counts them (`kept_chosen_first`).

A folder holds chains.jsonl (every chain that was paid for, with what became of it), dataset.jsonl
(those kept, as TRL's SFTTrainer reads them), report.json and chain_format.json (the format they are
in). A run that was cut off, or one that asks for more chains or more choices, pays only for what
chains.jsonl does not have.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pgenrm_agent.chain import ChainFormat, Turn, parse_chain, split_reasoning
from pgenrm_agent.engines.protocol import (
    Capabilities,
    Completion,
    Engine,
    Prompt,
    SamplingParams,
    SchemaRefused,
)
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.evaluation.datasets.jsonl import read_models
from pgenrm_agent.evaluation.datasets.rows import Example
from pgenrm_agent.fields import Model
from pgenrm_agent.files import read_text, replacing, write_text
from pgenrm_agent.jsonl import RecordLog
from pgenrm_agent.model_files import FORMAT_FILE, format_of
from pgenrm_agent.run_folder import refuse_other_settings
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import Message
from pgenrm_agent.training.format_files import place_told, refuse_other_place, write_format

CHAINS, DATASET, REPORT = "chains.jsonl", "dataset.jsonl", "report.json"
KEPT, WRONG, TIE = "kept", "ranking disagrees with the choice", "tie"
REFUSED = "refused by the engine"
CONCURRENT = 32
"""Choices in flight: enough to fill an engine's batches."""
_CONTENT = {"query", "chosen", "rejected", "conversation"}


class ChainRecord(Model):
    """One chain that the teacher wrote.

    example: `example_key` of the choice. sample: its number among the chains of the same order.
    outcome: "kept", or why not. margin: total of the chosen answer minus that of the other, -9 to 9;
        None where the text is no chain over both.
    prompt_tokens: what reading the prompt took; 0 for further samples of the same reading.
    """

    example: str
    chosen_first: bool
    sample: int
    seed: int
    outcome: str
    margin: float | None
    tokens: int
    prompt_tokens: int
    text: str


class ChainRow(Model):
    """A kept chain as something to learn: prompt and completion in TRL's conversational form."""

    user_id: str
    prompt: Annotated[tuple[Message, ...], Field(min_length=1)]
    completion: Annotated[tuple[Message, ...], Field(min_length=1, max_length=1)]


class ChainDatasetReport(Model):
    """How a dataset came about. `outcomes` counts chains by what became of them."""

    teacher: str
    chain_format: str
    examples: int
    examples_with_a_kept_chain: int
    chains: int
    kept: int
    kept_chosen_first: int = Field(
        description="of the kept, those that saw the chosen answer first"
    )
    outcomes: dict[str, int]
    sampled_now: int = Field(description="chains of this run; the others were there already")
    prompt_tokens: int
    completion_tokens: int
    seconds: float = Field(description="of this run")


def example_key(example: Example) -> str:
    """A name for what the teacher is shown: equal content has the same one in every run."""
    shown = example.model_dump(
        mode="json",
        include={
            "user_id": True,
            "stated": True,
            "asked": _CONTENT,
            "history": {"__all__": _CONTENT},
        },
    )
    text = json.dumps(shown, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


async def sample_chains(
    engine: Engine,
    chain_format: ChainFormat,
    examples: Iterable[Example],
    out: Path,
    *,
    chains: int,
    seed: int,
    temperature: float = 1.0,
    withhold_stated: bool = False,
    format_place: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ChainDatasetReport:
    """Have `chains` chains written about each choice, and keep those that rank it as the user did.

    Args:
        engine: the teacher.
        chain_format: what it is asked in, and what a kept chain is learned in.
        examples: choices; equal ones count once.
        out: the dataset's folder; what is there already is not paid for again.
        chains: k, at least 1, half of them with the chosen answer first.
        seed: of all chains; each has its own from it, its choice and its place.
        temperature: of the samples.
        withhold_stated: write the dataset's prompts without what the user stated, although the
            teacher saw it: a model then learns to infer it from the past choices.
        format_place: the name or the folder that `chain_format` was loaded from; a bundled one's name
            if not given. A folder is copied into the dataset's.
        progress: called with the chains there are and the chains wanted.

    Raises:
        ConfigurationError: the folder holds chains of another teacher or setting, the engine refused
            every choice or cannot hold an answer to the format's schema, or the format is not at
            `format_place`.
        EngineError: the engine failed; the chains so far are kept, and the same call goes on.
    """
    started = time.perf_counter()
    if chains < 1:
        raise ConfigurationError(f"chains is {chains}: ask for at least 1")
    wanted = {example_key(example): example for example in examples}
    if not wanted:
        raise ConfigurationError("there are no choices to have chains written about")
    place = chain_format.name if format_place is None else format_place
    refuse_other_place(chain_format, place)
    refuse_other_settings(
        out,
        {
            "teacher": engine.name,
            "chain_format": chain_format.name,
            "chain_format_digest": chain_format.digest,
            "temperature": temperature,
            "seed": seed,
        },
        what="chains",
    )
    write_format(out, place)
    able = await asyncio.to_thread(lambda: engine.capabilities)  # a server may have to be asked
    with RecordLog(out / CHAINS, ChainRecord) as log:
        written = list(log.records)
        before = len(written)
        jobs = _missing(wanted, written, chains=chains, seed=seed)
        there = sum(sample.example in wanted for sample in written)
        total = there + sum(job.count for job in jobs)
        first_turn = choice_turn(
            next(iter(wanted.values())), chain_format, chosen_first=True, stated=True
        )
        params = SamplingParams(
            temperature=temperature,
            max_tokens=chain_format.max_tokens(candidates=2),
            stop=first_turn.stop,  # the same for every choice
        )
        gate = asyncio.Semaphore(CONCURRENT)
        refused: dict[str, ConfigurationError] = {}
        failed: list[Exception] = []

        async def run(job: _Job) -> None:
            async with gate:
                # After a fault, what is under way is finished and kept; nothing new is begun.
                if failed:
                    return
                try:
                    answers = await engine.sample(job.prompts(chain_format, able), params)
                except SchemaRefused as error:  # of every choice
                    failed.append(error)
                    return
                except ConfigurationError as error:  # such as a prompt longer than its context
                    refused[job.key] = error
                    return
                except Exception as error:  # raised again below, once the others are in the file
                    failed.append(error)
                    return
            fresh = job.read(answers, chain_format)
            for sample in fresh:
                log.append(sample)
            written.extend(fresh)
            progress(there + len(written) - before, total)

        progress(there, total)
        await asyncio.gather(*(run(job) for job in jobs))
    if failed:
        raise failed[0]
    own = [sample for sample in written if sample.example in wanted]
    if refused and not own:
        raise next(iter(refused.values()))
    # A folder can be asked for less than it has: in one order whatever order the chains came in.
    numbers = {key: number for number, key in enumerate(wanted)}
    own.sort(key=lambda sample: (numbers[sample.example], not sample.chosen_first, sample.sample))
    kept = [sample for sample in own if sample.outcome == KEPT]
    _write_dataset(out / DATASET, kept, wanted, chain_format, withhold_stated=withhold_stated)
    outcomes = Counter(sample.outcome for sample in own)
    outcomes[REFUSED] += sum(job.count for job in jobs if job.key in refused)
    report = ChainDatasetReport(
        teacher=engine.name,
        chain_format=chain_format.name,
        examples=len(wanted),
        examples_with_a_kept_chain=len({sample.example for sample in kept}),
        chains=len(own),
        kept=len(kept),
        kept_chosen_first=sum(sample.chosen_first for sample in kept),
        outcomes={name: count for name, count in outcomes.most_common() if count},
        sampled_now=len(written) - before,
        prompt_tokens=sum(sample.prompt_tokens for sample in own),
        completion_tokens=sum(sample.tokens for sample in own),
        seconds=time.perf_counter() - started,
    )
    write_text(out / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def read_dataset(data: Path) -> list[ChainRow]:
    """The rows of a dataset's folder, or of a dataset.jsonl.

    Raises ConfigurationError: no such file, no rows, or a malformed one (file, line and field).
    """
    path = data / DATASET if data.is_dir() else data
    if not path.is_file():
        raise ConfigurationError(
            f"{path}: no such dataset; `pgenrm train chains` writes one into a folder"
        )
    rows = read_models(path, ChainRow)
    if not rows:
        raise ConfigurationError(
            f"{path} holds no chain: none was kept; {path.with_name(REPORT)} counts why"
        )
    return rows


def dataset_format(data: Path, model: Path) -> str | Path:
    """Return the format that a dataset's chains are in, as `ChainFormat.load` takes it.

    What its folder tells; that of the model to be trained where it tells nothing.

    Raises ConfigurationError: the folder names a format that is not bundled, and has no copy of it.
    """
    folder = data if data.is_dir() else data.parent
    if (folder / FORMAT_FILE).is_file():
        return place_told(folder)
    told = json.loads(read_text(folder / REPORT)) if (folder / REPORT).is_file() else {}
    name = told.get("chain_format")
    if name is None or name == format_of(model).name:
        return place_told(model)
    try:
        return ChainFormat.load(name).name
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{folder} holds chains in format {name!r}, which is not bundled: put its folder there,"
            f' and {{"format": "./FOLDER"}} into {FORMAT_FILE}'
        ) from error


@dataclass(frozen=True)
class _Job:
    """The chains still to be written about one choice: from sample number to how many, by order."""

    key: str
    example: Example
    seed: int
    orders: tuple[tuple[bool, int, int], ...]

    @property
    def count(self) -> int:
        return sum(count for _, _, count in self.orders)

    def prompts(self, chain_format: ChainFormat, able: Capabilities) -> list[Prompt]:
        return [
            prompt_of(
                choice_turn(self.example, chain_format, chosen_first=first, stated=True),
                able,
                n=count,
                seed=self._seed(chosen_first=first, start=start),
            )
            for first, start, count in self.orders
        ]

    def read(
        self, answers: Sequence[Sequence[Completion]], chain_format: ChainFormat
    ) -> list[ChainRecord]:
        return [
            self._record(completion, chain_format, chosen_first=first, start=start, number=number)
            for (first, start, _), completions in zip(self.orders, answers, strict=True)
            for number, completion in enumerate(completions)
        ]

    def _record(
        self,
        completion: Completion,
        chain_format: ChainFormat,
        *,
        chosen_first: bool,
        start: int,
        number: int,
    ) -> ChainRecord:
        truncated = completion.finish_reason == "length"
        text = completion.text if truncated else chain_format.join("", completion.text, "scores")
        outcome, margin = _judged(
            text,
            chosen_first=chosen_first,
            truncated=truncated,
            asks_totals=chain_format.asks_totals,
        )
        return ChainRecord(
            example=self.key,
            chosen_first=chosen_first,
            sample=start + number,
            seed=self._seed(chosen_first=chosen_first, start=start),
            outcome=outcome,
            margin=margin,
            tokens=completion.tokens,
            prompt_tokens=completion.prompt_tokens,
            text=text,
        )

    def _seed(self, *, chosen_first: bool, start: int) -> int:
        return derive_seed(self.seed, "teacher", self.key, int(chosen_first), start)


def _missing(
    wanted: dict[str, Example], written: Sequence[ChainRecord], *, chains: int, seed: int
) -> list[_Job]:
    have = Counter((sample.example, sample.chosen_first) for sample in written)
    jobs = []
    for key, example in wanted.items():
        # Of an odd number, which order gets the odd one depends on the choice.
        larger = int(key, 16) % 2 == 0
        orders = []
        for first in (True, False):
            share = (chains + 1) // 2 if first == larger else chains // 2
            there = have[key, first]
            if there < share:
                orders.append((first, there, share - there))
        if orders:
            jobs.append(_Job(key, example, seed, tuple(orders)))
    return jobs


def _judged(
    text: str, *, chosen_first: bool, truncated: bool, asks_totals: bool
) -> tuple[str, float | None]:
    """What becomes of a chain, and its margin."""
    if truncated:
        finished = split_reasoning(text).finished
        return f"unreadable: {'truncated' if finished else 'unfinished_reasoning'}", None
    ids = ("chosen", "rejected") if chosen_first else ("rejected", "chosen")
    try:
        parsed = parse_chain(text, ids, asks_totals=asks_totals)
    except ChainError as error:
        return f"unreadable: {error.reason}", None
    if parsed.incomplete:
        return f"unreadable: {parsed.incomplete.reason}", None
    margin = parsed.totals["chosen"] - parsed.totals["rejected"]
    return (KEPT if margin > 0 else WRONG if margin < 0 else TIE), margin


def choice_turn(
    example: Example, chain_format: ChainFormat, *, chosen_first: bool, stated: bool
) -> Turn:
    """Return what inference would ask about a choice, with or without what was stated."""
    asked = example.asked
    answers = [asked.chosen, asked.rejected]
    return chain_format.turn(
        "scores",
        query=asked.query,
        candidates=answers if chosen_first else answers[::-1],
        history=example.history,
        stated=example.stated if stated else (),
        conversation=asked.conversation,
    )


def prompt_of(turn: Turn, able: Capabilities, *, n: int, seed: int) -> Prompt:
    """Return the prompt of n whole chains, held to the format as far as the engine is able to."""
    return Prompt(
        messages=turn.messages,
        partial=turn.partial,
        n=n,
        seed=seed,
        json_schema=turn.json_schema if able.json_schema else None,
        grammar=turn.grammar if able.grammar else None,
    )


def _write_dataset(
    path: Path,
    kept: Sequence[ChainRecord],
    wanted: dict[str, Example],
    chain_format: ChainFormat,
    *,
    withhold_stated: bool,
) -> None:
    """Prompt and completion of each kept chain, in the conversational form of TRL."""
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as out:
        for sample in kept:
            example = wanted[sample.example]
            turn = choice_turn(
                example, chain_format, chosen_first=sample.chosen_first, stated=not withhold_stated
            )
            # A student learns the chain, not what its teacher thought before writing it.
            chain = split_reasoning(sample.text).answer.lstrip()
            answer = Message(role="assistant", content=chain)
            row = ChainRow(user_id=example.user_id, prompt=turn.messages, completion=(answer,))
            out.write(row.model_dump_json() + "\n")
