"""What a server takes of a request, learned from its refusals.

A request names everything that is wanted of an answer. Servers know parts of it: what one refuses
by name is left out, renamed or said in another way from then on, and the work that it would have
done is done here (a stop string cuts the text here, samples are asked for one by one).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from pgenrm_agent.engines.prompting import fold_system
from pgenrm_agent.engines.server_errors import ServerFault
from pgenrm_agent.schema import Message

Request: TypeAlias = dict[str, object]
"""A request in full: "messages" are `Message`s, "json_schema" is the schema itself and "json_grammar"
the grammar of its texts, for a server that may take one; the other fields are named as in OpenAI's API."""

LIMITS = ("max_tokens", "max_completion_tokens")
METHOD = "method:"
"""Begins the ways to hold to a schema that are methods of LangChain's `with_structured_output`."""
SCHEMA_WAYS = ("json_schema", "json_object")
GRAMMAR_WAY = "structural_tag"
"""vLLM's way to be given a grammar. Given a schema, it leaves white space to the model."""
BOUNDS = frozenset(
    {
        *("maxLength", "minLength", "maxItems", "minItems", "uniqueItems", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("default", "title", "description", "examples", "maxProperties", "minProperties"),
        *("propertyNames", "propertyOrdering", "prefixItems", "$schema", "$id", "$comment"),
    }
)
"""Keywords of a schema without which an answer is still read, so that they can be left out."""


@dataclass(frozen=True)
class Dialect:
    """How to ask a server.

    dropped: fields that it refuses.
    limit: by which names it knows the most new tokens, the next one to try first; none: it takes no limit.
    most_tokens: the highest limit it takes.
    together: most samples it gives in one answer; None: as many as asked for.
    folds_system: whether a system text goes into the user turn.
    schema_ways: ways to hold an answer to a schema that it may know, the next one to try first.
    takes_grammar: whether it may know how to hold an answer to a grammar, which is tried before the
        ways to hold it to a schema.
    keywords: keywords of a schema that it refuses.
    strict: whether a schema is sent as strict.
    """

    dropped: frozenset[str] = frozenset()
    limit: tuple[str, ...] = LIMITS
    most_tokens: int | None = None
    together: int | None = None
    folds_system: bool = False
    schema_ways: tuple[str, ...] = SCHEMA_WAYS
    takes_grammar: bool = True
    keywords: frozenset[str] = frozenset()
    strict: bool = True

    def translate(self, request: Request) -> Request:
        """Return the request as this server takes it."""
        told = {name: value for name, value in request.items() if name not in self.dropped}
        if self.folds_system:
            told["messages"] = fold_system(_messages(told))
        limit = told.pop("max_tokens", None)
        if isinstance(limit, int) and self.limit:
            told[self.limit[0]] = min(limit, self.most_tokens or limit)
        count = told.get("n")
        if isinstance(count, int) and self.together is not None:
            told["n"] = min(count, self.together)
        if told.get("n") == 1:
            del told["n"]
        schema, grammar = told.pop("json_schema", None), told.pop("json_grammar", None)
        if grammar is not None and self.takes_grammar:
            held = {"type": "grammar", "grammar": grammar}
            told["response_format"] = {"type": GRAMMAR_WAY, "format": held}
        elif isinstance(schema, Mapping) and self.schema_ways:
            self._hold_to_schema(told, schema)
        return told

    def _hold_to_schema(self, told: Request, schema: Mapping[str, object]) -> None:
        way = self.schema_ways[0]
        plain = _without_keywords(schema, self.keywords)
        if way == "json_object":
            told["messages"] = _with_schema_in_words(_messages(told), schema)
            told["response_format"] = {"type": "json_object"}
        elif way == "json_schema":
            held: dict[str, object] = {"name": "answer", "schema": plain}
            if self.strict:
                held |= {"strict": True, "schema": _strict(plain)}
            told["response_format"] = {"type": "json_schema", "json_schema": held}
        else:
            if way == f"{METHOD}json_mode":
                told["messages"] = _with_schema_in_words(_messages(told), schema)
            told["response_format"] = {"type": way, "schema": plain}


@dataclass(frozen=True)
class _Optional:
    """A part of requests that servers refuse, and what follows from it.

    fields: the request has one of these.
    named: how a refusal speaks of it, where it does not give the field's name as such.
    learned: the dialect without it; None if the refusal is about something else after all.
    consequence: what the user should know.
    """

    fields: tuple[str, ...]
    named: re.Pattern[str]
    learned: Callable[[Dialect, Request, str], Dialect | None]
    consequence: str


def _word(*names: str) -> str:
    """A pattern of names that are no common words."""
    return rf"(?<![\w.])(?:{'|'.join(names)})(?![\w-])"


def _field_word(*names: str) -> str:
    """A pattern of names that are common words: they stand in quotes or beside "parameter"."""
    name = f"(?:{'|'.join(names)})"
    kind = r"(?:param(?:eter)?|arg(?:ument)?|field|propert(?:y|ie)|keyword|name|input|option|key)s?"
    return (
        rf"(?:['\"`]{name}['\"`]|{kind}\W{{1,4}}{name}(?![\w-])|(?<![\w'\\-]){name}['\"`]?\s{kind}"
        rf"|(?<![\w'\\-]){name}\s*(?:[=:<>]|is |must |should |has |cannot |not )|^\W*{name}\W*$"
        rf"|(?:model|supported|allowed|permitted|unknown|invalid): {name}\W*$)"
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)


_TOO_MUCH = _compiled(
    r"too (?:large|high|big|many)|at most|maximum|exceed|less than|<=?|greater|up to|limit|range"
)
_NOT_BOTH = _compiled(
    r"(?:temperature|top_p).{0,40}\b(?:both|together|same time)|\bboth\b.{0,40}top_p"
)
_UNKNOWN = _compiled(
    r"unsupported|not supported|unknown|unrecogni|unexpected|extra inputs|not permitted|instead"
)
_TOO_COMPLEX = _compiled(r"too many states|complex|nesting|depth|too (?:large|deep|long|many)")
_SCHEMA_WORDS = (
    r"response[_ ]?(?:format|schema|mime)|json[_ ]?(?:schema|object|mode)|structured[_ ]?output"
    r"|guided|grammar|schema|structural[_ ]?tag|the requested parameters"
)
_HOLDING = _compiled(rf"{_SCHEMA_WORDS}|(?<!or )tool(?! message| role)|function[_ -]?call")
_STRICT = _compiled(_field_word("strict"))


def _drop(name: str) -> Callable[[Dialect, Request, str], Dialect]:
    return lambda dialect, _, __: replace(dialect, dropped=dialect.dropped | {name})


def _drop_temperature(dialect: Dialect, sent: Request, said: str) -> Dialect | None:
    if "top_p" in sent and _NOT_BOTH.search(said):
        return None  # It is enough to leave out the other.
    return replace(dialect, dropped=dialect.dropped | {"temperature"})


def _numbers(said: str) -> list[int]:
    return [int(number) for number in re.findall(r"(?<![\w.-])\d{1,7}(?![\w.-]*\w)", said)]


def _learn_together(dialect: Dialect, sent: Request, said: str) -> Dialect:
    count = sent["n"]
    assert isinstance(count, int)
    if dialect.together is not None and dialect.together < count:
        return dialect  # Learned from another request meanwhile.
    capped = [number for number in _numbers(said) if 1 < number < count]
    # A cap is believed once.
    return replace(dialect, together=1 if dialect.together or not capped else max(capped))


def _learn_limit(dialect: Dialect, sent: Request, said: str) -> Dialect:
    name = next(limit for limit in LIMITS if limit in sent)
    asked = sent[name]
    assert isinstance(asked, int)
    if dialect.most_tokens is not None and dialect.most_tokens < asked:
        return dialect
    capped = [number for number in _numbers(said) if 16 <= number < asked]
    if capped and _TOO_MUCH.search(said) and not _UNKNOWN.search(said):
        return replace(dialect, most_tokens=max(capped))
    return replace(dialect, limit=tuple(limit for limit in dialect.limit if limit != name))


def _learn_keywords(dialect: Dialect, sent: Request, said: str) -> Dialect | None:
    used = _keywords_of(sent) & BOUNDS
    named = {keyword for keyword in used if re.search(rf"(?<![\w$]){re.escape(keyword)}\b", said)}
    if not named and _TOO_COMPLEX.search(said):
        named = set(used)
    return replace(dialect, keywords=dialect.keywords | named) if named else None


def _learn_strict(dialect: Dialect, sent: Request, said: str) -> Dialect | None:
    form = sent["response_format"]
    held = form.get("json_schema") if isinstance(form, Mapping) else None
    if not isinstance(held, Mapping) or "strict" not in held or not _STRICT.search(said):
        return None
    return replace(dialect, strict=False)


def _way(sent: Request) -> object:
    form = sent["response_format"]
    return form["type"] if isinstance(form, Mapping) else None


def _without_grammar(dialect: Dialect, sent: Request, _: str) -> Dialect | None:
    return replace(dialect, takes_grammar=False) if _way(sent) == GRAMMAR_WAY else None


def _next_way(dialect: Dialect, sent: Request, _: str) -> Dialect:
    way = _way(sent)
    return replace(dialect, schema_ways=tuple(name for name in dialect.schema_ways if name != way))


def _fold(dialect: Dialect, sent: Request, _: str) -> Dialect | None:
    if not any(message.role == "system" for message in _messages(sent)):
        return None
    return replace(dialect, folds_system=True)


_TABLE = (
    _Optional(
        ("response_format",),
        _HOLDING,
        _without_grammar,
        "it is given the schema, and a model may fill its token limit with white space between the"
        " parts of an answer unless vLLM is started with --structured-outputs-config"
        """ '{{"backend": "guidance", "disable_any_whitespace": true}}'""",
    ),
    _Optional(
        ("response_format",),
        _compiled(r"schema|propert|keyword|response_format|for '\w+' type"),
        _learn_keywords,
        "answers are held to the schema without {new}",
    ),
    _Optional(("response_format",), _STRICT, _learn_strict, "schemas are sent as not strict"),
    _Optional(
        ("response_format",),
        _HOLDING,
        _next_way,
        "answers are held to a schema in another way, or not at all",
    ),
    _Optional(
        ("stop",),
        _compiled(rf"stop[_ -]?(?:sequence|word|string|token)s?|{_field_word('stop')}"),
        _drop("stop"),
        "texts are cut here",
    ),
    _Optional(
        ("seed",),
        _compiled(_word("seed", "seeding")),
        _drop("seed"),
        "the same seed gives other samples",
    ),
    _Optional(
        ("n",),
        _compiled(
            rf"{_field_word('n')}|candidate_?count|num_?return_?sequences|best_of"
            r"|(?:multiple|several|more than (?:one|1)|only (?:one|1|a single)|number of) (?:\w+ )?"
            r"(?:choice|completion|candidate|generation|sample|response)s?"
        ),
        _learn_together,
        "fewer samples are asked for in one request",
    ),
    _Optional(
        ("temperature",),
        _compiled(_word("temperature", r"sampling parameters?")),
        _drop_temperature,
        "samples differ less or more than asked for",
    ),
    _Optional(
        ("top_p",),
        _compiled(_word("top[_-]?p", r"sampling parameters?")),
        _drop("top_p"),
        "samples differ less or more than asked for",
    ),
    _Optional(
        LIMITS,
        _compiled(
            _word("max[_-]?tokens", "max[_-]?(?:completion|output|new)[_-]?tokens", "num_predict")
        ),
        _learn_limit,
        "the most tokens are said in another way, or not at all",
    ),
    *(
        _Optional((name,), _compiled(_word(pattern)), _drop(name), "its own value counts")
        for name, pattern in (
            ("top_k", "top[_-]?k"),
            ("min_p", "min[_-]?p"),
            ("repetition_penalty", "repetition[_-]?penalty"),
            ("return_token_ids", "return[_-]?token[_-]?ids"),
        )
    ),
    _Optional(
        ("messages",),
        _compiled(
            r"(?:system|developer)\W{0,3}(?:role|message|prompt|instruction|turn)"
            r"|roles?\W{0,20}(?:system|developer)|system\b.{0,30}\brole|\balternat"
            r"|(?:only|expected?|input should be|one of|first|start with)\b.{0,40}\buser\b"
            r"|unexpected (?:message )?role|messages?\W{0,3}0\W{0,3}\.?role|['\"`]system['\"`]"
        ),
        _fold,
        "the system text is sent in the user's turn",
    ),
)
"""Every part of a request that is optional. What stands above is asked first."""

_COMPLAINT = _compiled(
    r"unsupported|unexpected|unknown|unrecogni|no such|invalid|forbidden|extra inputs|only|must|should"
    r"|fail(?:ed|s|ure)? to (?:\w+ )?(?:compile|convert|build|parse|create|initiali[sz]e)"
    r"|(?:not|n't) (?:\w+ ){0,3}(?:support|permit|allow|accept|recogni|implement|enable|available|know)"
    r"|no endpoints|cannot|can't|illegal|disallow|too complex|alternate"
)
_NO_REFUSALS = frozenset({401, 402, 407, 408, 409, 425, 429, 502, 503, 504, 529})
# What a server does take, listed behind what it refuses.
_TAKEN = _compiled(
    r"(unknown field\W{1,3}\w+\W{1,3})expected\b[^.\n]*"
    r"|(?<!not )\b(?:supported|allowed|valid|available|accepted|permitted)\s(?:\w+\s)?"
    r"(?:param|arg|field|value|option|key|propert|name)\w*\s?(?:are|is|include|:)"
    r"\W*(?=[a-z])[^.\n]*"
)


def learn(dialect: Dialect, sent: Request, fault: ServerFault) -> tuple[Dialect, tuple[str, ...]]:
    """Return what a refusal of the request `sent` teaches, and sentences for the user about it.

    A refusal teaches something if it names an optional part of the request. One by a failing server
    (5xx), or of a thing that is not there (404), has to complain of it, too.
    """
    said = _TAKEN.sub(r"\1 ", fault.words.everything)
    plain = fault.status in {400, 405, 406, 415, 422}
    if fault.kind not in {"status", "unknown"} or fault.status in _NO_REFUSALS:
        return dialect, ()
    if not plain and not _COMPLAINT.search(said):
        return dialect, ()
    entries = [entry for entry in _TABLE if any(name in sent for name in entry.fields)]
    named = [entry for entry in entries if _is_named(entry, fault.words.fields, said)]
    learned, lessons, settled = dialect, list[str](), set[str]()
    for entry in named or [entry for entry in entries if entry.named.search(said)]:
        name = next(name for name in entry.fields if name in sent)
        after = None if name in settled else entry.learned(learned, sent, said)
        if after is None:
            continue
        settled.add(name)
        if after != learned:
            new = ", ".join(sorted(after.keywords - learned.keywords))
            part = "the system role" if name == "messages" else name
            lessons.append(f"refuses {part}: {entry.consequence.format(new=new)}")
            learned = after
    return learned, tuple(lessons)


def _is_named(entry: _Optional, named: Sequence[str], said: str) -> bool:
    """Whether a refusal gives the field as such, as in "param" or "loc"."""
    if entry.fields == ("messages",):
        return any("role" in name for name in named if name.startswith("messages"))
    return any(re.match(rf"{field}(?![\w-])", name) for name in named for field in entry.fields)


def _messages(request: Request) -> tuple[Message, ...]:
    messages = request["messages"]
    assert isinstance(messages, tuple)
    return messages


def _with_schema_in_words(
    messages: tuple[Message, ...], schema: Mapping[str, object]
) -> tuple[Message, ...]:
    """The messages with the schema at the end of the last user turn: the server does not see to it."""
    words = (
        f"Answer with nothing but a JSON object that fits this JSON schema:\n{json.dumps(schema)}"
    )
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=None)
    if last is None:
        return (*messages, Message(role="user", content=words))
    asked = messages[last]
    asked = asked.model_copy(update={"content": f"{asked.content}\n\n{words}"})
    return (*messages[:last], asked, *messages[last + 1 :])


