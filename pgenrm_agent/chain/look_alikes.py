"""Reduce text to what a reader takes its letters for, whatever they are written with.

The way of Unicode's confusables (UTS 39): two texts that look alike have the same skeleton. Python's
own character database does most of it: compatibility forms (full width, mathematical, circled, ...)
decompose, and names tell the Latin letter of small capitals, turned, barred, squared and flag letters.
What only looks like a Latin letter comes from confusables.txt, and letters of faux Cyrillic and Greek.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
from itertools import accumulate

# From Unicode's confusables.txt (2021-05-29), less what decomposes or is named after its letter, and
# less scripts written from right to left.
_LOOK_ALIKES = {
    "a": "ɑαλадᎪᗄᗅẚꓮꓯ𐊠𖽀",
    "b": "ƄΒБвъьѣҍᏏᏴᑲᑳᑾᑿᒀᒁᒈᖯᗷꓐꞴ𐊂𐊡𐌁",
    "c": "ͼͽςϲЄсҫԑᏟⲉⲥꓚꮛ𐊢𐌂𐐩𐐽𐔜𑣎𑣲",
    "d": "ÐԁᎠᏧᑯᑺᑻᒇᗞᗪꓒꓓ",
    "e": "əɚΣεезєҙҽҿәԐᎬᏋⴹⴺꓰꓱꞝ𐊆𐐁𐐪𐑂𑢦𑢮𖼭",
    "f": "ɸϜքᖴᖷꓝ𐊇𐊥𐔥𑣂",
    "g": "ƍԍցᏀᏳꓖ",
    "h": "ͰΗнћңһӈӊիհᎨᎰᎻᏂᏲᕼⲎꓧꚕꚱ𐋏",
    "i": "ɩͺιіӏᎥᵼꙇ𑣃",
    "j": "ϳјյᎫᒍᒘᒙꓙ",
    "k": "ĸκкҚҞᏦᛕⲔꓗ𐔘",
    "l": "ƖǀΙІӀլᏞᒪᒶᒷᛁⲒⳑⵏꓡꓲ𐊊𐌉𐌠𐑃𐔦𑢣𑢲𖼖𖼨",
    "m": "ΜϺмӍպտሣᎷᗰᛖⲘꓟ𐊰𐌑𑜀",
    "n": "ŉͷΝηπилпոռⲚꓠ𐑍𐔓",
    "o": "ͻΩθοσоѳөօଠഠတဝჿዐᎤᎾᏫⲟⴱⵁⵔ〇ꓛꓳ𐊒𐊫𐐬𐑋𐓪𐔖𑢵𑣈𑣗",
    "p": "ρрᏢᑭᑶᑷᒆᴩⲣꓑ𐊕",
    "q": "ԛգզᶐⵕ",
    "r": "гяґғրᎡᏒᖇᴦⲅꓣꭇꮁ𐒴𖼵",
    "s": "ƽѕՏᏕᏚꓢ𐊖𐑈𑣁𖼺",
    "t": "τтҭႠᎢᎿⲦꓔ𐊗𐊱𐌕𑢼𖼊",
    "u": "ɄʋμυцսሀᏌᑌᑗᑘᑧꓴꞟ𐓶𑣘𖽂",
    "v": "νЛѵӅᏙᐯᐱᐺᐻᐼᐽᴧⴷⴸꓥꓦꛎꛟ𐊍𐓘𐔝𑜆𑣀𖼈𖼽",
    "w": "ωшщѡѽӎԝաᎳᏔꓪꝡꮇ𑓅𑜊𑜎𑜏𑣯",
    "x": "ΧхχҲᕁᕽᚷⲬⵝꓫꞳ𐊐𐊴𐌗𐌢𐔧𑣬",
    "y": "ɣΥγучүұყᎩᎽⲨꓬ𐊲𑢤𑣜𖽃",
    "z": "ΖᏃꓜ𐋵𑢩𑣄",
}
_SYMBOLS = {
    "[": "[［【⟦〔❲〚⁅﹝〖⦋⟬〘",
    "]": "]］】⟧〕❳〛⁆﹞〗⦌⟭〙",
    # The last of each row is what a disarmed one becomes.
    "<": "<＜﹤⟨❮❰《◁˂ᐸᚲ≺⟪〈⧼‹",
    ">": ">＞﹥⟩❯❱》▷˃ᐳ≻⟫〉⧽›",
    ":": ":：﹕︰∶꞉ː˸։׃܃܄᛬᠃⁚ꓽ᠄ःઃ",
    "#": "#♯⌗⋕",
    "|": "|｜￨│┃∣❘❙ǀ⏐",
    "-": "-",
    # A model sees every one of these as a new line, whatever Python's "^" takes for one.
    "\n": "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029",
}
SYMBOLS = "".join(_SYMBOLS)
_NO_SYMBOLS = str.maketrans("", "", SYMBOLS)
_CANONICAL = {
    char: shown
    for table in (_LOOK_ALIKES, _SYMBOLS)
    for shown, chars in table.items()
    for char in chars
}
_NAMED = re.compile(r"\b(?:LATIN|REGIONAL INDICATOR)\b.*\b([A-Z])(?: WITH .*)?$")
# Hangul fillers are letters that nobody sees.
_FILLERS = "\u115f\u1160"


def _canonical(char: str) -> str:
    """What `char` adds to a skeleton: letters and digits, a symbol, or nothing."""
    if char in _CANONICAL:
        return _CANONICAL[char]
    return "".join(
        _canonical_part(part)
        for decomposed in unicodedata.normalize("NFKD", char)
        for part in (decomposed if decomposed in _CANONICAL else decomposed.casefold())
    )


def _canonical_part(char: str) -> str:
    if char in _CANONICAL:
        return _CANONICAL[char]
    if char.isascii():
        return char if char.isalnum() else ""
    if named := _NAMED.search(unicodedata.name(char, "")):
        return named[1].lower()
    category = unicodedata.category(char)
    # Modifier letters are marks above and beside letters.
    if category[0] not in "LN" or category == "Lm" or char in _FILLERS:
        return ""
    digit = unicodedata.decimal(char, None)
    return char if digit is None else str(digit)


class _Table(dict[int, str]):
    """A table for str.translate that works out a character's entry when it first comes up."""

    def __missing__(self, code: int) -> str:
        self[code] = _canonical(chr(code))
        return self[code]


_TABLE = _Table()


class Skeleton:
    """What a reader takes a text for, and where in the text it stands.

    shape: letters and digits in lower case, `[]<>:#|-` and line breaks, and nothing else. It begins
    with a line break of its own. letters: the letters and digits of it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.shape = "\n" + text.translate(_TABLE)
        self.letters = self.shape.translate(_NO_SYMBOLS)

    @cached_property
    def before(self) -> list[int]:
        """By place in the shape: how many letters stand before it."""
        return list(accumulate((char not in SYMBOLS for char in self.shape), initial=0))

    @cached_property
    def origin(self) -> list[int]:
        """By place in the shape: the place in the text that it comes from."""
        places = [-1]
        for place, char in enumerate(self.text):
            places += [place] * len(_TABLE[ord(char)])
        return places
