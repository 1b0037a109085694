"""Stage 1 from a pretrained checkpoint: packed rows, the clock, the file of tokens, and the adapter."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.protocol import Completion, FinishReason
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow
from pgenrm_agent.schema import PreferencePair, StatedPreference
from pgenrm_agent.training.bundled.examples import write_examples
from pgenrm_agent.training.bundled.simulation import load_answers
from pgenrm_agent.training.bundled.tokenizer import train_tokenizer
from pgenrm_agent.training.choices import held_out, write_choices
from pgenrm_agent.training.clock import Clock
from pgenrm_agent.training.encoding import (
    ASKED,
    PLACES,
    PackedRows,
    TokenBudgetBatches,
    encode,
    fill_rows,
)
from pgenrm_agent.training.extraction import extract, save_adapter, with_update
from pgenrm_agent.training.held_out import measure_choices
from pgenrm_agent.training.merge import merge_adapter
from pgenrm_agent.training.packed_attention import (
    KERNEL,
    attend_one_by_one,
    kernel_for,
    variable_length,
)
from pgenrm_agent.training.parts import join_parts, split_file
from pgenrm_agent.training.pretrained import compile_layers, train_pretrained
from pgenrm_agent.training.pretrained_plan import plan_pretrained
from pgenrm_agent.training.reading import load_model
from pgenrm_agent.training.recipe import PsiRecipe
from pgenrm_agent.training.token_file import (
    Source,
    TokenFile,
    read_token_file,
    save_token_file,
    write_token_file,
)
from pgenrm_agent.training.token_folder import make_folder, recipe_in

CONTEXT = 3072
RECIPE: dict[str, Any] = {
    "name": "toy",
    "seed": 3,
    "start": {
        "model": "nowhere/toy",
        "context": CONTEXT,
        "minutes": 0.15,
        "latest": 0.5,
        "reading_examples": 6,
        "choices_at": [0.6],
        "choices": 1,
        "choices_together": 2,
        "choices_seconds": 20,
        "kept": 0.9,
        "rank": 4,
        "part_bytes": 4000,
    },
    "chain_format": "compact-2",
    "phases": [
        {"tasks": {"read": 0.8, "reason": 0.2}, "tokens": 5000, "tokens_per_step": CONTEXT},
        {"tasks": {"chain": 0.6, "choice": 0.4}, "tokens": 9000, "tokens_per_step": CONTEXT},
    ],
    "precision": "float32",
    "learning_rate": 0.003,
    "warmup_steps": 2,
    "weight_decay": 0.0,
    "save_every": 5,
    "threads": 1,
}
HEADS, KEY_HEADS = 4, 2


def changed(**start: Any) -> PsiRecipe:
    return PsiRecipe.model_validate(RECIPE | {"start": RECIPE["start"] | start})


@pytest.fixture(scope="module")
def toy(psi_answers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights whose query heads share key heads, and a tokenizer without our tags."""
    folder = tmp_path_factory.mktemp("models") / "toy"
    texts = load_answers(psi_answers / "train.jsonl.gz").texts[:400]
    tokenizer = train_tokenizer(texts, size=900, context=CONTEXT)
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    tags = {token["content"] for token in core["added_tokens"] if not token["special"]}
    core["added_tokens"] = [token for token in core["added_tokens"] if token["special"]]
    tokenizer = type(tokenizer)(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(json.dumps(core)),
        pad_token="<|pad|>",
        eos_token="<|end|>",
    )
    assert len(tokenizer.encode("[1 chosen]", add_special_tokens=False)) > 1 < len(tags)
    tokenizer.chat_template = (
        "{%- for message in messages -%}<|{{ message['role'] }}|>{{ message['content'] }}"
        "{%- endfor %}{%- if add_generation_prompt %}<|assistant|>{% endif -%}"
    )
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=HEADS,
            num_key_value_heads=KEY_HEADS,
            intermediate_size=64,
            vocab_size=len(tokenizer),
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(toy: Path, psi_answers: Path) -> Source:
    answers = load_answers(psi_answers / "train.jsonl.gz")
    return Source(
        answers, ChainFormat.load("compact-2"), AutoTokenizer.from_pretrained(toy), people()
    )