_NAMED_PARTS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_PLAIN_PARTS = frozenset({"enum", "const", "default", "examples", "required"})


def _rebuilt(schema: object, change: Callable[[dict[str, object]], dict[str, object]]) -> object:
    """The schema with every schema in it changed, and names of properties left alone."""
    if isinstance(schema, list):
        return [_rebuilt(part, change) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    parts: dict[str, object] = {}
    for keyword, part in schema.items():
        if keyword in _NAMED_PARTS and isinstance(part, Mapping):
            parts[keyword] = {name: _rebuilt(inner, change) for name, inner in part.items()}
        elif keyword in _PLAIN_PARTS:
            parts[keyword] = part
        else:
            parts[keyword] = _rebuilt(part, change)
    return change(parts)


def _without_keywords(schema: Mapping[str, object], keywords: frozenset[str]) -> object:
    return _rebuilt(
        schema, lambda part: {name: value for name, value in part.items() if name not in keywords}
    )


def _strict(schema: object) -> object:
    """What OpenAI's strict mode asks for: every property required, and no further ones."""

    def closed(part: dict[str, object]) -> dict[str, object]:
        properties = part.get("properties")
        if not isinstance(properties, Mapping):
            return part
        return {**part, "required": list(properties), "additionalProperties": False}

    return _rebuilt(schema, closed)


def _keywords_of(sent: Request) -> frozenset[str]:
    used: set[str] = set()

    def noted(part: dict[str, object]) -> dict[str, object]:
        used.update(part)
        return part

    form = sent["response_format"]
    held = form.get("json_schema", form) if isinstance(form, Mapping) else form
    _rebuilt(held.get("schema") if isinstance(held, Mapping) else None, noted)
    return frozenset(used)
