"""Chat templates of strangers: rendered as transformers does, and nothing that fills the memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from pgenrm_agent.engines.chat_template import render_chat
from pgenrm_agent.engines.prompting import render
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Message
from pgenrm_agent.training.bundled.tokenizer import CHAT_TEMPLATE, train_tokenizer

MESSAGES = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Zwei {Sätze} & <tags>, 100 %?\n"),
    Message(role="assistant", content="<think>\nhm\n</think>\n\nJa."),
    Message(role="user", content="why"),
)

QWEN = """
{%- if tools %}{{- tools | tojson }}{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" and '</think>' in content %}
        {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>' + message.role + '\\n[' + reasoning.strip() + ']' + content }}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
MACROS = """
{%- macro turn(message, depth=0) -%}
<{{ message['role'] | upper }}{{ '.' * depth }}> {{ message['content'] | trim | replace('a', 'A') }}
{%- endmacro %}
{%- for message in messages if message['role'] != 'tool' %}
    {%- if loop.index0 > 9 %}{% break %}{% endif %}
    {%- generation %}{{ turn(message, loop.index) }}{% endgeneration %}
    {%- set _ = namespace() %}
    {{ "%03d" | format(loop.index) }} {{ "{}/{}".format(loop.index, loop.length) }} {{ "%s" % loop.first }}
{% endfor -%}
{{ bos_token }}{{ messages | map(attribute='role') | join(', ') }}{{ {'a': [1, none]} | tojson(indent=2) }}
{{- 'x\\ny' | indent(4) }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ [1] + [2] }}{{ "{{a}} {}".format("December 2023") }}
"""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["be brief, hi and why and how " * 20], size=500, context=256)


@pytest.mark.parametrize("begin", [True, False])
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, QWEN, MACROS], ids=["ours", "qwen", "macros"])
def test_a_template_is_rendered_as_transformers_does(
    tokenizer: PreTrainedTokenizerFast, template: str, begin: bool
) -> None:
    tokenizer.chat_template = template
    expected = tokenizer.apply_chat_template(
        [message.model_dump() for message in MESSAGES], tokenize=False, add_generation_prompt=begin
    )
    assert render(tokenizer, MESSAGES, begin_answer=begin) == expected
    assert "why" in expected


BOMBS = [
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * 'a' }}",
    "{% if false %}{{ 'a' * 10**9 }}{% endif %}{{ 'a' * 10**9 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% set ns = namespace(t='aaaa') %}{% for i in range(40) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
    "{% set ns = namespace(t='aaaa') %}{% for i in range(40) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "{% set ns = namespace(t=['a']) %}{% for i in range(40) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "{% set ns = namespace(t=['a']) %}{% for i in range(40) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t }}",
    "{% set ns = namespace(t=['a']) %}{% for i in range(40) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}"
    "{{ ns.t | tojson }}",
    "{% set ns = namespace(t=['a']) %}{% for i in range(40) %}{% set ns.t = {'a': ns.t, 'b': ns.t} %}{% endfor %}"
    "{{ '' ~ ns.t }}",
    "{% set ns = namespace(t='aaaa') %}{% for i in range(40) %}{% set t %}{{ ns.t }}{{ ns.t }}{% endset %}"
    "{% set ns.t = t %}{% endfor %}",
    "{% macro m(n) %}aaaa{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a'.center(1000000000) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ 'a'['ljust'](1000000000) }}",
    "{{ 'a'.zfill(1000000000) }}",
    "{{ '\\t'.expandtabs(1000000000) }}",
    "{{ 'a'.translate({97: 'b' * 100000}) }}",
    "{{ ('a' * 10000) | replace('', 'b' * 100000) }}",
    "{{ ('a' * 10000) | replace('a', 'b' * 10000) }}",
    "{{ ('a' * 10000).replace('a', 'b' * 10000) }}",
    "{{ ('a' * 10000).replace('', 'b' * 10000) }}",
    "{{ range(100000) | join('b' * 100000) }}",
    "{{ ('b' * 100000).join('a' * 100000) }}",
    "{{ ['a' * 100000] | map('replace', 'a', 'b' * 100000) | join }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 1000000000) }}",
    "{{ ('{0}' * 10000).format('a' * 100000) }}",
    "{{ '{a}'.format_map({'a': 1}) }}",
    "{{ [1, [2]] | tojson(indent=1000000000) }}",
    "{{ ('a\\n' * 10000) | indent(1000000) }}",
    "{{ [1] | batch(1000000000, 'x') | list }}",
    "{{ [1] | slice(1000000000) | list }}",
    "{{ lipsum(n=1000000) }}",
    "{{ (1).to_bytes(1000000000, 'big') }}",
    "{{ 'a'.encode().ljust(1000000000) }}",
    "{{ [[1] * 100000] * 100000 }}",
    "{% for i in range(100000) %}{{ 'a' * 100000 }}{% endfor %}",
]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """What a bomb would need is not there: it ends in a MemoryError, and not the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("template", BOMBS, ids=range(len(BOMBS)))
def test_what_would_fill_the_memory_is_refused(template: str) -> None:
    with pytest.raises(TemplateError):
        render_chat(template, {"messages": []})


@pytest.mark.usefixtures("little_memory")
def test_the_refusal_names_the_model(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = BOMBS[0]
    with pytest.raises(ConfigurationError, match=r"the chat template of .* more than 20"):
        render(tokenizer, MESSAGES)
