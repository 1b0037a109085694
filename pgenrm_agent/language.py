"""Whether a text is English, as far as a plain rule can tell. Pure.

By script first: letters that are mostly not Latin are no English. Then by the small words that no
sentence does without: English ones against those of other languages in Latin script, and against words
with letters that English lacks. A text without any of them, such as a name or a line of code, is
unknown. Nothing is told by a single foreign word, since English borrows those.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from pgenrm_agent.schema import Writing

FEW = 4
"""Words that are too few to tell a language by their accents."""
LONGEST = 5_000
"""Characters that are looked at, from the beginning."""

# No single letters, which formulas have.
_ENGLISH_WORDS = """
about after all an and any are as at be because been before but by can could did do does each every
for from get had has have he her here him his how if in into is it its just keep let like made make
may me more most my no not of off on one only or other our out over put she should so some such take
than that the their them then there these they this those through to too try until up use very was we
well were what when where which while who why will with would you your"""
_OTHER_WORDS = """
aber als auch auf aus bei bis das dass dem den der des doch durch eine einem einen einer eines er es
für haben hat ich ihr ihre ist kann mein mit nach nicht noch nur oder sehr sich sie sind und uns vom
von vor wenn werden wie wir wird zu zum zur über
au aux avec ce cette ces dans de du elle en est et être il ils je la le les leur mais ne nous ont ou
où par pas plus pour que qui sa ses son sont sur une vous
al como con cuando del donde el ella ellos entre esta este hay las los más muy nos para pero por
porque se sin sobre su sus también una uno ya
che chi ci come da dal dei della delle di gli ma nel nella nei non per più quando questo si sono sul
tra un
ao com das do dos em essa isso mais mas na nas não os pela pelo sem seu sua um uma você
aan bij dat deze die dit een het hij ik maar met naar niet om ook op te tot uit van voor wat wij worden
ze zijn zo
att av där det då eller ett för från har hur inte jag kan med men när och om på sig som så till vad
var vi är
af blev efter fra han hvad hvor ikke jeg man når og til være
ale bardzo być co czy dla gdy jak jest jeszcze już lub nie od oraz po przez się tak tylko że
aby ani až být jako jeho jsem jsou když nebo není při ta to ve
bir bu çok daha değil gibi için ile ise ki kadar olarak sonra şu veya
adalah akan atau dalam dan dari dengan ini itu juga ke oleh pada saya sebagai tidak untuk yang"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_OTHERS = frozenset(_OTHER_WORDS.split())
_ENGLISH_TOO = frozenset(
    [
        "ale",
        "bet",
        "come",
        "con",
        "dan",
        "dat",
        "den",
        "die",
        "dos",
        "elle",
        "fra",
        "het",
        "hay",
        "hun",
        "las",
        "los",
        "man",
        "men",
        "mit",
        "pa",
        "par",
        "per",
        "plus",
        "pour",
        "san",
        "sin",
        "son",
        "till",
        "van",
        "vet",
    ]
)
_ELSEWHERE = frozenset(
    word for word in _OTHERS - _ENGLISH - _ENGLISH_TOO if len(word) > 1 and word != "no"
)
_WORD = re.compile(r"(?<!['’])[^\W\d_]+")
_SCRIPTS = {"CJK": "Han"}


def writing_of(text: str) -> Writing:
    """Return the script that most letters are of, and whether the text is English."""
    text = text[:LONGEST]
    scripts = Counter(_script(char) for char in text if char.isalpha())
    if not scripts:
        return Writing(language="unknown", script="")
    script = scripts.most_common(1)[0][0]
    if script != "Latin":
        return Writing(language="other", script=script)
    words = [word.casefold() for word in _WORD.findall(text)]
    english = sum(word in _ENGLISH for word in words)
    foreign = [word for word in words if word in _ELSEWHERE or not word.isascii()]
    others = len(foreign)
    small = {word for word in foreign if word in _ELSEWHERE}
    # Names and loans have accents in English, too.
    if others > english and len(set(foreign)) > 1 and (small or 2 * others > len(words) > FEW):
        return Writing(language="other", script=script)
    if english > others and 8 * english >= len(words):
        return Writing(language="English", script=script)
    return Writing(language="unknown", script=script)


def _script(char: str) -> str:
    if char.isascii():
        return "Latin"
    name = unicodedata.name(char, "").partition(" ")[0]
    return _SCRIPTS.get(name, name.capitalize())
