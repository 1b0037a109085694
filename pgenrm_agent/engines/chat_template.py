"""Chat templates come with downloaded models: rendered as transformers does, and bounded in what they write.

Jinja's sandbox keeps a template from code, not from filling the memory: `'a' * 10**9` is folded when
it is compiled, and a text that is joined to itself doubles with each turn of a loop. Chat templates
use more of Jinja than the prompts of this library (`chain.templates`), so what they use is kept, and
whatever makes a longer text of shorter ones is measured before it is made.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes, pass_environment
from jinja2.compiler import CodeGenerator, Frame
from jinja2.environment import Environment
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import do_indent, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pgenrm_agent.chain.templates import most_written

MOST_BITS = 4096
"""Bits of a whole number."""
WIDEST_INDENT = 16
WIDEST = 999
WIDER = re.compile(r"%[^a-zA-Z%]*(\d{4}|\*)|\{[^{}]*:[^{}]*\d{4}|\{[^{}]*\{")
"""In a text that formats others: a width of four digits, or one that is given beside it."""
DROPPED_FILTERS = ("batch", "center", "pprint", "slice", "urlize", "wordwrap", "xmlattr")
METHODS = frozenset(
    {"capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha"}
    | {"isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join"}
    | {"lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex"}
    | {"rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase"}
    | {"title", "upper"}
)
"""What a template may call of a text."""

_most: ContextVar[int] = ContextVar("most", default=0)
"""Characters that a text may have in the rendering at hand."""


def render_chat(source: str, shown: Mapping[str, object]) -> str:
    """Return what a chat template makes of the data.

    Raises:
        TemplateError: It is none, cannot be rendered, or writes far more than it is given.
    """
    before = _most.set(most_written(shown))
    try:
        pieces, length = [], 0
        for piece in _compiled(source).generate(shown):
            pieces.append(piece)
            length += len(piece)
            _bound(length)
        return "".join(pieces)
    except RecursionError:
        raise TemplateError("it calls itself, or nests, without an end") from None
    finally:
        _most.reset(before)


def _bound(length: int) -> None:
    """Refuse to make a text of more characters, or a list of more items, than there may be."""
    if length > _most.get():
        raise SecurityError(f"it makes a text of more than {_most.get():,} characters")


def _measured(value: object) -> object:
    """Return a value that may be written: lists can hold each other many times over."""
    if isinstance(value, str) or not isinstance(value, Mapping | list | tuple):
        return value
    length = 0
    inside: list[object] = [value]
    while inside:
        inner = inside.pop()
        length += len(inner) if isinstance(inner, str) else 8
        _bound(length)
        if isinstance(inner, Mapping):
            inside += [*inner.keys(), *inner.values()]
        elif isinstance(inner, list | tuple):
            inside += inner
    return value


def _joined(texts: Iterable[object]) -> str:
    parts = [str(_measured(text)) for text in texts]
    _bound(sum(map(len, parts)))
    return "".join(parts)


class _CodeGenerator(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        """Write `~` as a call of what measures."""
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    code_generator_class = _CodeGenerator
    concat = staticmethod(_joined)  # of blocks and macros, too

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Measure what `+`, `*`, `**` and `%` make, and make it."""
        whole = isinstance(left, int) and isinstance(right, int)
        if operator == "%" and isinstance(left, str):
            _refuse_wide(left, right if isinstance(right, tuple) else (right,))
        elif operator in ("*", "**") and whole:
            bits = left.bit_length()
            if (bits * abs(right) if operator == "**" else bits + right.bit_length()) > MOST_BITS:
                raise SecurityError(f"it makes a number of more than {MOST_BITS} bits")
        elif operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, list | tuple):
                    raise SecurityError("'*' repeats texts, and no lists")
                if isinstance(text, str) and isinstance(times, int):
                    _bound(len(text) * times)
        elif operator == "+" and isinstance(left, str | list | tuple):
            _bound(len(left) + (len(right) if isinstance(right, str | list | tuple) else 0))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __called: Any, *args: Any, **named: Any) -> Any:  # noqa: N805
        """Measure what a method of a text makes, and make it."""
        method = getattr(__called, "__name__", "")
        # Jinja wraps what formats.
        owner = getattr(getattr(__called, "__wrapped__", __called), "__self__", None)
        if isinstance(owner, int | float | bytes) or (
            isinstance(owner, str) and method not in METHODS
        ):
            raise SecurityError(f"{method} of a {type(owner).__name__} has no place here")
        if isinstance(owner, str):
            if method == "format":
                _refuse_wide(owner, (*args, *named.values()))
            elif method == "replace" and len(args) > 1:
                _measure_replaced(owner, args[0], args[1])
            elif method == "join" and args:
                return _join(__self, args[0], owner)
        return super().call(__context, __called, *args, **named)


def _refuse_wide(template: str, given: Sequence[object]) -> None:
    """Refuse to format with a large width, or more than may be written."""
    if WIDER.search(template.replace("{{", "").replace("}}", "")):
        raise SecurityError(f"{template!r:.40} formats with a width of more than {WIDEST}")
    longest = max((len(str(_measured(value))) for value in given), default=0)
    _bound(len(template) + (template.count("{") + template.count("%")) * (longest + WIDEST))


def _measure_replaced(text: str, old: object, new: object) -> None:
    count = text.count(str(old)) if str(old) else len(text) + 1
    _bound(len(text) + count * len(str(_measured(new))))


# --- filters that make longer texts, and what transformers brings along -------------------------


@pass_environment
def _join(
    environment: Environment, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    parts = [str(_measured(part)) for part in value]
    _bound(sum(map(len, parts)) + len(d) * len(parts))
    return d.join(parts)


def _replace(s: object, old: str, new: str, count: int = -1) -> str:
    text = str(_measured(s))
    _measure_replaced(text, old, new)
    return text.replace(old, new, count)


def _format(value: object, *args: Any, **named: Any) -> str:
    template = str(value)
    _refuse_wide(template, (*args, *named.values()))
    return template % (named or args)


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    by = len(width) if isinstance(width, str) else width
    _bound(len(s) + (s.count("\n") + 1) * by)
    return do_indent(s, width, first, blank)


def _string(value: object) -> str:
    return str(_measured(value))


def _tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, str) or (indent or 0) > WIDEST_INDENT:
        raise SecurityError(f"tojson indents by {WIDEST_INDENT} at most")
    _joined(separators or ())
    return json.dumps(
        _measured(x),
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    _refuse_wide(format, ())
    return datetime.now().strftime(format)


class _Generation(Extension):
    """`{% generation %}` marks what a model writes; here it is read as if it were not there."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """Return what is inside of the tag."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


@functools.cache
def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_measured,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    for name in DROPPED_FILTERS:
        del environment.filters[name]
    environment.filters |= {
        "join": _join,
        "replace": _replace,
        "format": _format,
        "indent": _indent,
        "string": _string,
        "tojson": _tojson,
    }
    del environment.globals["lipsum"]
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)
