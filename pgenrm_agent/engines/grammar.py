"""What an answer may be: JSON schemas as grammars, and the mask over the next token (xgrammar).

A grammar is EBNF as xgrammar reads it, with `root` as its first rule. A JSON schema becomes one, so
that every engine in this process holds answers to the same texts: keys in the schema's order, no
white space that the model could choose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from pgenrm_agent.engines.reasoning import special_tokens
from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from xgrammar import CompiledGrammar, GrammarMatcher

__all__ = ["Grammars", "TokenMask", "json_grammar"]

NOT_HELD = frozenset(
    {
        *("multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "propertyNames"),
        *("not", "if", "then", "else", "dependentSchemas", "dependentRequired", "dependencies"),
    }
)
"""Keywords that xgrammar takes and does not hold to."""
CACHE_BYTES = 2**28
"""How much of compiled grammars is kept."""
NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
DATA = frozenset({"const", "enum", "default", "examples"})
# What a string of bounded length may hold, in xgrammar 0.2: control characters, which JSON forbids.
_BOUNDED = r"[^\"\\\r\n]"
_WITHOUT_CONTROL = r"[^\"\\\x00-\x1f]"


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
        return _grammar_of(json.dumps(schema))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"this is no JSON schema to hold to ({_words(error)}): {schema}"
        ) from error


@lru_cache(maxsize=256)
def _grammar_of(schema: str) -> str:
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
    """Compiles grammars for one model, each once. To compile takes up to some seconds.

    vocabulary: width of the model's logits. ends: its end tokens.
    """

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
                " ask without a JSON schema"
            ) from error
        metadata = json.loads(known.dump_metadata()) | {"stop_token_ids": sorted(ends)}
        self._without_end = not ends
        self._compiler = xgrammar.GrammarCompiler(
            xgrammar.TokenizerInfo.from_vocab_and_metadata(
                cast("list[bytes | str]", texts), json.dumps(metadata)
            ),
            cache_limit_bytes=CACHE_BYTES,
        )

    def compile(self, grammar: str) -> CompiledGrammar:
        """Return a grammar in EBNF, compiled.

        Raises ConfigurationError for one that is none.
        """
        try:
            return self._compiler.compile_grammar(grammar)
        except RuntimeError as error:
            raise ConfigurationError(
                f"this is no grammar ({_words(error)}): {grammar[:200]}"
            ) from error

    def matcher(self, grammar: CompiledGrammar) -> GrammarMatcher:
        """Return what follows one answer through a grammar, from its beginning."""
        import xgrammar

        return xgrammar.GrammarMatcher(grammar, terminate_without_stop_token=self._without_end)


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
        import xgrammar

        rows, vocabulary = logits.shape
        if self._bits is None or len(self._bits) < rows:
            self._bits = xgrammar.allocate_token_bitmask(rows, vocabulary)
        # In this thread: the masks of a batch take less time than it takes to wake another.
        for row in held:
            matcher = matchers[row]
            assert matcher is not None
            matcher.fill_next_token_bitmask(self._bits, row)
        xgrammar.apply_token_bitmask_inplace(
            logits, self._bits[:rows].to(logits.device), vocab_size=vocabulary, indices=held
        )
