"""Training examples are those of use: all lengths, few choices as often as many, twins and strangers."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import xgrammar

from pgenrm_agent.chain import ChainFormat, parse_chain
from pgenrm_agent.chain.layout import Shown
from pgenrm_agent.chain.notes import Writer
from pgenrm_agent.chain.signs import read
from pgenrm_agent.training.bundled.examples import Example, write_examples
from pgenrm_agent.training.bundled.restyle import restyle
from pgenrm_agent.training.bundled.simulation import Answers
from pgenrm_agent.training.bundled.texts import cut, draw_length, draw_text

FORMAT = ChainFormat.load("compact-2")
FOREIGN = "Ich weiß es nicht, und das ist auch gut so."


@pytest.fixture(scope="module")
def examples(training_answers: Answers) -> list[Example]:
    return list(islice(write_examples("chain", training_answers, FORMAT, seed=3), 400))


def _shown(example: Example) -> tuple[int, int]:
    target = example.target
    return target.count(" chosen] "), target.count("[response ")


def test_examples_are_the_same_for_the_same_seed(
    training_answers: Answers, examples: list[Example]
) -> None:
    again = islice(write_examples("chain", training_answers, FORMAT, seed=3), 5)
    assert list(again) == examples[:5]


def test_one_and_two_past_choices_are_as_frequent_as_three(examples: list[Example]) -> None:
    shown = Counter(history for history, _ in map(_shown, examples))
    assert set(shown) == set(range(7))
    assert min(shown[1], shown[2], shown[3]) > 0.7 * max(shown[1], shown[2], shown[3])
    width = Counter(candidates for _, candidates in map(_shown, examples))
    assert min(width.values()) > 0.6 * max(width.values())


def test_a_single_answer_keeps_its_period(examples: list[Example]) -> None:
    lonely = [
        example.answers[-1]
        for example in examples
        if _shown(example)[1] == 1 and example.answers[-1]
    ]
    assert 0.2 < np.mean([text.endswith(".") for text in lonely]) < 0.95


def test_every_choice_of_the_notes_stands_in_the_prompt(examples: list[Example]) -> None:
    for example in examples:
        history, width = _shown(example)
        prompt = "".join(message.content for message in example.messages)
        assert prompt.count(" chosen]") == history
        assert prompt.count("[response ") == width
        assert len(example.answers) == 2 * history + width


def test_texts_have_all_lengths(examples: list[Example]) -> None:
    sizes = np.array([len(text) for example in examples for text in example.answers if text])
    assert (sizes < 70).mean() > 0.25
    assert (sizes < 20).mean() > 0.05
    assert ((sizes > 70) & (sizes < 450)).mean() > 0.3
    assert sizes.max() <= 600


def test_other_languages_are_marked_alike(examples: list[Example]) -> None:
    foreign = [
        example
        for example in examples
        if all(text is None for text in example.answers[2 * _shown(example)[0] :])
    ]
    assert foreign
    for example in foreign:
        _, width = _shown(example)
        parsed = parse_chain(example.target, [str(k) for k in range(width)])
        assert len(set(parsed.totals.values())) == 1


def test_every_chain_is_one_that_the_grammar_allows(examples: list[Example]) -> None:
    themes = FORMAT.settings.themes
    assert themes is not None
    tokenizer = xgrammar.TokenizerInfo([chr(code) for code in range(128)])
    compiler = xgrammar.GrammarCompiler(tokenizer)
    for example in examples[:120]:
        history, candidates = _shown(example)
        text, start = example.target, ""
        if example.unlearned:  # a persona that somebody wrote: the grammar is of what follows it
            start = text[: text.index("### Criteria\n") + len("### Criteria\n")]
        texts = [answer or FOREIGN for answer in example.answers[: 2 * history]]
        choices = tuple(zip(texts[::2], texts[1::2], strict=True))
        shown = Shown(candidates, choices, "Stated:" in text)
        grammar = Writer(themes, shown).grammar(start, "scores")
        assert grammar is not None
        matcher = xgrammar.GrammarMatcher(
            compiler.compile_grammar(grammar), terminate_without_stop_token=True
        )
        assert matcher.accept_string(text[len(start) :]), text
        assert matcher.is_terminated(), text


@pytest.mark.parametrize(
    ("theme", "at"), [("substance", 0), ("structure", 1), ("warmth", 2), ("caution", 3)]
)
def test_a_rewrite_moves_a_text_toward_its_pole(
    training_answers: Answers, theme: str, at: int
) -> None:
    rng = np.random.default_rng(1)
    moved = []
    for query in range(60):
        text = draw_text(training_answers, query, draw_length(rng), rng)
        more, less = (read([restyle(text, theme, pole, rng)])[0][at] for pole in (1, -1))
        moved.append(int(more) - int(less))
    assert np.mean(np.array(moved) > 0) > 0.75
    assert np.mean(np.array(moved) < 0) < 0.1


def test_a_text_is_cut_at_sentences_then_at_words() -> None:
    text = "Rice is easy. Rinse it first, then boil it in twice as much water. Let it rest."
    assert cut(text, 15) == "Rice is easy."
    assert cut(text, 70) == text[: text.index(" Let")]
    assert cut(text, 8) == "Rice is"
    assert cut(text, 500) == text
