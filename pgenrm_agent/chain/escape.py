"""Make untrusted text unable to act as a marker of the chain format.

Histories, queries and candidates are data. A marker inside one of them is changed visibly and as
little as possible: square brackets become parentheses, angle brackets become single guillemets, a
label's colon becomes a dash, a heading's marks become a section sign. Markers are found in the text's
skeleton, so that no disguise helps: case, spacing, invisible characters, look-alike letters and signs.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator
from typing import NamedTuple

from pgenrm_agent.chain.look_alikes import Skeleton

LONGEST_MARKER = 160
"""Characters between the brackets of what may be a marker: keeps the work linear in the text."""
LONGEST_LABEL = 60

# What nobody sees and a model may read as letters. A flag of England or Texas ends with it.
_SMUGGLED = re.compile(
    "(\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f)|[\U000e0000-\U000e007f]+"
)
# The bundled tokenizer takes these for markers anywhere, not only at the start of a line.
_EXACT_LABEL = re.compile(r"(?:User|Chosen|Rejected)(?=:)")

# Letters and digits that a skeleton keeps apart, since each has a sound of its own.
_ALIKE = {"i": "[il1]", "l": "[il1]", "o": "[o0]", "m": "(?:m|rn)", "w": "(?:w|vv)"}
_NUMBER = "(?:[0-9ilo]{1,3}|[a-h]|[ivx]{1,4}|one|two|three|four|five|six|seven|eight)"


def _words(pattern: str) -> re.Pattern[str]:
    """Compile `pattern`: any of its letters may be one that looks like it, NUMBER is any number."""
    parts = pattern.split("NUMBER")
    return re.compile(
        _NUMBER.join("".join(_ALIKE.get(char, char) for char in part) for part in parts)
    )


_IN_BRACKETS = _words(
    "the(?:start|end)of.*|NUMBER(?:chosen|rejected)|responseNUMBER|json(?:start|end)"
    "|inst|sys|think|systemprompt|availabletools|tool(?:calls|results)"
)
_IN_ANGLES = _words(
    "json(?:start|end)|s|bos|eos|pad|unk|sys|tool(?:call|response)|(?:start|end)of(?:turn|text)"
    "|(?:seed)?think(?:ing)?(?:process)?|(?:inner)?(?:thoughts?|monologue)|reasoning|reflection"
    "|scratchpad|(?:start|begin|end)(?:of)?(?:thoughts?|thinking|reasoning)|im(?:start|end)"
)
# A marker of the wire format is understood without its closing bracket, too.
_OPENED = {"[": _words("the(?:start|end)of|json(?:start|end)"), "<": _words("json(?:start|end)")}
_LABEL = _words("user|human|assistant|system|chosen|rejected|stated|tally")
_LABEL_OF_HEADING = _words("instruction|response")
# "Response 1: Clarity 10" reads as marks wherever it stands.
_LABEL_ANYWHERE = _words("(?:response(?:no|nr|number)?NUMBER|betterresponse)$")
_HEADING = _words(
    "(?:[0-9]{1,2}|[a-c])?(?:part(?:[0-9]|one|two|i{1,2}(?:analysis|scoring)).*|part(?:i{1,2})"
    "|(?:the)?(?:users?)?(?:persona|criteria|rubric).*|(?:scoring|analysis|response[0-9]).*"
    "|(?:weighted|evaluation|personali[sz]ed)+(?:criteria|rubric).*|scores?(?:breakdown)?|notes|marks)"
)
_LINE = re.compile(r"\n([^\w\n]*+)([^\n]*)")
_CODE = re.compile(r"[\"'%+=\\S]")

Change = tuple[int, str]
"""A place in the skeleton's shape, and what stands there from now on."""


def escape(text: str) -> str:
    """`text` with every marker disarmed; text without markers is returned unchanged.

    Linear in the length of the text, and idempotent: no change touches a letter, and what is found
    depends on letters and on the symbols that no change takes away.
    """
    text = _SMUGGLED.sub(r"\1", text)
    seen = Skeleton(text)
    changes = {match.end(): " -" for match in _EXACT_LABEL.finditer(text)}
    for find in (_square, _angled, _labels, _headings):
        changes |= {seen.origin[place]: new for place, new in find(seen)}
    if not changes:
        return text
    pieces, end = [], 0
    for place, new in sorted(changes.items()):
        pieces += [text[end:place], new]
        end = place + 1
    return "".join([*pieces, text[end:]])


