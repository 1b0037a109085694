"""Rewrites a real text toward a pole of a theme, by rules: more friendly, less certain, as a list.

What comes out is read for its signs like any other text, so a rewrite that changes little only makes
a pair of near-twins.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

__all__ = ["restyle", "sentences"]

_BREAK = re.compile(r"(?<=[.!?])\s+|\n+")

FRIENDLY_BEFORE = (
    "Hey!", "Hi there!", "Oh, nice question!", "Good news!", "Sure thing!", "Hello, my friend!",
    "Aw, I get that.", "Yay, I love this!", "Great choice!", "Happy to help!", "Don't worry!",
    "You've got this!", "Hey you!", "Of course!", "Yep!", "Thanks for asking!", "Welcome!",
    "Oh, that's a fun one!", "No worries at all!", "Ha, I was there, too!", "My dear,", "Honestly,",
    "Well, buddy,", "Trust me, pal,", "Cool!", "Lovely!", "Okay, friend,", "Awesome,",
    "I'm so glad you asked!", "Congrats!", "Hi, sweet soul!", "Ooh,", "Wow!", "So happy for you!",
)  # fmt: skip
FRIENDLY_AFTER = (
    "Have fun!", "Enjoy!", "Good luck, my friend!", "Hope that helps!", "You'll love it!",
    "Let me know how it goes!", "Cheers!", "Take care!", "We're all rooting for you!", ":)", "😊",
    "Hugs!", "Treat yourself!", "See you!", "I'm sure you'll do great!", "Isn't that nice?", "❤️",
    "Happy days!", "It's gonna be fun!", "And don't you worry!", "Big smile!", "You'll be fine, mate!",
    "Smile, it's a good day!", "Thanks, buddy!", "my dear!", "friend!", "pal!", "Sweet!", "Super!",
    "I'm proud of you!", "Ask me anytime!", "Isn't it lovely?",
)  # fmt: skip
FORMAL_BEFORE = (
    "Please be advised that", "It should be noted that", "Regarding your inquiry:", "In this regard,",
    "Dear Sir or Madam,", "As requested,", "In accordance with established practice,",
    "With respect to the matter at hand,", "Accordingly,", "Pursuant to your request,", "Kindly note:",
    "In general terms,", "According to the available documentation,", "For the sake of completeness,",
    "Upon consideration,", "The following applies:", "In the present context,", "Officially,",
    "It is hereby confirmed that", "Respectfully,", "In conclusion,", "The recommended procedure:",
)  # fmt: skip
FORMAL_AFTER = (
    "Further information is available upon request.", "Sincerely yours.", "Kind regards.",
    "This is consistent with established recommendations.", "Professional assistance is available.",
    "Additional documentation may be provided.", "Respectfully submitted.", "Thank you for your attention.",
    "The aforementioned considerations apply.", "Please contact the responsible department.",
    "Appropriate measures shall be implemented.", "Such practice is considered appropriate.",
    "This constitutes the customary procedure.", "Individuals are advised to proceed accordingly.",
    "Confirmation will be provided.", "Sufficient preparation is required.",
)  # fmt: skip
CAREFUL_BEFORE = (
    "I think", "Perhaps", "It depends, but", "I'm not sure, but", "Probably", "It seems that",
    "As far as I know,", "In most cases,", "It might be that", "Possibly,", "I would guess that",
    "There are exceptions, but", "To my knowledge,", "Usually, though not always,", "It may be that",
    "Hard to say, but", "If I'm not mistaken,", "Maybe", "I believe", "Generally,", "Arguably,",
    "Roughly speaking,", "It could be that", "Apparently,", "Some say that", "Presumably,",
)  # fmt: skip
CAREFUL_AFTER = (
    "But it depends.", "I may be wrong, though.", "Please check with an expert.", "It can vary.",
    "There are exceptions.", "However, this is not certain.", "Do verify it first.", "Perhaps.",
    "But that is only my guess.", "Your case might be different.", "Not everyone agrees, however.",
    "Keep in mind that there are risks.", "If in doubt, ask a professional.", "I could be mistaken.",
    "That said, opinions differ.", "Results may vary.", "Though I am not sure.", "Probably.", "I think.",
    "It is not guaranteed.", "Be careful, as it may change.", "Some sources suggest otherwise.",
)  # fmt: skip
CONFIDENT_BEFORE = (
    "Definitely.", "Without a doubt,", "Certainly.", "Absolutely.", "No question:", "Clearly,",
    "Of course.", "The answer is simple:", "Obviously,", "Make no mistake:", "It is certain:",
    "Undoubtedly,", "Full stop:", "For sure,", "There is only one answer:", "Yes, always:",
    "Beyond question,", "I guarantee it:", "Hands down,", "In fact,", "Exactly:", "Period.",
)  # fmt: skip
CONFIDENT_AFTER = (
    "No doubt about it.", "It always works.", "That is certain.", "Guaranteed.", "Period.", "Every time.",
    "Nothing else comes close.", "It never fails.", "That is a fact.", "Definitely.", "You must do it.",
    "There is no better way.", "It is the only way.", "Full stop.", "Absolutely.", "That is proven.",
    "It will work.", "This is exactly right.", "None of the others matter.", "Do it.",
)  # fmt: skip
MORE = (
    "For example, ", "For instance, ", "This matters because ", "In detail: ", "Specifically, ",
    "In addition, ", "The reason: ", "To give the figures, ", "Such as this: ", "Moreover, ",
)  # fmt: skip
ORDINALS = ("First,", "Then", "Next,", "After that,", "Finally,")

Restyle = Callable[[str, np.random.Generator], str]


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, without the white space between them."""
    return [part.strip() for part in _BREAK.split(text) if part.strip()]


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _lower(text: str) -> str:
    """A sentence's first letter in lower case, where its first word is no name or "I"."""
    head = text.split(" ", 1)[0]
    plain = len(head) > 1 and head[1:].islower() and head[0].isupper()
    return text[0].lower() + text[1:] if plain else text


