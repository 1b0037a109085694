"""What a server says when it does not answer: its own words, their meaning, and no part of a key.

Error bodies come in many shapes: OpenAI's error object, FastAPI's list under `detail`, plain text, a
gateway's sentence with the upstream's JSON inside a string, an HTML page. All are read to one.
"""

from __future__ import annotations

import ast
import contextlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from pgenrm_agent.engines.masking import KEY
from pgenrm_agent.errors import (
    ConfigurationError,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    PGenRMError,
)

TRANSIENT_STATUSES = frozenset({408, 409, 425, 429, *range(500, 600)}) - {501, 505}
LONGEST_WAIT_S = 120.0
"""A server that asks for a longer wait is not asked again."""
LONGEST_BODY = 20_000
LONGEST_LINE = 300
DEEPEST = 8

# Under these keys a server says something. What stands under others (an echo of the request, a
# trace, an address) is not read.
_SAID = re.compile(
    r"messag|msg|detail|error|reason|descri|title|raw|metadata|fault|cause|fail|exception|violation"
    r"|resp\b|feedback",
    re.IGNORECASE,
)
_MODELS_OWN = re.compile(r"failed_?generation", re.IGNORECASE)
_CODE = re.compile(r"(?:http|error)?_{0,2}(?:code|status|status_?code|type)", re.IGNORECASE)
_NAMES_FIELD = re.compile(r"param|parameter|loc|field", re.IGNORECASE)
_PAGE = re.compile(r"<(?:!doctype|html|body|head|h1|p|pre|center)\b", re.IGNORECASE)
_OPENS = re.compile(r"\{|\[\s*\{")
_UNSEEN = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_STATUS = re.compile(
    r"(?:^|error code:?\s*|http(?: error)?\s*|status(?: code)?:?\s*)([45]\d\d)\b", re.I
)

