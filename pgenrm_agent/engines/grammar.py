"""What an answer may be: grammars, JSON schemas as grammars, and what follows from them (xgrammar).

A grammar is EBNF as xgrammar reads it, with `root` as its first rule. A JSON schema becomes one, so
that every engine in this process holds answers to the same texts: keys in the schema's order, no
white space that the model could choose.

Two things follow from a grammar and what is written so far: which tokens may come next (`TokenMask`),
and what has to come next (`Grammars.jump`), which then is written without asking the model.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.engines.reasoning import special_tokens
from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from xgrammar import GrammarMatcher

NOT_HELD = frozenset(
    {
        *("multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "propertyNames"),
        *("not", "if", "then", "else", "dependentSchemas", "dependentRequired", "dependencies"),
    }
)
"""Keywords that xgrammar takes and does not hold to."""
CACHE_BYTES = 2**28
"""How much of compiled grammars is kept."""
CACHE_JUMPS = 2**14
"""How many forced texts are kept as tokens."""
CONTEXTS = (8, 4, 2, 1, 0)
"""How many of the tokens before a forced text are encoded with it; fewer where more do not come back."""
NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
DATA = frozenset({"const", "enum", "default", "examples"})
# What a string of bounded length may hold, in xgrammar 0.2: control characters, which JSON forbids, and
# halves of surrogates, which are no text: one of them reads back as three characters.
_BOUNDED = r"[^\"\\\r\n]"
_WITHOUT_CONTROL = r"[ !#-\[\]-\ud7ff\ue000-\U0010ffff]"


def grammar_of(prompt: Prompt) -> str | None:
    """Return the grammar that a prompt's answers are held to, if they are.

    Raises ConfigurationError for a JSON schema that cannot be held to.
    """
    return prompt.grammar if prompt.json_schema is None else json_grammar(prompt.json_schema)


def json_grammar(schema: Mapping[str, object]) -> str:
    """Return the grammar of the JSON texts that are instances of a schema. A large one takes seconds.

    Raises ConfigurationError for a schema that is none, or that cannot be held to in full.
    """
    for keyword in _keywords(schema):
        if keyword in NOT_HELD:
            raise ConfigurationError(
                f"a JSON schema with {keyword!r} cannot be held to: leave it out and check the answer"
            )
    try:
        return _from_schema(json.dumps(schema))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"this is no JSON schema to hold to ({_words(error)}): {schema}"
        ) from error


@lru_cache(maxsize=256)
def _from_schema(schema: str) -> str:
    import xgrammar

    grammar = xgrammar.Grammar.from_json_schema(schema, any_whitespace=False, separators=(",", ":"))
    return str(grammar).replace(_BOUNDED, _WITHOUT_CONTROL)


def _words(error: Exception) -> str:
    """What xgrammar says, without the time and the place in its source."""
    return re.sub(r"^\[[\d:]+\] \S+: ", "", str(error).strip())


def _keywords(schema: object) -> Iterator[str]:
    """Every keyword in a schema and the schemas within, but not what stands there as data."""
    if isinstance(schema, Mapping):
        for keyword, value in schema.items():
            yield keyword
            if keyword in NAMED_SCHEMAS and isinstance(value, Mapping):
                for inner in value.values():
                    yield from _keywords(inner)
            elif keyword not in DATA:
                yield from _keywords(value)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for inner in schema:
            yield from _keywords(inner)


class Grammars:
    """Compiles grammars for one model, each once, and knows the tokens of what they force.

    To compile takes up to some seconds. vocabulary: width of the model's logits. ends: its end tokens.
    """

    context = max(CONTEXTS)
    """How many tokens before it a jump looks at."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, ends: Collection[int]
    ) -> None:
        import xgrammar

        special = special_tokens(tokenizer)
        # A special token has no text: without this, one could be part of a string.
        texts = [""] * vocabulary
        for text, token in tokenizer.get_vocab().items():
            if token < vocabulary and token not in special:
                texts[token] = text
        try:
            known = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary)
        except ValueError as error:
            raise ConfigurationError(
                f"the tokenizer {tokenizer.name_or_path} cannot be used with grammars ({error}):"
                " ask without a grammar or JSON schema"
            ) from error
        metadata = json.loads(known.dump_metadata()) | {"stop_token_ids": sorted(ends)}
        vocabulary_info = xgrammar.TokenizerInfo.from_vocab_and_metadata(
            cast("list[bytes | str]", texts), json.dumps(metadata)
        )
        self._compiler = xgrammar.GrammarCompiler(vocabulary_info, cache_limit_bytes=CACHE_BYTES)
        self._tokenizer = tokenizer
        self._ends = set(ends)
        self._pieces = vocabulary_info.decoded_vocab
        self._token_of = {piece: token for token, piece in enumerate(self._pieces) if piece}
        self._in_order = sorted(self._token_of)
        self._longest = max(map(len, self._in_order))
        self._bits = xgrammar.allocate_token_bitmask(1, vocabulary)
        self._encoded = lru_cache(CACHE_JUMPS)(self._encode)
        self._longer = lru_cache(CACHE_JUMPS)(self._rests)

    def matcher(self, grammar: str) -> GrammarMatcher:
        """Return what follows an answer through a grammar in EBNF; `fork` it for each answer.

        Raises ConfigurationError for a grammar that is none.
        """
        import xgrammar

        try:
            compiled = self._compiler.compile_grammar(grammar)
        except RuntimeError as error:
            raise ConfigurationError(
                f"this is no grammar ({_words(error)}): {grammar[:200]}"
            ) from error
        return xgrammar.GrammarMatcher(compiled, terminate_without_stop_token=not self._ends)

    def jump(self, matcher: GrammarMatcher, before: Sequence[int]) -> tuple[list[int], bool]:
        """Accept the tokens that have to come next; return them, and whether the answer is complete.

        before: the tokens before them, `context` of them.

        The tokens are those that the tokenizer makes of the forced text behind the text before it, as
        in the texts that models learn from. Where the end of it may be written as one token with what
        follows ("[" in front of "1 chosen]"), the tokens that reach into that end are left to the model.
        """
        text = _forced_text(matcher)
        tokens = list(self._encoded(tuple(before), text)) if text else []
        sure = self._sure_of(matcher, text.encode()) if tokens else 0
        written = 0
        for accepted, token in enumerate(tokens):
            written += len(self._pieces[token])
            if written > sure:
                tokens = tokens[:accepted]
                break
            if not matcher.accept_token(token):
                matcher.rollback(accepted)
                tokens = []
                break
        complete = matcher.is_terminated() or (
            matcher.is_completed() and set(np.flatnonzero(self._allowed(matcher))) <= self._ends
        )
        return tokens, complete

    def _sure_of(self, matcher: GrammarMatcher, text: bytes) -> int:
        """How many bytes of a forced text no token can share with what follows it."""
        if not matcher.accept_string(text):
            return 0
        allowed = self._allowed(matcher)
        sure = next(
            (
                start
                for start in range(max(0, len(text) - self._longest), len(text))
                if self._goes_on(matcher, allowed, text[start:])
            ),
            len(text),
        )
        matcher.rollback(1)
        return sure

    def _goes_on(self, matcher: GrammarMatcher, allowed: np.ndarray, end: bytes) -> bool:
        """Whether a token begins with `end`, and goes on as the grammar allows behind it."""
        tokens, rests = self._longer(end)
        if allowed[tokens].any():
            return True
        for rest in rests:
            if matcher.accept_string(rest):
                matcher.rollback(1)
                return True
        return False

    def _rests(self, end: bytes) -> tuple[np.ndarray, list[bytes]]:
        """How tokens that begin with `end` go on: the rests that are tokens, and the others."""
        first = bisect_right(self._in_order, end)
        last = bisect_left(self._in_order, end + b"\xff" * 4)
        rests = [piece[len(end) :] for piece in self._in_order[first:last]]
        tokens = [self._token_of[rest] for rest in rests if rest in self._token_of]
        return np.array(tokens, dtype=np.int64), [
            rest for rest in rests if rest not in self._token_of
        ]

    def _encode(self, before: tuple[int, ...], text: str) -> tuple[int, ...]:
        """The tokens of a text behind others; none if the tokenizer does not give the text back."""
        for length in CONTEXTS:
            known = list(before[-length:]) if length else []
            if len(known) == length:
                start = self._tokenizer.decode(known, clean_up_tokenization_spaces=False)
                tokens = self._tokenizer.encode(f"{start}{text}", add_special_tokens=False)
                if tokens[:length] == known:
                    return tuple(tokens[length:])
        return ()

    def _allowed(self, matcher: GrammarMatcher) -> np.ndarray:
        """Which tokens may come next, one byte a token."""
        matcher.fill_next_token_bitmask(self._bits)
        allowed: np.ndarray = _unpacked(self._bits)[0]
        return allowed


