"""What a model reads of a prompt's messages."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from pgenrm_agent.engines import prompting
from pgenrm_agent.engines.prompting import PromptEncoder, fold_system, render, render_answer
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.schema import Message
from pgenrm_agent.training.bundled.tokenizer import CHAT_TEMPLATE, train_tokenizer


def turns(script: str) -> tuple[Message, ...]:
    """Return "s:be brief|u:hi" as messages."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    parts = [part.split(":", 1) for part in script.split("|")]
    return tuple(Message(role=roles[role], content=text) for role, text in parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "folded"),
    [
        ("u:hi", "u:hi"),
        ("s:be brief|u:hi", "u:be brief\n\nhi"),
        ("s:be brief|s:be kind|u:hi", "u:be brief\n\nbe kind\n\nhi"),
        ("s:be brief|u:hi|a:yes?|u:why", "u:be brief\n\nhi|a:yes?|u:why"),
        ("s:be brief|a:hello|u:hi", "u:be brief|a:hello|u:hi"),
        ("u:hi|a:yes?|s:be brief|u:why", "u:hi|a:yes?|u:be brief\n\nwhy"),
        ("u:hi|s:be brief|a:yes?", "u:hi\n\nbe brief|a:yes?"),
        ("u:hi|s:be brief", "u:hi\n\nbe brief"),
        ("s:be brief", "u:be brief"),
    ],
)
def test_a_system_text_is_folded_into_a_user_turn(given: str, folded: str) -> None:
    assert fold_system(turns(given)) == turns(folded)


def test_folding_needs_no_heavy_package() -> None:
    script = (
        "import sys; import pgenrm_agent.engines.prompting;"
        "print([m for m in ('torch', 'transformers', 'xgrammar', 'openai') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


PLAIN = CHAT_TEMPLATE
REFUSES_SYSTEM = (
    "{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif -%}"
    "{%- for message in messages -%}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant') }}"
    "{% endif -%}"
    "<|{{ message['role'] }}|>{{ message['content'] | trim }}{%- endfor -%}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif -%}"
)
DROPS_SYSTEM = PLAIN.replace(
    "{%- for message in messages -%}",
    "{%- for message in messages if message['role'] != 'system' -%}",
)
ONLY_FIRST_SYSTEM = PLAIN.replace(
    "{%- for message in messages -%}",
    "{%- for message in messages -%}{%- if message['role'] == 'system' and loop.index0 %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif -%}",
)
STRIPS_REASONING = PLAIN.replace(
    "{{ message['content'] }}", "{{ message['content'].split('</think>')[-1] }}"
)
OPENS_THINKING = PLAIN + "{%- if add_generation_prompt %}<think>\n{% endif -%}"
BREAKS = "{{ raise_exception('no template for this') }}"
CONVERSATION = turns('s:be brief|u:hi|a:{"persona": "x"}|u:go on|a:{"criteria": []}|u:now')


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["be brief, hi and why and how " * 20], size=500, context=256)


def rendered(tokenizer: PreTrainedTokenizerFast, template: str, *messages: Message) -> str:
    tokenizer.chat_template = template
    return render(tokenizer, messages)


