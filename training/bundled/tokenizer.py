"""The bundled model's own tokenizer: byte-level BPE, with every marker of the format one token.

A marker that is a single token is a landmark that attention finds at once, and text that merely
resembles a marker (after escaping) tokenizes differently from it.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|end|>"
PAD = "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
NUMBERED = 8
"""History entries and responses whose tags are single tokens."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{%- if message['role'] == 'assistant' %}<|end|>{% endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif -%}"
)


def answer_tags() -> list[str]:
    """The tags that end an answer in a prompt and begin its reading in a chain."""
    numbers = range(1, NUMBERED + 1)
    return [
        *(f"[response {number}]" for number in numbers),
        *(f"[{number} {which}]" for number in numbers for which in ("chosen", "rejected")),
    ]


def markers() -> list[str]:
    """The wire format's markers, and the short form's tags."""
    markers = [
        "[The Start of User's preference history]",
        "[The End of User's preference history]",
        "[The Start of User Input]",
        "[The End of User Input]",
        "## Notes",
        "### Persona",
        "### Criteria",
        "### Marks",
        "User:",
        "Chosen:",
        "Rejected:",
        *answer_tags(),
        *(f"{sign}{size}" for sign in "+-" for size in range(10)),
    ]
    for number in range(1, NUMBERED + 1):
        markers += [f"[The Start of Response {number}]", f"[The End of Response {number}]"]
    return markers


def train_tokenizer(texts: Iterable[str], *, size: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `size` tokens in all, digits apart, over `texts`."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    tags = markers()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(tags),
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    # Not "special": they are part of the text that a reader sees, so decoding keeps them.
    core.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, model_max_length=context
    )
    tokenizer.padding_side = "left"
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