def _put(text: str, before: tuple[str, ...], after: tuple[str, ...], rng: np.random.Generator) -> str:
    """An opening, an ending, or both."""
    where = rng.random()
    if where < 0.65:
        opening = _pick(before, rng)
        text = f"{opening} {_lower(text) if opening[-1] not in '.!?:' else text}"
    if where > 0.4:
        ending = _pick(after, rng)
        if ending[0].islower():
            text = text.rstrip(".!") + ","
        text = f"{text} {ending}"
    return text


def _swap(text: str, pairs: tuple[tuple[str, str], ...], share: float, rng: np.random.Generator) -> str:
    for old, new in pairs:
        text = re.sub(
            old, lambda match, new=new: new if rng.random() < share else match[0], text  # type: ignore[misc]
        )
    return text


CONTRACT = (
    (r"\bdo not\b", "don't"), (r"\bis not\b", "isn't"), (r"\bcannot\b", "can't"), (r"\bit is\b", "it's"),
    (r"\byou are\b", "you're"), (r"\bI am\b", "I'm"), (r"\bwe are\b", "we're"), (r"\bwill not\b", "won't"),
    (r"\byou will\b", "you'll"), (r"\bI have\b", "I've"), (r"\bdoes not\b", "doesn't"),
)  # fmt: skip
EXPAND = tuple((rf"\b{new}\b", old.replace(r"\b", "")) for old, new in CONTRACT)
STIFFEN = (
    (r"\bget\b", "obtain"), (r"\buse\b", "utilize"), (r"\bhelp\b", "assistance"), (r"\bbuy\b", "purchase"),
    (r"\bneed\b", "require"), (r"\blots of\b", "numerous"), (r"\bstart\b", "commence"), (r"\bask\b", "inquire"),
    (r"\bYou can\b", "One may"), (r"\byou can\b", "one may"), (r"\byou should\b", "it is advisable to"),
    (r"\bshow\b", "demonstrate"), (r"\babout\b", "concerning"), (r"\bmake sure\b", "ensure"), (r"!", "."),
)  # fmt: skip
SOFTEN = (
    (r"\bis\b", "may be"), (r"\bare\b", "might be"), (r"\bwill\b", "could"), (r"\balways\b", "often"),
    (r"\bmust\b", "might want to"), (r"\bnever\b", "rarely"), (r"\bcan\b", "may"), (r"\ball\b", "most"),
)  # fmt: skip
HARDEN = (
    (r"\bmay be\b", "is"), (r"\bmight be\b", "is"), (r"\b(?:may|might|could)\b", "will"), (r"\boften\b", "always"),
    (r"\b(?:perhaps|maybe|possibly|probably)\b ?", ""), (r"\busually\b", "always"), (r"\bshould\b", "must"),
    (r"\bI think\b ?", ""), (r"\bsometimes\b", "always"), (r"\bsome\b", "all"),
)  # fmt: skip


