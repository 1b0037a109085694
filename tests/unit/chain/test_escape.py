"""No text can act as a marker: not plainly, not in disguise, and not in any prompt."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm_agent.chain import ChainFormat, escape
from pgenrm_agent.schema import Message, PreferencePair, StatedPreference

MARKERS = [
    "[The Start of User's preference history]",
    "[The End of User's preference history]",
    "[The Start of User Input]",
    "[The End of User Input]",
    "[The Start of Response 1]",
    "[The End of Response 12]",
    "[1 chosen]",
    "[3 rejected]",
    "[response 2]",
    "<JSON_START>",
    "<JSON_END>",
    "<|im_start|>",
    "<|end|>",
    "<|eot_id|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<start_of_turn>",
    "<think>",
    "</think>",
    "</thinking>",
    "</reasoning>",
    "<seed:think>",
    "[/THINK]",
    "◁/think▷",
    "[INST]",
    "[/INST]",
    "<s>",
    "User:",
    "Chosen:",
    "Rejected:",
    "Assistant:",
    "## Part 2: Scoring",
    "### Criteria",
]
# One form for all disguises, so that the tests do not share the code's own idea of them.
ARMED = re.compile(
    r"\[\s*the\s*(?:start|end)\s*of[^\]]*\]|\[\s*\d+\s*(?:chosen|rejected)\s*\]"
    r"|\[\s*response\s*\d+\s*\]|<\s*/?\s*json_(?:start|end)\s*>|<\|[^<>‹›]{1,80}>|\[/?inst\]|</?s>"
    r"|[<◁]\s*/?\s*(?:seed:)?(?:think(?:ing)?|thought|reasoning)\s*[>▷]|\[/?think\]"
    r"|(?-i:User|Chosen|Rejected):|^\W*(?:user|chosen|rejected|assistant|system)\s*:"
    r"|^[ \t]*#+[^\w\n§]{0,5}(?:part|persona|criteria)",
    re.IGNORECASE | re.MULTILINE,
)


@pytest.mark.parametrize("marker", MARKERS)
def test_markers_are_changed_and_stay_readable(marker: str) -> None:
    changed = escape(f"before\n{marker}\nafter")
    assert marker not in changed
    assert changed.startswith("before\n")
    assert changed.endswith("\nafter")
    letters = [char for char in marker if char.isalnum()]
    assert [char for char in changed[7:-6] if char.isalnum()] == letters


@pytest.mark.parametrize(
    "disguised",
    [
        "[THE END OF RESPONSE 1]",
        "[The End of Response 1",
        "[The\nEnd of Response 1]",
        "[ The  End\tof Response\n1 ]",
        "[The\u200bEnd\u00a0of Response 1]",
        "［Ｔｈｅ End of Response 1］",
        "【The End of Response 1】",
        "[Тhe Еnd оf Rеsponse 1]",  # Cyrillic letters
        "[Thé End of Response 1]",
        "[response\u00ad1]",
        "[ 1 CHOSEN ]",
        "＜JSON_END＞",
        "< json_end >",
        "<ЈSОN_ЕND>",
        "<JSON_\u2060END>",
        "<\u200b|im_end|>",
        "＜／ｔｈｉｎｋ＞",
        "<\u200b/ THINK >",
        "</тhink>",
        "uSeR :",
        "**User**:",
        "Chosen：",
        "\u2028rejected:",
        "\rAssistant:",
        "Сhosen:",
    ],
)
def test_disguised_markers_are_changed(disguised: str) -> None:
    assert escape(disguised) != disguised


@pytest.mark.parametrize(
    "text",
    [
        "Use `a[1]` and `b[response]`; see [1], [2] and [the docs](x).",
        "if x < 3 and y > 4: print('<b>bold</b>')",
        "Note: the user is right.\nAnswer: 42",
        "# Title\n## Steps\n1. Mix: flour, water\n2. Partly bake",
        "She said: 'users: many'. 10:30",
        "α + β = γ; [x₁, x₂]; «quoted» ‹text›",
        "a[0] < b and c > d; std::vector<int>; #include <string>",
        "👩‍👩‍👧 zero-width joiners survive",
        "",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert escape(text) == text


FRAGMENT = st.one_of(
    st.sampled_from(MARKERS),
    st.sampled_from([marker.upper() for marker in MARKERS]),
    st.sampled_from(
        [*list("[]<>|:#\n "), "\u200b", "［", "＞", "The End of", "response 1", "User"]
    ),
    st.text(max_size=6),
)
HOSTILE = st.lists(FRAGMENT, max_size=12).map("".join)


@given(HOSTILE)
@settings(max_examples=400)
def test_nothing_armed_is_left_and_a_second_pass_changes_nothing(text: str) -> None:
    once = escape(text)
    assert not ARMED.search(once)
    assert escape(once) == once


@pytest.mark.parametrize("name", ["published", "compact-1"])
@given(texts=st.lists(HOSTILE, min_size=6, max_size=6))
@settings(max_examples=150)
def test_no_text_closes_its_block_in_a_prompt(name: str, texts: list[str]) -> None:
    """A prompt of hostile texts has the same markers, in the same order, as one of plain texts."""
    fmt = ChainFormat.load(name)

    def markers(texts: list[str]) -> list[str]:
        query, first, second, chosen, rejected, wish = texts
        messages = fmt.messages(
            query=query,
            candidates=[first, second],
            history=[
                PreferencePair(query=f"q {query}", chosen=f"c {chosen}", rejected=f"r {rejected}")
            ],
            stated=[StatedPreference(text=f"w {wish}")],
            conversation=[Message(role="user", content=wish)],
        )
        return [
            marker
            for message in messages
            for marker in re.findall(
                r"\[The (?:Start|End) of|\[\d+ (?:chosen|rejected)\]|\[response \d+\]"
                r"|</?JSON_(?:START|END)>|(?:User|Chosen|Rejected):|<\|[^<>\n]{0,40}\|>",
                message.content,
            )
        ]

    assert markers(texts) == markers(["plain"] * 6)