def people() -> list[PreferenceRow]:
    """Two people who choose the short answer, but for a single choice of the first."""
    rows = []
    for user, choices in (("ada", 6), ("ben", 4)):
        for number in range(choices):
            short, long = f"Yes, {number}.", f"Well, {number} is what I would say, my friend. " * 4
            chosen, rejected = (long, short) if number == 5 else (short, long)
            rows.append(
                PreferenceRow(
                    user_id=user,
                    pair=PreferencePair(
                        query=f"Is it {number}?",
                        chosen=chosen,
                        rejected=rejected,
                        id=f"{user}{number}",
                    ),
                    split="train" if user == "ada" else "test" if number < 3 else "history",
                    stated=(StatedPreference(text="I am from Rome."),),
                )
            )
    return rows


# --- packed rows ---


def test_packed_rows_give_the_losses_of_padded_ones(toy: Path, source: Source) -> None:
    examples = [
        encode(example, source.tokenizer)
        for task in ("read", "reason", "chain")
        for example in islice(write_examples(task, source.answers, source.chain_format, seed=4), 2)
    ]
    padded = TokenBudgetBatches([examples], 0)[0]
    size = sum(len(example.input_ids) for example in examples) + 700
    packed = PackedRows(fill_rows(examples, size), size, 0)[0]
    assert packed["input_ids"].shape == (1, size)
    model = load_model(toy, CONTEXT)
    torch.nn.init.normal_(model.model.layers[2].self_attn.q_proj.weight, std=0.4)
    losses = []
    for batch, attention in ((padded, "sdpa"), (packed, "pgenrm_packed")):
        model.set_attn_implementation(attention)
        states, final = model.read(batch)
        targets = batch["labels"][:, 1:]
        learned = targets != -100
        logits = model.lm_head(final[:, :-1][learned])
        chain = torch.nn.functional.cross_entropy(logits, targets[learned])
        losses.append({"chain": chain, **model.side_losses(states, batch)})
        assert int(learned.sum()) > 100
    assert set(losses[0]) == {
        *("chain", "notice_loss", "count_loss", "read_loss", "recall_loss"),
        *("recall_look", "operand_look", "value_look"),
    }
    for name, loss in losses[0].items():
        assert losses[1][name].item() == pytest.approx(loss.item(), abs=1e-3), name
    # Not by any attention: without borders between the examples the loss is another.
    blind = packed | {"documents": torch.tensor([0, size])}
    assert abs(float((model.read(blind)[1] - model.read(packed)[1]).abs().max().detach())) > 1e-2


def kernel_of_torch_2_10(
    query: Any,
    key: Any,
    value: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    return_aux: Any = None,
) -> Any:
    assert is_causal
    assert query.shape == key.shape, "it does not let queries share keys"
    return _checked(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)


def kernel_of_torch_2_13(
    query: Any,
    key: Any,
    value: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: Any = None,
    window_size: Any = (-1, -1),
    enable_gqa: bool = False,
) -> Any:
    assert window_size == (-1, 0)
    assert enable_gqa
    return _checked(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)


def _checked(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int
) -> Any:
    assert cu_seq_q.dtype == torch.int32
    assert (cu_seq_q == cu_seq_k).all()
    assert max_q == max_k >= int(cu_seq_q.diff().max())
    return attend_one_by_one(query, key, value, cu_seq_q, max_q)


@pytest.mark.parametrize("kernel", [kernel_of_torch_2_10, kernel_of_torch_2_13])
def test_the_kernel_is_called_as_each_torch_has_it(kernel: Callable[..., Any]) -> None:
    query, key, value = (torch.randn(12, heads, 8) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
    documents = torch.tensor([0, 5, 9, 12, 12, 12])
    read = variable_length(kernel)(query, key, value, documents, 6)
    mask = torch.block_diag(*(torch.ones(n, n) for n in (5, 4, 3))).bool().tril()
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(states.transpose(0, 1)[None] for states in (query, key, value)),
        attn_mask=mask,
        enable_gqa=True,
    )
    assert torch.allclose(read, wanted[0].transpose(0, 1), atol=1e-6)


def test_the_kernel_is_for_half_precision_on_a_gpu() -> None:
    on_gpu = "one by one" if KERNEL is None else "varlen"
    assert (find_spec("torch.nn.attention.varlen") is None) == (KERNEL is None)
    assert kernel_for(torch.device("cuda"), torch.bfloat16) == on_gpu
    assert kernel_for(torch.device("cuda"), torch.float32) == "one by one"
    assert kernel_for(torch.device("cpu"), torch.bfloat16) == "one by one"