def _pairs(seen: Skeleton, opening: str, closing: str) -> Iterator[tuple[int, int, str]]:
    """Places of brackets that belong together, and the letters between; inner pairs first."""
    opened: list[int] = []
    for match in re.finditer(f"[{re.escape(opening + closing)}]", seen.shape):
        if match[0] == opening:
            opened.append(match.start())
        elif opened:
            start, end = opened.pop(), match.start()
            first, last = seen.before[start], seen.before[end]
            if last - first <= LONGEST_MARKER:
                yield start, end, seen.letters[first:last]


def _unclosed(seen: Skeleton, opening: str, closing: str) -> Iterator[int]:
    """Places of opening brackets that a marker of the wire format follows, closed or not."""
    pattern = _OPENED[opening]
    if opening not in seen.shape or not pattern.search(seen.letters):
        return
    ends = [match.start() for match in re.finditer(re.escape(closing), seen.shape)]
    for match in re.finditer(re.escape(opening), seen.shape):
        marker = pattern.match(seen.letters, seen.before[match.start()])
        following = bisect(ends, match.start())
        if marker and (following == len(ends) or seen.before[ends[following]] >= marker.end()):
            yield match.start()


def _square(seen: Skeleton) -> Iterator[Change]:
    for start, end, letters in _pairs(seen, "[", "]"):
        if _IN_BRACKETS.fullmatch(letters):
            yield from ((start, "("), (end, ")"))
    yield from ((start, "(") for start in _unclosed(seen, "[", "]"))


def _angled(seen: Skeleton) -> Iterator[Change]:
    tokens = []
    barred = {match.start() for match in re.finditer(r"<(?=[^\w<>|]*+\|)", seen.shape)}
    barred |= {match.end() - 1 for match in re.finditer(r"\|[^\w<>|]*+>", seen.shape)}
    for start, end, letters in _pairs(seen, "<", ">"):
        if {start, end} & barred or (
            _IN_ANGLES.fullmatch(letters) and not _is_code(seen, start, end, letters)
        ):
            tokens.append((start, end))
    # Inner bars would still spell a chat template's token to a lenient reader.
    done = 0
    for start, end in sorted(tokens):
        yield from ((start, "‹"), (end, "›"))
        yield from ((at, "¦") for at in range(max(start, done), end) if seen.shape[at] == "|")
        done = max(done, end)
    yield from ((start, "‹") for start in _unclosed(seen, "<", ">"))


def _is_code(seen: Skeleton, start: int, end: int, letters: str) -> bool:
    """Whether this is code such as Vec<S> or '<' + s + '>': the token that ends a text is </s>."""
    inner = seen.text[seen.origin[start] + 1 : seen.origin[end]]
    return letters == "s" and _CODE.search(inner) is not None


def _labels(seen: Skeleton) -> Iterator[Change]:
    """Colons after a label. A dash after a label is what a changed one has, and ends it as well."""
    cut, looked_at = 0, -1
    line = before = _Line(0, 0)
    for match in re.finditer("[:\n-]", seen.shape):
        place, symbol = match.start(), match[0]
        here = seen.before[place]
        if symbol == "\n":
            before = line if here > line.letters else before
            line = _Line(place, here)
            continue
        # A colon may stand in the line below its label.
        of = line if here > line.letters else before
        is_label = here > max(cut, looked_at) and bool(
            _LABEL_ANYWHERE.search(seen.letters, max(cut, here - LONGEST_LABEL), here)
            or (cut <= of.letters and _is_label(seen, of, place))
        )
        looked_at = here
        if is_label and symbol == ":":
            yield place, " -"
        if is_label or symbol == ":":
            cut = here


class _Line(NamedTuple):
    """Where a line begins in a shape, and how many letters stand before it."""

    start: int
    letters: int


def _is_label(seen: Skeleton, line: _Line, place: int) -> bool:
    """Whether a line is a label up to `place`, and no key of JSON."""
    end = min(seen.before[place], line.letters + LONGEST_LABEL)
    if not _LABEL.fullmatch(seen.letters, line.letters, end) and not (
        _LABEL_OF_HEADING.fullmatch(seen.letters, line.letters, end)
        and "#" in seen.shape[line.start : place]
    ):
        return False
    colon = seen.origin[place]
    return seen.text[max(0, colon - 1) : colon] not in ('"', "'", "`")


def _headings(seen: Skeleton) -> Iterator[Change]:
    for match in _LINE.finditer(seen.shape):
        if "#" not in match[1]:
            continue
        first = seen.before[match.start(2)]
        last = min(seen.before[match.end(2)], first + LONGEST_LABEL)
        if _HEADING.fullmatch(seen.letters, first, last):
            marks = [match.start(1) + at for at, char in enumerate(match[1]) if char == "#"]
            yield marks[0], "§"
            yield from ((place, "") for place in marks[1:])
