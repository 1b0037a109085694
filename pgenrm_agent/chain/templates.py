"""Templates of prompts, which may come with a downloaded model: they see data, and write no more of it.

Jinja's sandbox keeps a template from code, not from filling the memory: `'a' * 10**9` is folded when
it is compiled. So a template consists of what prompts need, and of nothing that multiplies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

FILTERS = frozenset(
    {"capitalize", "count", "default", "first", "join", "last", "length", "lower", "tojson", "trim"}
    | {"upper"}
)
NODES = frozenset(
    {
        *("Template", "Output", "TemplateData", "Name", "Const", "List", "Tuple"),
        *("For", "If", "CondExpr", "Assign", "Getattr", "Getitem", "Slice", "Filter", "Test"),
        *("Compare", "Operand", "And", "Or", "Not", "Neg", "Add", "Sub", "Call"),
    }
)
MOST_NESTED_LOOPS = 2
MOST_REPEATED = 16
"""How many times over a prompt may hold all that its template is given."""
ROOM = 200_000
"""Characters of its own that a prompt may have beside it."""
LONGEST_RANGE = 1_000
LONGEST_TEXT = 10_000_000
"""Characters that texts joined by a filter may have."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+"})

    def call_binop(self, context: object, operator: str, left: object, right: object) -> object:
        """Add numbers, and nothing longer."""
        if isinstance(left, int) and isinstance(right, int):
            return left + right
        raise SecurityError("'+' adds whole numbers here: write texts one after the other")


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > LONGEST_RANGE:
        raise SecurityError(f"range() counts to {LONGEST_RANGE} at most")
    return numbers


def _join(texts: Iterable[object], between: str = "") -> str:
    parts = [str(text) for text in texts]
    if sum(map(len, parts)) + len(between) * len(parts) > LONGEST_TEXT:
        raise SecurityError(f"join makes texts of {LONGEST_TEXT} characters at most")
    return between.join(parts)


_ENVIRONMENT = _Environment(
    undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False
)
_ENVIRONMENT.globals = {"range": _range}
_ENVIRONMENT.filters["join"] = _join


def compiled(source: str, file: str) -> Template:
    """Return the template.

    file: its name, for errors.

    Raises:
        TemplateError: It is none, or has what templates of prompts may not have.
    """
    try:
        _refuse_unbounded(_ENVIRONMENT.parse(source))
        return _ENVIRONMENT.from_string(source)
    except TemplateSyntaxError as error:
        raise TemplateError(f"{file}, line {error.lineno}: {error.message}") from None
    except TemplateError as error:
        raise TemplateError(f"{file}: {error}") from None


def given_to(source: str) -> set[str]:
    """Return the names of what a template shows."""
    return meta.find_undeclared_variables(_ENVIRONMENT.parse(source))


def rendered(template: Template, shown: Mapping[str, object]) -> str:
    """Return what a template makes of the data.

    Raises:
        TemplateError: It wants what it is not given, or writes far more than it is given.
    """
    most = most_written(shown)
    pieces, length = [], 0
    for piece in template.generate(shown):
        pieces.append(piece)
        length += len(piece)
        if length > most:
            raise TemplateError(f"it writes more than {most} characters")
    return "".join(pieces)


def most_written(shown: Mapping[str, object]) -> int:
    """Return how many characters a template may write that is given this."""
    return ROOM + MOST_REPEATED * _size(shown)


def _refuse_unbounded(tree: nodes.Template) -> None:
    for node in _inside(tree):
        kind = type(node).__name__
        line = node.lineno or 1
        if kind not in NODES:
            raise TemplateSyntaxError(f"{kind} has no place in the template of a prompt", line)
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            raise TemplateSyntaxError(
                f"the filter {node.name!r} is none of {', '.join(sorted(FILTERS))}", line
            )
        called = node.node if isinstance(node, nodes.Call) else None
        if called is not None and not (isinstance(called, nodes.Name) and called.name == "range"):
            raise TemplateSyntaxError("only range(...) can be called", line)
    _refuse_growth(tree, 0)


def _refuse_growth(node: nodes.Node, loops: int) -> None:
    """Refuse loops too deep, and lists of lists that were made before: they double with each line."""
    for inner in node.iter_child_nodes():
        line = inner.lineno or 1
        deeper = loops + isinstance(inner, nodes.For)
        if deeper > MOST_NESTED_LOOPS:
            raise TemplateSyntaxError(f"loops stand {MOST_NESTED_LOOPS} deep at most", line)
        if isinstance(inner, nodes.Assign) and any(
            isinstance(part, nodes.List | nodes.Tuple) for part in _inside(inner)
        ):
            raise TemplateSyntaxError("set takes no list", line)
        _refuse_growth(inner, deeper)


def _inside(node: nodes.Node) -> Iterable[nodes.Node]:
    yield node
    for inner in node.iter_child_nodes():
        yield from _inside(inner)


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_size(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(_size(inner) for inner in value)
    return 8
