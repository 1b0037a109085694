"""Stage 1 runs from an empty folder, and goes on after it was killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from killed_training import train_killed
from transformers import LlamaForCausalLM

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.chain.signs import SIGNS, levels, measure
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Message
from pgenrm_agent.training.bundled.examples import Example
from pgenrm_agent.training.bundled.simulation import load_answers
from pgenrm_agent.training.bundled.tokenizer import markers, train_tokenizer
from pgenrm_agent.training.encoding import TokenBudgetBatches, encode, pack
from pgenrm_agent.training.psi import Steps, train_psi
from pgenrm_agent.training.reading import build_model
from pgenrm_agent.training.recipe import ModelShape, PsiRecipe

RECIPE = {
    "name": "test",
    "seed": 1,
    "shape": {
        "hidden": 32,
        "layers": 1,
        "heads": 2,
        "feed_forward": 64,
        "vocabulary": 800,
        "context": 3072,
    },
    "chain_format": "compact-2",
    "phases": [
        {"tasks": {"read": 0.8, "reason": 0.2}, "tokens": 40000, "tokens_per_step": 2048},
        {"tasks": {"chain": 1.0}, "tokens": 20000, "tokens_per_step": 3072},
    ],
    "precision": "float32",
    "learning_rate": 0.003,
    "warmup_steps": 2,
    "weight_decay": 0.0,
    "save_every": 5,
    "threads": 1,
}


def test_every_marker_is_one_token_and_decodes_to_itself() -> None:
    tokenizer = train_tokenizer(["some plain text, again and again"] * 20, size=512, context=64)
    for marker in markers():
        ids = tokenizer.encode(marker, add_special_tokens=False)
        assert len(ids) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == marker


def test_only_the_target_is_learned() -> None:
    tokenizer = train_tokenizer(
        ["what is asked, what is given, what is learned"] * 20, size=512, context=64
    )
    example = Example(
        (Message(role="user", content="what is asked"),), "what is given", "what is learned"
    )
    encoded = encode(example, tokenizer)
    learned = [label for label in encoded.labels if label != -100]
    assert tokenizer.decode(learned) == "what is learned<|end|>"
    assert encoded.input_ids[-len(learned) :] == learned


def test_given_lines_of_a_target_are_not_learned() -> None:
    tokenizer = train_tokenizer(["given known\nasked answer\n"] * 20, size=512, context=64)
    example = Example(
        (Message(role="user", content="x"),),
        "",
        "given known\nasked answer\ngiven known",
        unlearned=("given",),
    )
    encoded = encode(example, tokenizer)
    learned = [label for label in encoded.labels if label != -100]
    assert tokenizer.decode(learned) == "asked answer\n"
    assert tokenizer.decode(encoded.input_ids).endswith("given known<|end|>")


def test_readings_are_asked_for_within_each_answer_and_at_its_end() -> None:
    first = "Sure! I can help. Is it red? 1 2 3"
    second = "No lists, no numbers, nothing at all in this one"
    prompt = f"{first} [response 1]\n{second} [response 2]"
    tokenizer = train_tokenizer([prompt] * 20, size=512, context=64)
    example = Example(
        (Message(role="user", content=prompt),),
        "",
        "[response 1] a\n[response 2] b",
        answers=(first, second),
    )
    encoded = encode(example, tokenizer)
    tags = [
        encoded.input_ids.index(tokenizer.convert_tokens_to_ids(f"[response {k}]")) for k in (1, 2)
    ]
    assert encoded.read_at == tags
    assert encoded.levels.tolist() == [levels(measure(text)).tolist() for text in (first, second)]
    assert [encoded.input_ids[place] for place in encoded.recall_at] == [
        encoded.input_ids[tag] for tag in tags
    ]
    # Every token of both answers, and what it adds.
    told = dict(zip(encoded.notice_at, encoded.noticed.tolist(), strict=True))
    texts = {place: tokenizer.decode([encoded.input_ids[place]]) for place in told}
    assert "".join(texts[place] for place in sorted(told) if place < tags[0]).strip() == first
    numbers, chat = (
        next(i for i, sign in enumerate(SIGNS) if sign.key == key) for key in ("numbers", "chat")
    )
    adds = [texts[place] for place in sorted(told) if told[place][numbers]]
    assert [text.strip() for text in adds] == ["1", "2", "3"]
    assert "!" in {texts[place] for place in told if told[place][chat]}
    # Numbers only ever grow along an answer, and the second answer starts from nothing.
    along = sorted(zip(encoded.count_at, encoded.counted.tolist(), strict=True))
    counts = [row[numbers] for place, row in along if place < tags[0]]
    assert counts == sorted(counts)
    assert {row[numbers] for place, row in along if place > tags[0]} == {0}


def test_the_first_word_behind_a_label_belongs_to_its_answer() -> None:
    prompt = "Chosen: Hello there [1 chosen]\nRejected: Yes [1 rejected]"
    tokenizer = train_tokenizer([prompt] * 20, size=512, context=64)
    example = Example(
        (Message(role="user", content=prompt),),
        "",
        "[1 chosen] a\n[1 rejected] b",
        answers=("Hello there", "Yes"),
    )
    encoded = encode(example, tokenizer)
    noticed = tokenizer.decode([encoded.input_ids[place] for place in encoded.notice_at])
    assert noticed.split() == ["Hello", "there", "Yes"]


def test_steps_are_the_same_in_any_order(psi_answers: Path) -> None:
    tokenizer = train_tokenizer(["some plain text"] * 20, size=512, context=3072)
    answers = load_answers(psi_answers / "train.jsonl.gz")
    recipe = PsiRecipe.model_validate(RECIPE)
    chain_format = ChainFormat.load("compact-2")
    first, second = (Steps(recipe, answers, chain_format, tokenizer) for _ in range(2))
    forward = [first[step]["input_ids"] for step in (0, 1, len(first) - 1)]
    backward = [second[step]["input_ids"] for step in (len(first) - 1, 1, 0)]
    for step, again in zip(forward, backward[::-1], strict=True):
        assert torch.equal(step, again)
    assert first.tokens(len(first)) == sum(
        round(phase.tokens / phase.tokens_per_step) * phase.tokens_per_step
        for phase in recipe.phases
    )


def test_where_to_look_is_asked_of_the_models_own_attention() -> None:
    tokenizer = train_tokenizer(["one two three 4 5 6 [response 1]"] * 20, size=512, context=64)
    texts = ("one two three", "four five six")
    prompt = f"{texts[0]} [response 1]\n{texts[1]} [response 2]"
    target = "[response 1] a 4 b 5\n[response 2] a 6 b 1"
    example = Example((Message(role="user", content=prompt),), "", target, answers=texts)
    longer = Example((Message(role="user", content="x y z " + prompt),), "", target, answers=texts)
    batch = TokenBudgetBatches([[encode(example, tokenizer), encode(longer, tokenizer)]], 0)[0]
    torch.manual_seed(0)
    shape = ModelShape(hidden=32, layers=4, heads=4, feed_forward=32, vocabulary=512, context=512)
    model = build_model(shape, tokenizer)
    model.set_attn_implementation("eager")
    for block in model.model.layers:  # as drawn, attention is next to uniform
        torch.nn.init.normal_(block.self_attn.q_proj.weight, std=0.3)
        torch.nn.init.normal_(block.self_attn.k_proj.weight, std=0.3)
    outputs = model.model(
        input_ids=batch["input_ids"], output_hidden_states=True, output_attentions=True
    )
    losses = model.side_losses(outputs.hidden_states, batch)
    width = batch["input_ids"].shape[1]
    for name, layer, source in (("recall", 2, "read_at"), ("value", 3, "value_from")):
        at, wanted = batch[f"{name}_at"], batch[source]
        assert len(at) == (4 if name == "recall" else 8)
        seen = outputs.attentions[layer][at // width, :2, at % width, wanted % width]
        assert losses[f"{name}_look"].item() == pytest.approx(-seen.log().mean().item(), rel=1e-4)


def test_the_reading_heads_are_left_behind(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["word " * 50], size=512, context=64)
    shape = ModelShape(hidden=16, layers=2, heads=2, feed_forward=32, vocabulary=512, context=512)
    model = build_model(shape, tokenizer)
    plain = model.without_heads()
    plain.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.allclose(again(ids).logits, model(ids).logits, atol=1e-6)
    assert not [name for name, _ in plain.named_parameters() if "heads." in name]


def test_batches_stay_within_their_token_budget() -> None:
    tokenizer = train_tokenizer(["word " * 50], size=512, context=64)
    examples = [
        encode(Example((Message(role="user", content="word " * size),), "", "word"), tokenizer)
        for size in range(1, 60)
    ]
    batches = pack(examples, 200)
    assert sum(map(len, batches)) == len(examples)
    assert all(
        len(batch) * max(len(encoded.input_ids) for encoded in batch) <= 200 for batch in batches
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": -1}, "seed"),
        ({"surprise": 1}, "surprise"),
        ({"shape": {"hidden": 0}}, "shape.hidden"),
    ],
)
def test_a_wrong_recipe_names_the_field(
    tmp_path: Path, change: dict[str, object], field: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | change))
    with pytest.raises(ConfigurationError, match=field):
        PsiRecipe.load(path)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="tiny-cpu"):
        PsiRecipe.load("huge")
    with pytest.raises(ConfigurationError, match="is for pgenrm train sft, cre or curriculum"):
        PsiRecipe.load("llama-8b")


@pytest.mark.long
def test_a_killed_run_continues_and_ends_with_all_its_steps(
    tmp_path: Path, psi_answers: Path
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(RECIPE))
    options = ("--data", psi_answers, "--recipe", recipe, "--out", out)
    train_killed(3, out, "psi", *map(str, options))
    record = json.loads((out / "run.json").read_text())
    rows = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    state = json.loads(
        max((out / "checkpoints").glob("checkpoint-*/trainer_state.json")).read_text()
    )
    assert record["steps"] == state["max_steps"]
    assert (out / "model" / "model.safetensors").is_file()
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    losses = {row["step"]: row["chain_loss"] for row in rows if "loss" in row}
    assert list(losses) == list(range(20, record["steps"] + 1, 20))  # none twice, none missing
    assert losses[max(losses)] < 6.2  # an untrained model of 800 tokens stands at ln 800 = 6.7
    assert (
        ChainFormat.load("compact-2").name
        == json.loads((out / "model" / "chain_format.json").read_text())["format"]
    )

    further = tmp_path / "further"
    result = train_psi(PsiRecipe.load(recipe), psi_answers, further, start_from=out, stop_after=2)
    assert result.steps == 2
    second = json.loads((further / "run.json").read_text())
    assert second["steps"] == 2 < second["recipe_steps"]
    assert second["start_from"] == record
    for name in ("tokenizer.json", "chain_format.json"):
        assert (further / "model" / name).read_text() == (out / "model" / name).read_text()


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A run with a checkpoint, as far as another one looks at it before it trains."""
    checkpoint = tmp_path / "earlier" / "checkpoints" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "earlier"