@pytest.mark.parametrize("template", [REFUSES_SYSTEM, DROPS_SYSTEM])
def test_a_template_without_a_system_role_gets_the_text_in_the_user_turn(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    text = rendered(tokenizer, template, *turns("s:be brief|u:hi"))
    assert text == "<|user|>be brief\n\nhi<|assistant|>"


@pytest.mark.parametrize(
    "template", [PLAIN, REFUSES_SYSTEM, DROPS_SYSTEM, ONLY_FIRST_SYSTEM, STRIPS_REASONING]
)
def test_nothing_of_a_conversation_is_lost(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    text = rendered(tokenizer, template, *CONVERSATION)
    places = [text.index(message.content) for message in CONVERSATION]
    assert places == sorted(places)
    assert text.endswith("now<|assistant|>")


def test_a_system_text_in_the_middle_is_folded_where_only_the_first_is_taken(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = rendered(tokenizer, ONLY_FIRST_SYSTEM, *turns("s:a|u:hi|a:yes|s:be brief|u:why"))
    assert text.endswith("<|user|>be brief\n\nwhy<|assistant|>")


def test_whether_a_template_takes_the_role_is_asked_once_a_template(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[int] = []
    apply = prompting.render_chat

    def counted(*arguments: Any) -> str:
        applied.append(1)
        return apply(*arguments)

    monkeypatch.setattr(prompting, "render_chat", counted)
    for _ in range(3):
        rendered(tokenizer, REFUSES_SYSTEM, *turns("s:be brief|u:hi"))
    assert len(applied) == 1 + 3
    assert "<|system|>" in rendered(tokenizer, PLAIN, *turns("s:be brief|u:hi"))


def encoder(tokenizer: PreTrainedTokenizerFast, template: str) -> PromptEncoder:
    tokenizer.chat_template = template
    return PromptEncoder(tokenizer, owner="a model", context=64, remedy="take a longer one")


def test_a_template_that_cannot_render_says_which_conversation(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ConfigurationError, match=r"conversation of user.*no template for this"):
        encoder(tokenizer, BREAKS).encode(Prompt(messages=turns("u:hi")))


def test_a_tokenizer_without_a_template_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(EngineUnavailable, match="no chat template"):
        encoder(tokenizer, "")


def test_a_prompt_as_long_as_the_context_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    asked = encoder(tokenizer, PLAIN)
    short = asked.encode(Prompt(messages=turns("u:hi")))
    room = 64 - len(short.ids)
    asked.encode(Prompt(messages=turns("u:hi"), partial="1" * (room - 1)))
    with pytest.raises(ConfigurationError, match=r"64 tokens.*at most 64.*take a longer one"):
        asked.encode(Prompt(messages=turns("u:hi"), partial="1" * room))


@pytest.mark.parametrize(
    ("template", "partial", "end", "opened"),
    [
        (PLAIN, "", "hi<|assistant|>", ""),
        (PLAIN, "so", "hi<|assistant|>so", ""),
        (OPENS_THINKING, "", "<|assistant|><think>\n", "<think>"),
        # An answer begun is not thought: the thinking is closed before it.
        (OPENS_THINKING, "so", "<|assistant|><think>\n\n</think>\n\nso", ""),
        (OPENS_THINKING, "hm</think>so", "<|assistant|><think>\nhm</think>so", ""),
        (PLAIN + "<THINK", "", "<THINK", ""),
    ],
)
def test_what_a_template_opens_is_known_and_closed_before_a_begun_answer(
    tokenizer: PreTrainedTokenizerFast, template: str, partial: str, end: str, opened: str
) -> None:
    encoded = encoder(tokenizer, template).encode(Prompt(messages=turns("u:hi"), partial=partial))
    assert tokenizer.decode(encoded.ids).endswith(end)
    assert encoded.opened == opened


def test_a_begun_answer_with_a_schema_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = Prompt(messages=turns("u:hi"), partial="{", json_schema={"type": "object"})
    with pytest.raises(ConfigurationError, match="begun answer cannot be held"):
        encoder(tokenizer, PLAIN).encode(prompt)


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (PLAIN, "yes<|end|>"),
        (OPENS_THINKING, "\n</think>\n\nyes<|end|>"),
        (REFUSES_SYSTEM + "<|end|>", "yes<|end|>"),
        (STRIPS_REASONING, "yes<|end|>"),
    ],
)
def test_what_is_to_be_learned_goes_on_from_the_prompt_to_the_end_of_the_turn(
    tokenizer: PreTrainedTokenizerFast, template: str, written: str
) -> None:
    tokenizer.chat_template = template
    assert render_answer(tokenizer, turns("s:be brief|u:hi"), "yes") == written