@pytest.mark.parametrize("size", [CONTEXT, 2 * CONTEXT])
def test_every_packed_row_has_the_same_shapes(source: Source, size: int) -> None:
    stream = write_examples("read", source.answers, source.chain_format, seed=1)
    examples = [encode(example, source.tokenizer) for example in islice(stream, 24)]
    rows = fill_rows(examples, size)
    packed = PackedRows(rows, size, 0)
    assert [example for row in rows for example in row] == examples
    assert len(packed) > 1
    for row in (packed[i] for i in range(len(packed))):
        assert row["documents"].shape == packed[0]["documents"].shape
        assert row["documents"].diff().min() >= 0
        assert row["documents"][-1] == size == row["positions"].shape[1]
        assert row["positions"].max() < CONTEXT
        assert (row["positions"][0][row["documents"][:-1].unique()[:-1]] == 0).all()


# --- the clock ---


def test_the_rate_stays_up_until_reading_is_there_and_ends_at_nothing() -> None:
    seconds = 100.0
    clock = Clock(
        10, enough=0.9, latest=0.5, warmup_steps=4, weights=[1, 1, 3], now=lambda: seconds
    )
    assert clock.rate(0) == 0.25
    seconds += 120  # a fifth of the time
    clock.heard(0.6)
    assert (clock.phase(), clock.rate(100)) == (0, 1.0)
    clock.heard(0.91)
    assert clock.read_at == pytest.approx(0.2)
    clock.heard(0.2)
    assert clock.read_at == pytest.approx(0.2)
    assert (clock.phase(), clock.rate(100)) == (1, 1.0)
    seconds += 240  # half of what was left; the second phase had a quarter of it
    assert clock.phase() == 2
    assert clock.rate(100) == pytest.approx(0.5)
    with clock.paused():
        seconds += 1000
    assert clock.rate(100) == pytest.approx(0.5)
    seconds += 300
    assert clock.share > 1
    assert clock.rate(100) == 0


def test_without_reading_the_rate_falls_from_the_latest_moment_on() -> None:
    seconds = 0.0
    clock = Clock(1, enough=0.9, latest=0.5, warmup_steps=1, weights=[1, 1], now=lambda: seconds)
    seconds = 45.0
    assert (clock.phase(), clock.rate(9), clock.read_at) == (1, pytest.approx(0.5), None)
    clock.heard(0.95)  # too late to change anything
    assert (clock.phase(), clock.rate(9)) == (1, pytest.approx(0.5))


# --- what is learned from ---


def test_real_choices_become_chains_where_the_teacher_agrees(source: Source) -> None:
    stream = write_choices(people(), source.chain_format, seed=2)
    examples = list(islice(stream, 30))
    again = write_choices(people(), source.chain_format, seed=2)
    assert list(islice(again, 30)) == examples
    for example in examples:
        assert "Is it 5?\n[The End of User Input]" not in example.messages[-1].content
        marks = [line for line in example.target.splitlines() if line.startswith("Response")]
        assert len(marks) == 2
        encode(example, source.tokenizer)
        assert "Stated: I am from Rome." in example.messages[0].content
    nobody = [row for row in people() if row.split != "train"]
    assert list(write_choices(nobody, source.chain_format, seed=2)) == []


def test_held_out_choices_are_of_held_out_users() -> None:
    choices = held_out("people", people(), choices=2, history=3, seed=1)
    assert [choice.user_id for choice in choices] == ["ben", "ben"]
    for choice in choices:
        assert choice.answers[0].startswith("Yes")
        assert len(choice.history) == 1
        assert not {choice.query} & {pair.query for pair in choice.history}