def _forced_text(matcher: GrammarMatcher) -> str:
    try:
        return matcher.find_jump_forward_string()
    except UnicodeDecodeError as error:  # It ends, or begins, within a character.
        return bytes(error.object[: error.start]).decode()


def _unpacked(bits: torch.Tensor) -> np.ndarray:
    """Bit masks of tokens as one byte a token."""
    return np.unpackbits(bits.numpy().view(np.uint8), axis=-1, bitorder="little")


class TokenMask:
    """Bans, in a batch's logits, the tokens with which answers would leave their grammars."""

    def __init__(self) -> None:
        self._bits: torch.Tensor | None = None

    def apply(self, logits: torch.Tensor, matchers: Sequence[GrammarMatcher | None]) -> None:
        """Set the logits (rows, vocabulary) of banned tokens to -inf, in place.

        matchers: by row; None for a row that is free.
        """
        held = [row for row, matcher in enumerate(matchers) if matcher is not None]
        if not held:
            return
        import torch
        import xgrammar

        rows, vocabulary = logits.shape
        if self._bits is None or len(self._bits) < rows:
            self._bits = xgrammar.allocate_token_bitmask(rows, vocabulary)
        # In this thread: the masks of a batch take less time than it takes to wake another.
        for row in held:
            matcher = matchers[row]
            assert matcher is not None
            matcher.fill_next_token_bitmask(self._bits, row)
        bits = self._bits[:rows]
        if logits.device.type == "cpu":  # numpy takes a quarter of the time of xgrammar's kernel
            bits[[row for row, matcher in enumerate(matchers) if matcher is None]] = -1
            allowed = torch.from_numpy(_unpacked(bits)[:, :vocabulary]).view(torch.bool)
            logits.masked_fill_(allowed.logical_not_(), float("-inf"))
        else:
            xgrammar.apply_token_bitmask_inplace(
                logits, bits.to(logits.device), vocab_size=vocabulary, indices=held
            )