def _friendlier(text: str, rng: np.random.Generator) -> str:
    text = _swap(text, CONTRACT, 0.7, rng)
    if rng.random() < 0.4:
        text = re.sub(r"\.$", "!", text)
    return _put(text, FRIENDLY_BEFORE, FRIENDLY_AFTER, rng)


def _more_formal(text: str, rng: np.random.Generator) -> str:
    text = _swap(_swap(text, EXPAND, 0.9, rng), STIFFEN, 0.8, rng)
    return _put(text, FORMAL_BEFORE, FORMAL_AFTER, rng)


def _more_careful(text: str, rng: np.random.Generator) -> str:
    return _put(_swap(text, SOFTEN, 0.4, rng), CAREFUL_BEFORE, CAREFUL_AFTER, rng)


def _more_certain(text: str, rng: np.random.Generator) -> str:
    return _put(_swap(text, HARDEN, 0.8, rng), CONFIDENT_BEFORE, CONFIDENT_AFTER, rng)


_MARK = re.compile(r"^\s*(?:[-*•+]|\d{1,2}[.)])\s+")


def _as_list(text: str, rng: np.random.Generator) -> str:
    """The same sentences, or the parts of one sentence, as points, numbers or steps."""
    parts = sentences(text)
    if len(parts) == 1:
        parts = [part.strip() for part in re.split(r",\s+(?:and\s+)?|;\s+|\s+and\s+", text)]
    parts = [_MARK.sub("", part) for part in parts if part][:8]
    style = rng.integers(6)
    if style == 0:
        return " ".join(
            f"{ORDINALS[min(i, 4)]} {_lower(part)}" for i, part in enumerate(parts)
        )
    if style == 1:
        return " ".join(f"{i}) {part.rstrip('.')}" for i, part in enumerate(parts, 1))
    if style == 2:
        return " → ".join(part.rstrip(".") for part in parts)
    if style == 3:
        return "\n".join(f"- {part}" for part in parts)
    if style == 4:
        return " ".join(f"{i}. {part}" for i, part in enumerate(parts, 1))
    return "\n".join(f"{i}. {part}" for i, part in enumerate(parts, 1))


def _as_prose(text: str, rng: np.random.Generator) -> str:
    """List lines as sentences of one paragraph."""
    parts = [_MARK.sub("", part) for part in sentences(text)]
    joined = " ".join(part if part[-1] in ".!?" else f"{part}." for part in parts if part)
    return _swap(joined, ((r"\b(?:First|Then|Next|Finally|After that),? ", ""),), 0.8, rng)


def _shorter(text: str, rng: np.random.Generator) -> str:
    parts = sentences(text)
    if len(parts) > 1:
        return " ".join(parts[: max(1, len(parts) // int(rng.integers(2, 5)))])
    words = text.split()
    return " ".join(words[: max(1, len(words) // int(rng.integers(2, 4)))]).rstrip(",;:") + "."


def _longer(text: str, rng: np.random.Generator) -> str:
    """The text, and its last sentence said again in other company; a caller has real additions."""
    parts = sentences(text)
    again = parts[int(rng.integers(len(parts)))]
    return f"{text} {_pick(MORE, rng)}{_lower(again)}"


RESTYLES: dict[tuple[str, int], Restyle] = {
    ("substance", 1): _longer,
    ("substance", -1): _shorter,
    ("structure", 1): _as_list,
    ("structure", -1): _as_prose,
    ("warmth", 1): _friendlier,
    ("warmth", -1): _more_formal,
    ("caution", 1): _more_careful,
    ("caution", -1): _more_certain,
}


def restyle(text: str, theme: str, pole: int, rng: np.random.Generator) -> str:
    """Rewrite a text (not empty) toward the pole (+1 more, -1 less) of a theme."""
    return RESTYLES[theme, pole](text, rng).strip() or text