# What a code that is a word means, as a status.
_MEANINGS = (
    (429, r"rate.?limit|too.?many|throttl|resource.?exhausted|quota"),
    (503, r"overload|unavailable|capacity"),
    (504, r"time.?out|timed.?out|deadline"),
    (401, r"authenticat|api.?key|unauthori[sz]ed"),
    (403, r"permission|forbidden"),
    (404, r"not.?found"),
    (400, r"invalid|bad.?request|unprocessable|unsupported|content.?filter|context.?length"),
    (500, r"server.?error|internal|api.?error"),
)
_FILTER = re.compile(
    r"content[ _-]?(?:management )?(?:filter|policy)|data_?inspection_?failed|responsible ?ai"
    r"|inappropriate content|safety (?:system|filter|setting)|flagged|was filtered"
    r"|requires moderation|moderation (?:system|polic|fail)"
    r"|sensitive content|敏感内容|违规内容|不合规"
    r"|safety reasons|invalid_prompt|usage polic|prohibited_content|blocklist",
    re.IGNORECASE,
)
_NOT_HELD = re.compile(r"json_?validate_?failed", re.IGNORECASE)
_LENGTH = re.compile(
    r"context[ _]?(?:length|window|size|limit)|maximum model length|max_model_len"
    r"|prompt is too long|input is too long|(?:prompt|input)s? (?:tokens? )?(?:is |are )?(?:exceed|longer)"
    r"|too many (?:input |prompt )?tokens|exceeds? the (?:available |maximum )?(?:context|input)"
    r"|input (?:length|token count)|reduce the length",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(
    r"(?:request|message|body|payload|entity)\b.{0,40}\btoo large", re.IGNORECASE
)
_WRONG = re.compile(
    r"invalid|incorrect|not valid|missing|expired|revoked|required|no |wrong|denied", re.IGNORECASE
)
_LIMIT_REACHED = re.compile(
    r"could not finish.{0,80}(?:max_tokens|limit)|(?:max_tokens|output limit) was reached"
    r"|max completion tokens reached",
    re.IGNORECASE,
)
_SPENT = re.compile(
    r"insufficient[ _](?:quota|credit|balance|fund)|out of credit|payment required|credit balance"
    r"|budget_exceeded|budget has been exceeded",
    re.IGNORECASE,
)
# AWS and gateways say with 400 or 403 what others say with 429, and Groq with 413.
_THROTTLED = re.compile(
    r"rate[ _-]?limit(?:ed\b|s?[ _-]?(?:exceeded|reached|hit|error|exception))"
    r"|(?:exceed(?:ed|s)?|reached|hit|over) (?:\w+ ){0,4}rate[ -]limit|rate exceeded"
    r"|throttl(?:ed|ing)|too[ _-]?many[ _-]?requests|resource[ _]?(?:has been )?exhausted",
    re.IGNORECASE,
)
# The throttling is what is said first, and no quotation.
_THROTTLED_FIRST = re.compile(
    rf"^[^'\"“‘`\n]{{0,200}}?(?:{_THROTTLED.pattern})", re.IGNORECASE | re.MULTILINE
)
_KEY_IS_WRONG = (
    rf"(?:invalid|incorrect|wrong|missing|expired|revoked|\bno|unknown)[ _](?:\w+ ){{0,2}}(?:{KEY.pattern})"
    rf"|(?:{KEY.pattern})\w* (?:\w+ ){{0,4}}(?:invalid|incorrect|not valid|missing|expired|revoked|wrong)"
)
_ANOTHER_FAULT = re.compile(rf"{_FILTER.pattern}|{_LENGTH.pattern}|{_KEY_IS_WRONG}", re.IGNORECASE)
# Also said of a limit by the minute, with the wait until the next.
_SPENT_FOR_NOW = re.compile(r"exceeded your current quota|billing", re.IGNORECASE)
_AGAIN_IN = re.compile(
    r"(?:try again|retry(?:ing)?|wait)(?: in| after| for| at least)*\s+(?=\d)", re.IGNORECASE
)
# "480ms", "7 seconds", "1m26.4s", "2h15m"
_DURATION = re.compile(
    r"(?:(?P<h>\d+)\s*h(?:ours?|rs?)?\s*)?(?:(?P<m>\d+(?:\.\d+)?)\s*m(?:in(?:ute)?s?)?(?![a-z])\s*)?"
    r"(?:(?P<s>\d+(?:\.\d+)?)\s*s(?:ec(?:ond)?s?)?(?![a-z]))?"
    r"(?:(?P<ms>\d+(?:\.\d+)?)\s*(?:ms|millisec\w*))?",
    re.IGNORECASE,
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True)
class ServerWords:
    """What an error body says.

    text: its messages in one line.
    everything: the messages and codes in full, to look for words in.
    fields: what of the request it names as such ("seed", "messages[0].role").
    status: the HTTP status it gives, where it gives one.
    meaning: the status that its codes stand for, where they are words.
    is_page: whether it is a page for people, as of a proxy.
    """

    text: str
    everything: str = ""
    fields: tuple[str, ...] = ()
    status: int | None = None
    meaning: int | None = None
    is_page: bool = False


@dataclass(frozen=True)
class Advice:
    """What to do, in the terms of an engine's options, after a fault of its server."""

    key: str
    timeout: str
    unreachable: str
    overload: str
    missing: str


class Filtered(EngineError):
    """A content filter took the request or the answer."""


class ServerFault(Exception):
    """One attempt without an answer. It is caught and explained by the engines.

    status: of HTTP; where the body says another one than the response, the body's.
    kind: "senseless" for an answer that is none, "foreign" for one of another API.
    wait_s: how long the server asks to wait.
    retried: whether the client tried again already.
    """

    def __init__(
        self,
        words: ServerWords,
        *,
        status: int | None = None,
        kind: Literal[
            "status", "timeout", "connection", "senseless", "foreign", "unknown"
        ] = "status",
        wait_s: float | None = None,
        retried: bool = False,
    ) -> None:
        super().__init__(words.text)
        self.words = words
        self.status = status
        self.kind = kind
        self.wait_s = wait_s
        self.retried = retried

    @property
    def is_filter(self) -> bool:
        """Whether a content filter speaks."""
        return self._is_refused and bool(_FILTER.search(self.words.everything))

    @property
    def is_about_length(self) -> bool:
        """Whether prompt and answer do not fit into the context."""
        return self._is_refused and bool(_LENGTH.search(self.words.everything))

    @property
    def is_too_large(self) -> bool:
        """Whether the server takes no request of this size, whatever the model could read."""
        return self.status == 413 and not self.is_throttled

    @property
    def is_about_answer(self) -> bool:
        """Whether the model's answer did not fit the schema, so that nothing of the request is refused."""
        return bool(_NOT_HELD.search(self.words.everything))

    @property
    def is_about_reached_limit(self) -> bool:
        """Whether the limit of new tokens was reached before there was any answer."""
        return self._is_refused and bool(_LIMIT_REACHED.search(self.words.everything))

    @property
    def is_about_key(self) -> bool:
        """Whether the key is refused, or what it may be used for."""
        if self.is_throttled:
            return False
        if self.status == 403 and not self.words.is_page:
            return True
        return self.status == 401 or (
            self.status in {400, 403, 407}
            and bool(KEY.search(self.words.everything) and _WRONG.search(self.words.everything))
        )

    @property
    def is_throttled(self) -> bool:
        """Whether there are too many requests, although the status says something else.

        A field that is named is what is wrong, whatever it is called. Where a filter, the length or the key
        is told of, too, its code says which it is, or else what comes first: a prompt may be quoted.
        """
        said = self.words.everything
        if (
            self.kind not in {"status", "unknown"}
            or self.status not in {None, 400, 403, 413}
            or self.words.fields
            or not _THROTTLED.search(said)
            # What is larger than a whole minute's allowance (Groq) is so in the next minute, too.
            or (self.status == 413 and _TOO_LARGE.search(said))
        ):
            return False
        rival = _ANOTHER_FAULT.search(said)
        if rival is None or self.words.meaning is not None:
            return rival is None or self.words.meaning == 429
        first = _THROTTLED_FIRST.search(said)
        return first is not None and first.end() <= rival.start()

    @property
    def is_spent(self) -> bool:
        """Whether there is no money left, so that waiting does not help."""
        if self.status not in {400, 403, 429}:
            return self.status == 402
        passes = self.wait_s is not None and self.wait_s <= LONGEST_WAIT_S
        said = self.words.everything
        by_now = self.status != 400 or self.is_throttled
        for_now = by_now and not passes and _SPENT_FOR_NOW.search(said)
        return bool(_SPENT.search(said) or for_now)

    @property
    def is_transient(self) -> bool:
        """Whether the same request may be answered a moment later."""
        if self.is_throttled:
            return not self.is_spent
        if self.kind != "status":
            return self.kind in {"timeout", "connection", "senseless"}
        return self.status in TRANSIENT_STATUSES and not self.is_spent

    @property
    def concerns_all(self) -> bool:
        """Whether every request of the engine would end in this way."""
        if self.status == 404 or self.kind == "foreign":
            return True
        return self.is_spent or (self.is_about_key and not self.is_filter)

    @property
    def is_plain_refusal(self) -> bool:
        """Whether the request is not taken as it is, whatever the reason."""
        return self.status in {400, 405, 406, 415, 422} and not (
            self.is_filter
            or self.is_about_length
            or self.is_about_key
            or self.is_about_answer
            or self.is_spent
            or self.is_throttled
        )

    @property
    def _is_refused(self) -> bool:
        if self.status in TRANSIENT_STATUSES or self.is_throttled:
            return False
        return self.status is None or 400 <= self.status < 500 or self.status == 501


def read_words(body: object) -> ServerWords:
    """Read what an error body says: text of any shape, or data."""
    reader = _Reader()
    reader.read(body, DEEPEST)
    said = list(dict.fromkeys(" ".join(line.split()) for line in reader.said))
    said = [line for line in said if line]
    codes = list(dict.fromkeys(reader.codes))
    text = ": ".join(said) or ", ".join(codes) or "without a word"
    everything = "\n".join([*said, *codes])
    return ServerWords(
        text=text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}...",
        everything=everything,
        fields=tuple(dict.fromkeys(reader.fields)),
        status=reader.status,
        meaning=_meaning_of(codes, said),
        is_page=reader.is_page,
    )


