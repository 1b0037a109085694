"""Whether a text is English: a plain rule that says "unknown" rather than guess."""

from __future__ import annotations

import pytest

from pgenrm_agent.demo import demo_data
from pgenrm_agent.language import writing_of


@pytest.mark.parametrize(
    "text",
    [
        "How do I boil an egg?",
        "Rub the stains with wet baking soda, leave it on for five minutes, and rinse the mug.",
        "Have a look at the café's menu; it's à la carte.",
        "Use `for i in range(10): print(i)` to see what it does.",
    ],
)
def test_english(text: str) -> None:
    assert writing_of(text).language == "English"


def test_the_demo_is_english() -> None:
    data = demo_data()
    assert {writing_of(text).language for text in data.candidates.values()} == {"English"}


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Koche den Reis zwölf Minuten und lass ihn dann ruhen.", "Latin"),
        ("¿Cómo cocino el arroz?", "Latin"),
        ("Lavez le riz dans de l'eau froide et laissez-le reposer.", "Latin"),
        ("Laat de rijst tien minuten koken en dan rusten met een deksel.", "Latin"),
        ("Jak ugotować ryż?", "Latin"),
        ("Как сварить рис?", "Cyrillic"),
        ("怎么煮饭?", "Han"),
        ("밥을 짓는 법", "Hangul"),
        ("كيف أطبخ الأرز", "Arabic"),
    ],
)
def test_other_languages(text: str, script: str) -> None:
    writing = writing_of(text)
    assert (writing.language, writing.script) == ("other", script)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Simmer gently.", "Latin"),
        ("x+y = 4z, e^x, y - o", "Latin"),
        ("c'est la vie", "Latin"),
        ("https://example.org/a?b=1", "Latin"),
        ("42 + 1", ""),
    ],
)
def test_what_cannot_be_told_is_unknown(text: str, script: str) -> None:
    writing = writing_of(text)
    assert (writing.language, writing.script) == ("unknown", script)


@pytest.mark.parametrize(
    "text",
    [
        "Why men die",
        "Best men's plus size jeans?",
        "Los Angeles vs Las Vegas",
        "naïve café menu",
        "pros and cons: die casting vs. ale brewing",
    ],
)
def test_english_with_words_that_other_languages_have_is_not_called_foreign(text: str) -> None:
    assert writing_of(text).language != "other"