def test_a_token_file_holds_what_was_encoded(
    source: Source, psi_answers: Path, tmp_path: Path
) -> None:
    recipe = PsiRecipe.model_validate(RECIPE)
    held = load_answers(psi_answers / "val.jsonl.gz")
    told: list[tuple[int, int]] = []
    file = write_token_file(
        recipe, source, held, tmp_path, processes=1, progress=lambda *count: told.append(count)
    )
    again = read_token_file(tmp_path)
    assert told[0] == (0, 14000)
    assert told[-1] == (14000, 14000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["groups", "tokens.npz.xz"]
    assert len(again.held_out) == 6
    for phase, tokens in zip(again.tokens(), (5000, 9000), strict=True):
        assert tokens - CONTEXT < phase <= tokens
    for before, after in zip(
        [*file.held_out, *file.phases[0], *file.phases[1]],
        [*again.held_out, *again.phases[0], *again.phases[1]],
        strict=True,
    ):
        for name in ("input_ids", "labels", *PLACES, *ASKED):
            assert np.array_equal(getattr(before, name), getattr(after, name)), name


def test_an_unfinished_token_file_goes_on_with_what_it_was_begun_with(
    source: Source, psi_answers: Path, tmp_path: Path
) -> None:
    recipe = PsiRecipe.model_validate(RECIPE)
    held = load_answers(psi_answers / "val.jsonl.gz")

    def write(recipe: PsiRecipe, source: Source, most: int) -> int:
        """Stop after so many tokens; tell how many were there already."""
        told: list[int] = []

        def progress(done: int, total: int) -> None:
            told.append(done)
            if done >= most:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            write_token_file(recipe, source, held, tmp_path, processes=1, progress=progress)
        return told[0]

    assert write(recipe, source, 5000) == 0
    without_last = replace(
        source, answers=source.answers.subset(range(len(source.answers.queries) - 1))
    )
    for changed_recipe, changed_source, name in (
        (recipe.model_copy(update={"seed": 4}), source, "seed"),
        (changed(context=2048), source, "start.context"),
        (recipe, without_last, "answers"),
        (recipe, replace(source, rows=people()[1:]), "choices"),
    ):
        with pytest.raises(ConfigurationError, match=f"groups of examples with {name}"):
            write(changed_recipe, changed_source, 1)
    # Ids and times of choices are new whenever a file is read.
    anew = {"id": "anew", "created_at": datetime.now(UTC)}
    read_again = [
        row.model_copy(update={"pair": row.pair.model_copy(update=anew)}) for row in people()
    ]
    assert write(recipe, replace(source, rows=read_again), 1) == 5000


def test_real_choices_are_asked_for_where_a_recipe_learns_from_them(
    source: Source, tmp_path: Path
) -> None:
    nobody = Source(source.answers, source.chain_format, source.tokenizer)
    with pytest.raises(ConfigurationError, match="learns from real choices"):
        write_token_file(
            PsiRecipe.model_validate(RECIPE), nobody, source.answers, tmp_path, processes=1
        )


# --- the adapter ---


def test_an_adapter_holds_what_changed_and_peft_adds_it(toy: Path, tmp_path: Path) -> None:
    base, trained = (LlamaForCausalLM.from_pretrained(toy) for _ in range(2))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if "_proj." in name:  # three directions, of falling strength
                left, right = torch.randn(len(weight), 3), torch.randn(3, weight.shape[1])
                weight += 0.01 * left @ torch.diag(torch.tensor([9.0, 3.0, 1.0])) @ right
    device = torch.device("cpu")
    whole = extract(base, trained, share=1 - 1e-9, largest=8, device=device)
    assert set(whole.ranks.values()) == {3}
    some = extract(base, trained, share=0.95, largest=8, device=device)
    assert set(some.ranks.values()) <= {1, 2}
    assert 0.95 <= some.kept < whole.kept <= 1
    assert set(extract(base, trained, share=1.0, largest=1, device=device).ranks.values()) == {1}
    save_adapter(whole, str(toy), tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "merged")
    added = with_update(LlamaForCausalLM.from_pretrained(toy), whole)
    ids = torch.tensor([[5, 6, 7, 8]])
    logits = [model(ids).logits for model in (trained, merged, added, base)]
    assert torch.allclose(logits[1], logits[2], atol=1e-4)
    assert torch.allclose(logits[0], logits[1], atol=3e-2)  # it is kept in bfloat16
    assert (logits[0] - logits[3]).abs().max() > 0.06


def test_nothing_learned_is_an_adapter_that_changes_nothing(toy: Path, tmp_path: Path) -> None:
    base = LlamaForCausalLM.from_pretrained(toy)
    extracted = extract(base, base, share=0.99, largest=4, device=torch.device("cpu"))
    assert extracted.kept == 1
    save_adapter(extracted, str(toy), tmp_path)
    assert all(not factor.any() for factor in extracted.up.values())


def test_files_travel_in_parts(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    whole = tmp_path / "weights.bin"
    whole.write_bytes(content)
    parts = split_file(whole, 4096)
    assert [part.stat().st_size for part in parts] == [4096, 4096, 2048]
    assert not whole.exists()
    assert join_parts(tmp_path) == [whole]
    assert whole.read_bytes() == content
    whole.unlink()
    parts[1].write_bytes(b"x" * 4096)
    with pytest.raises(ConfigurationError, match="do not make the file"):
        join_parts(tmp_path)
    parts[2].unlink()
    with pytest.raises(ConfigurationError, match=r"lacks weights\.bin\.part3"):
        join_parts(tmp_path)
    assert not whole.exists()


# --- the run ---


@pytest.fixture(scope="module")
def folder(toy: Path, psi_answers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder to take along."""
    out = tmp_path_factory.mktemp("along") / "folder"
    about = make_folder(
        PsiRecipe.model_validate(RECIPE),
        psi_answers,
        {"people": people()},
        out,
        model=toy,
        choices=3,
        processes=1,
    )
    assert about["choices"] == {"people": 3}
    assert about["bytes"] < 5e6
    assert not (out / "groups").exists()  # they went last, once about.json was there
    return out


def test_a_run_of_any_length_ends_with_an_adapter_and_measures_it(
    folder: Path, toy: Path, tmp_path: Path
) -> None:
    recipe = PsiRecipe.model_validate(RECIPE)
    out = tmp_path / "run"
    ticks = count()
    # A tenth of a second a look at the clock: as many steps on any machine.
    result = train_pretrained(recipe, folder, out, model=toy, now=lambda: next(ticks) / 10)
    record = json.loads((out / "run.json").read_text())
    assert record == result.record
    assert record["attention"] == "one by one"
    # A row is ahead of the step that learns from it.
    assert 0 <= sum(record["rows_by_phase"]) - result.steps <= 2
    assert min(record["rows_by_phase"]) > 0
    assert 9 <= record["seconds"] < 11
    (on_the_way,) = record["choices_on_the_way"]
    assert 0.6 <= on_the_way["share"] < 1
    assert on_the_way["choices"] == 1
    for name in ("choices", "choices_of_adapter"):
        assert record[name]["choices"] == 3
        assert record[name]["chains"] == 6
        assert record[name]["readable"] == 1  # a grammar holds them
        assert record[name]["accuracy"]["people"]["comparisons"] == 3
    rows = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in rows if "learning_rate" in row]
    assert any("eval_reading" in row for row in rows)
    assert 0 <= result.reading <= 1 >= result.reading_of_adapter
    assert rates == [] or rates[-1] < 0.003
    # The adapter came in parts, and merges into its base.
    adapter = out / "adapter"
    assert not (adapter / "adapter_model.safetensors").exists()
    assert max(part.stat().st_size for part in adapter.glob("*.part*")) <= 4000
    join_parts(adapter)
    merge_adapter(adapter, tmp_path / "merged", model=toy)
    with pytest.raises(ConfigurationError, match="holds a run already"):
        train_pretrained(recipe, folder, out, model=toy)


@pytest.mark.long
def test_chains_come_when_texts_are_read(folder: Path, toy: Path, tmp_path: Path) -> None:
    """A toy learns few short texts by heart: they are read right before the first chain is learned."""
    along = tmp_path / "along"
    shutil.copytree(folder, along)
    file = read_token_file(folder)
    known = sorted(
        (example for example in file.phases[0] if len(example.value_at)),
        key=lambda example: len(example.input_ids),
    )[:3]
    save_token_file(TokenFile((known, file.phases[1]), known), along)
    recipe = changed(minutes=6, latest=0.9, choices_at=(), choices_seconds=1)
    curve = tmp_path / "run" / "curve.jsonl"
    seconds = 0.0

    def readings() -> list[float]:
        rows = map(json.loads, curve.read_text().splitlines()) if curve.exists() else ()
        return [row["eval_reading"] for row in rows if "eval_reading" in row]

    def now() -> float:
        """As many steps on any machine, and few once texts are read."""
        nonlocal seconds
        seconds += 5 if max(readings(), default=0) >= 0.9 else 0.03
        return seconds

    result = train_pretrained(recipe, along, tmp_path / "run", model=toy, now=now)
    assert result.reading_at is not None
    read = readings()
    assert min(result.record["rows_by_phase"]) > 0
    assert read[0] < 0.9 <= max(read)


@pytest.mark.long
def test_compiled_layers_give_the_same_states(toy: Path, folder: Path) -> None:
    row = PackedRows(fill_rows(read_token_file(folder).phases[1], CONTEXT), CONTEXT, 0)[0]
    plain, compiled = load_model(toy, CONTEXT), load_model(toy, CONTEXT)
    compile_layers(compiled, backend="eager")
    states, final = plain.read(row)
    again, same = compiled.read(row)
    assert torch.allclose(final, same, atol=1e-5)
    loss = compiled.side_losses(again, row)["recall_look"]
    loss.backward()
    assert loss.item() == pytest.approx(plain.side_losses(states, row)["recall_look"].item())


@pytest.mark.long
def test_the_folder_runs_by_itself(folder: Path, toy: Path, tmp_path: Path) -> None:
    """Its own code and recipe, and nothing of this package: what a dry run tells there."""
    command = [sys.executable, "-I", str(folder / "train.py"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--model", str(toy), "--minutes", "2", "--dry-run"],
        capture_output=True,
        text=True,
        check=True,
    )
    plan = json.loads(done.stdout)
    assert plan["minutes"] == 2
    assert plan["tokens_by_phase"] == read_token_file(folder).tokens()
    assert plan["expected_tokens_per_s"] > 100
    assert not (tmp_path / "out").exists()
    unknown = subprocess.run(
        [*command, "--model", str(tmp_path / "nowhere")], capture_output=True, text=True
    )
    assert unknown.returncode == 2
    assert "is no checkpoint" in unknown.stderr


def test_data_made_for_something_else_is_refused(
    folder: Path, toy: Path, minute_model: Path, tmp_path: Path
) -> None:
    recipe = recipe_in(folder)
    with pytest.raises(ConfigurationError, match="was made with tokenizer"):
        train_pretrained(changed(context=2048), folder, tmp_path / "out", model=minute_model)
    with pytest.raises(ConfigurationError, match=r"was made with start\.context = 3072"):
        train_pretrained(changed(context=2048), folder, tmp_path / "out", model=toy)
    other_seed = recipe.model_copy(update={"seed": 4})
    with pytest.raises(ConfigurationError, match="was made with seed = 3"):
        train_pretrained(other_seed, folder, tmp_path / "out", model=toy)
    with pytest.raises(ConfigurationError, match=r"holds no about\.json"):
        train_pretrained(recipe, tmp_path, tmp_path / "out", model=toy)
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        train_pretrained(recipe, folder, tmp_path / "out", model=tmp_path / "nowhere")
    assert recipe.start is not None
    longer = recipe.start.model_copy(update={"context": 4096})
    with pytest.raises(ConfigurationError, match="reads at most"):
        train_pretrained(
            recipe.model_copy(update={"start": longer}), folder, tmp_path / "out", model=toy
        )


def test_the_plan_says_what_it_takes(folder: Path, toy: Path) -> None:
    plan = plan_pretrained(recipe_in(folder), folder, toy)
    assert plan["rows_by_phase"] == [2, 3] or min(plan["rows_by_phase"]) >= 1
    assert 0.05 < plan["learned_share"] < 0.9
    assert plan["trained_M"] < plan["parameters_M"]
    assert plan["minutes_with_asking"] > plan["minutes"]
    assert plan["expected_steps"] == pytest.approx(plan["expected_tokens"] / CONTEXT, abs=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": {}}, "shape"),
        ({"start": None}, "has a shape"),
        ({"phases": [RECIPE["phases"][0] | {"tokens_per_step": 1024}]}, "at least start.context"),
    ],
)
def test_a_recipe_begins_in_a_single_way(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PsiRecipe.model_validate(RECIPE | change)


def test_the_recipe_for_a_gpu_is_one() -> None:
    recipe = PsiRecipe.load("smollm2-gpu")
    assert recipe.start is not None
    assert recipe.start.minutes == 8
    assert recipe.precision == "bfloat16"


def test_no_more_time_than_there_is_goes_into_asking(toy: Path, source: Source) -> None:
    model = LlamaForCausalLM.from_pretrained(toy)
    choices = held_out("people", people(), choices=3, history=1, seed=1)
    report = measure_choices(
        model, source.tokenizer, source.chain_format, choices, seconds=0.001, together=2
    )
    assert (report.choices, report.chains, report.readable, report.accuracy) == (0, 0, 0, {})


def test_choices_that_there_was_no_time_for_are_left_out(
    toy: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two choices one has a chain that was cut off: it is neither right nor wrong."""

    async def written(*_: object) -> list[Completion]:
        ends: tuple[FinishReason, ...] = ("stop", "stop", "stop", "timeout")
        return [Completion(text="no chain", tokens=1, finish_reason=end) for end in ends]

    monkeypatch.setattr("pgenrm_agent.training.held_out._written", written)
    choices = held_out("people", people(), choices=2, history=1, seed=1)
    model = LlamaForCausalLM.from_pretrained(toy)
    report = measure_choices(
        model, source.tokenizer, source.chain_format, choices, seconds=60, together=2
    )
    assert (report.choices, report.chains) == (1, 2)
    assert report.accuracy["people"].comparisons == 1