@dataclass
class _Reader:
    """Collects what is said, deep in whatever holds it."""

    said: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    status: int | None = None
    is_page: bool = False

    def read(self, value: object, depth: int) -> None:
        if depth == 0:
            return
        if isinstance(value, Mapping):
            self._read_object(value, depth)
        elif isinstance(value, (list, tuple)):
            for item in value[:50]:
                self.read(item, depth - 1)
        elif isinstance(value, bytes):
            self.read(value.decode("utf-8", "replace"), depth)
        elif isinstance(value, str):
            self._read_text(value[:LONGEST_BODY], depth)

    def _read_object(self, value: Mapping[object, object], depth: int) -> None:
        for key, content in value.items():
            name = str(key)
            if _MODELS_OWN.fullmatch(name):
                if isinstance(content, str) and _LIMIT_REACHED.match(content):
                    self.said.append(content)  # Groq's words in the place of the model's
                continue
            if _NAMES_FIELD.fullmatch(name):
                self._note_field(content)
            elif name == "retryDelay":  # of Google: "36s"
                self.codes.append(f"retry in {content}")
            elif _CODE.fullmatch(name):
                self._note_code(content)
            elif _SAID.search(name):
                self.read(content, depth - 1)
            elif isinstance(content, list) and all(isinstance(line, str) for line in content):
                # {"errors": {"seed": ["Unknown field."]}}
                self.fields.append(name)
                self.said.extend(f"{name}: {line}" for line in content)

    def _read_text(self, text: str, depth: int) -> None:
        if _PAGE.search(text[:2000]):
            text = html.unescape(re.sub(r"<[^<>]*>", " ", _UNSEEN.sub(" ", text)))
            self.said.append(text)
            self.is_page = True
            return
        start = min((match.start() for match in _OPENS.finditer(text)), default=-1)
        nested = None if start < 0 else _nested(text[start:])
        if nested is None:
            self.said.append(text)
            return
        before = text[:start].strip().rstrip("-:b'\" ")
        if status := _STATUS.search(before):
            self.status = self.status or int(status[1])
        count = len(self.said)
        self.said.append(before)
        self.read(nested, depth - 1)
        if len(self.said) == count + 1:
            # The brackets held nothing that is said.
            self.said[count] = text

    def _note_field(self, content: object) -> None:
        if isinstance(content, (list, tuple)):
            content = ".".join(str(part) for part in content if part not in {"body", "query"})
        if isinstance(content, str) and content.strip().lower() not in {"", "none", "null"}:
            self.fields.append(content.strip())

    def _note_code(self, content: object) -> None:
        if isinstance(content, bool) or not isinstance(content, (int, str)):
            return
        number = int(content) if str(content).isdecimal() else None
        if number is not None and 400 <= number < 600:
            # The innermost one is the upstream's own.
            self.status = number
        elif number is None:
            self.codes.append(str(content))


