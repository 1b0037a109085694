"""What a small context has room for: texts are cut by estimated tokens, the last choices left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.chain.room import estimated_tokens, within
from pgenrm_agent.model_files import bundled_model
from pgenrm_agent.schema import (
    Candidate,
    EvaluationRequest,
    PreferencePair,
    StatedPreference,
    UserSignals,
)

FORMAT = ChainFormat.load("compact-2")
CHAIN_TOKENS = 740  # of the teacher, over six choices, wishes and four candidates, at most
ENGLISH = "The train leaves at nine, and it takes about two hours to get there by the coast. " * 8
CODE = "for (i = 0; i < 10; i++) { a[i] = b[i] * 3; } // " * 12
CHINESE = "火车九点开，沿着海岸大约需要两个小时才能到达那里。" * 30
EMOJI = "👩‍👩‍👧‍👦🎉" * 80


@given(text=st.text(max_size=300), tokens=st.integers(0, 200))
def test_a_cut_text_is_the_longest_beginning_that_fits(text: str, tokens: int) -> None:
    cut = within(text, tokens)
    assert text.startswith(cut)
    assert estimated_tokens(cut) <= tokens + 1e-6
    if cut != text:
        assert estimated_tokens(text[: len(cut) + 1]) > tokens - 1e-6


def _asked(
    text: str, choices: int, candidates: int, statements: int
) -> tuple[EvaluationRequest, UserSignals]:
    request = EvaluationRequest(
        user_id="u",
        query=text[:200],
        candidates=tuple(Candidate(id=str(i), text=f"{i} {text}") for i in range(candidates)),
    )
    signals = UserSignals(
        user_id="u",
        history=tuple(
            PreferencePair(query=text[:200], chosen=f"{i} {text}", rejected=f"{i + 100} {text}")
            for i in range(choices)
        ),
        stated=tuple(StatedPreference(text=f"{i} {text[:150]}") for i in range(statements)),
    )
    return request, signals


def _shown(
    chain_format: ChainFormat, request: EvaluationRequest, signals: UserSignals
) -> UserSignals:
    texts = [candidate.text for candidate in request.candidates]
    history, stated = chain_format.fitting(request.query, texts, signals.history, signals.stated)
    return signals.model_copy(update={"history": history, "stated": stated})


@pytest.mark.parametrize("text", [ENGLISH, CODE, CHINESE, EMOJI])
@pytest.mark.parametrize("statements", [0, 3, 60])
def test_a_prompt_and_its_chain_fit_the_bundled_models_context(text: str, statements: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    request, signals = _asked(text, choices=6, candidates=4, statements=statements)
    shown = _shown(FORMAT, request, signals)
    messages = FORMAT.messages(
        query=request.query,
        candidates=[candidate.text for candidate in request.candidates],
        history=signals.history,
        stated=signals.stated,
    )
    whole = "".join(message.content for message in messages)
    assert len(tokenizer.encode(whole)) + CHAIN_TOKENS <= 3072
    assert shown.history == signals.history[: len(shown.history)]
    assert shown.stated == signals.stated[: len(shown.stated)]


def test_short_texts_are_all_shown_and_of_long_ones_the_first() -> None:
    request, signals = _asked("At nine.", choices=6, candidates=4, statements=2)
    assert _shown(FORMAT, request, signals) == signals
    request, signals = _asked(CHINESE, choices=6, candidates=2, statements=0)
    assert 0 < len(_shown(FORMAT, request, signals).history) < 6
    fewer = _shown(FORMAT, request, signals.model_copy(update={"history": signals.history[:1]}))
    assert len(fewer.history) == 1


def test_a_format_without_limits_shows_everything() -> None:
    request, signals = _asked(CHINESE, choices=9, candidates=9, statements=9)
    assert _shown(ChainFormat.load("structured-1"), request, signals) == signals