def test_a_run_keeps_to_what_it_started_from(tmp_path: Path, earlier: Path) -> None:
    recipe, out = PsiRecipe.model_validate(RECIPE), tmp_path / "out"

    def refused(start: Path | None, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            train_psi(recipe, tmp_path, out, start_from=start)

    refused(earlier, "no such file")  # the data; the settings are kept by then
    refused(None, "with start_from = 'checkpoint-3 .*None is asked")
    weights = earlier / "checkpoints" / "checkpoint-3" / "model.safetensors"
    weights.write_bytes(b"trained on")
    refused(earlier, "with start_from")
    weights.write_bytes(b"weights")
    refused(earlier, "no such file")


class Stopped(Exception):
    """The tokenizer is there: nothing needs to be trained."""


def test_a_run_that_goes_on_keeps_its_own_tokenizer(
    tmp_path: Path, earlier: Path, psi_answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = load_answers(psi_answers / "train.jsonl.gz").texts
    for run, size in ((earlier, 700), (tmp_path / "out", 800)):
        train_tokenizer(texts[:200], size=size, context=3072).save_pretrained(run / "model")
    own = (tmp_path / "out" / "model" / "tokenizer.json").read_bytes()

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr("pgenrm_agent.training.psi.Steps", stop)
    for out, kept in ((tmp_path / "out", own), (tmp_path / "new", None)):
        with pytest.raises(Stopped):
            train_psi(PsiRecipe.model_validate(RECIPE), psi_answers, out, start_from=earlier)
        taken = (earlier / "model" / "tokenizer.json").read_bytes()
        assert (out / "model" / "tokenizer.json").read_bytes() == (kept or taken)


def test_starting_from_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no checkpoint to start from"):
        train_psi(PsiRecipe.load("tiny-cpu"), tmp_path, tmp_path / "out", start_from=tmp_path)