def _nested(text: str) -> object:
    """The data that a text begins with, as JSON or as Python writes it; None if it is neither."""
    try:
        data: object = json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        end = max(text.rfind("}"), text.rfind("]")) + 1
        try:
            data = ast.literal_eval(text[:end])
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
    return data if isinstance(data, Mapping) or (isinstance(data, list) and data) else None


def _meaning_of(codes: Iterable[str], said: Iterable[str]) -> int | None:
    for text in codes:
        for status, pattern in _MEANINGS:
            if re.search(pattern, text, re.IGNORECASE):
                return status
    first = _STATUS.match(next(iter(said), ""))
    return int(first[1]) if first else None


def wait_asked_for(headers: Mapping[str, str], words: ServerWords) -> float | None:
    """Return the seconds that a server asks to wait: in its headers, else in its words."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        with contextlib.suppress(ValueError):
            return max(0.0, float(value) * unit)
        if (seconds := _seconds(value.strip())) is not None:
            return seconds
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    asked = _AGAIN_IN.search(words.everything)
    return None if asked is None else _seconds(words.everything, asked.end())


def _seconds(text: str, start: int = 0) -> float | None:
    """The duration that a text has at a place, in seconds; None where there is none."""
    match = _DURATION.match(text, start)
    if match is None or match.end() == start:
        return None
    return sum(float(match[unit]) * seconds for unit, seconds in _UNITS.items() if match[unit])


def explain(fault: ServerFault, where: str, *, attempts: int, advice: Advice) -> PGenRMError:
    """Return the fault as an error for the user: what, where, in the server's words, what to do.

    The keys are expected to be out of the words already.
    """
    said = fault.words.text
    if fault.kind == "timeout":
        return EngineTimeout(
            f"{where} did not answer {said}, asked {attempts} times: {advice.timeout}"
        )
    if fault.kind == "connection":
        return EngineUnavailable(f"{where} cannot be reached ({said}): {advice.unreachable}")
    if fault.kind == "senseless":
        sent = f"{where} sent an answer that is no chat completion"
        return EngineError(f"{sent}: {said}; {advice.missing}")
    if fault.kind == "foreign":
        return EngineUnavailable(
            f"{where} answered in the form of {said}, not of OpenAI's chat completions: the path or"
            f" base_url is probably that of another API; {advice.missing}"
        )
    status = "" if fault.status is None else f"HTTP {fault.status}: "
    if fault.is_filter:
        return Filtered(f"{where}: filtered ({status}{said})")
    if fault.is_spent:
        return EngineUnavailable(f"{where} has no credit left for the key ({status}{said})")
    if fault.is_about_key:
        return ConfigurationError(f"{where} refuses the API key ({status}{said}): {advice.key}")
    if fault.is_about_length or fault.is_too_large:
        what = "the prompt is too long for the model's context"
        if not fault.is_about_length:
            what = "the request is too large for the server"
        return ConfigurationError(
            f"{where}: {what} ({status}{said}): show fewer past choices (scaling.history), or fewer or"
            " shorter candidates"
        )
    if fault.status == 404:
        return EngineUnavailable(f"{where}: not found ({status}{said}): {advice.missing}")
    if fault.status == 429 or fault.is_throttled:
        wait = "" if fault.wait_s is None else f"; it asks to wait {fault.wait_s:.3g} s"
        return EngineUnavailable(
            f"{where} still had too many requests after {attempts} attempts ({status}{said}{wait}):"
            f" {advice.overload}"
        )
    if fault.status in {408, 409, 425, 502, 503, 504, *range(520, 531)}:
        return EngineUnavailable(f"{where} was unavailable in {attempts} attempts ({status}{said})")
    if fault.status is not None and fault.status < 500:
        return ConfigurationError(f"{where} refuses the request ({status}{said})")
    return EngineError(f"{where} failed in {attempts} attempts ({status}{said})")
