"""A picture of an evaluation, drawn as SVG: the answers with their scores, and why."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from html import escape

from pgenrm_agent.aggregation import typical_chain
from pgenrm_agent.schema import CandidateScore, Evaluation, EvaluationChain

WIDTH = 880
MARGIN = 32
LINE = 20
BAR_LEFT, BAR_RIGHT, BAR_HEIGHT = MARGIN, 600, 16
LETTERS = 104
"""Letters of a line of text; a rule of thumb, as no font is measured."""
LOWEST, HIGHEST = 1.0, 10.0
GRAY = "#57606a"
COLORS = ("#2f6f4f", "#b9c4bd")
"""Of the first place, and of the others."""
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def draw(evaluation: Evaluation, title: str, about: str) -> str:
    """Return the picture of an evaluation. title, about: its first line, and what it says below.

    Each answer has a bar from 1 to 10 with its standard error, its chance to be the best, and its
    marks in the chain that comes nearest to the mean scores; persona and rubric are that chain's.
    """
    chain = typical_chain(evaluation)
    page = _Page()
    page.text(title, size=20, weight=600, leading=34)
    page.text(about, color=GRAY, leading=26)
    page.space(6)
    for place, name in enumerate(evaluation.ranking):
        score = evaluation.score_of(name)
        text = next(answer.text for answer in evaluation.request.candidates if answer.id == name)
        page.space(8)
        for line in textwrap.wrap(text, LETTERS):
            page.text(line)
        page.bar(score, COLORS[min(place, 1)])
        for line in _reasons(chain, name):
            page.text(line, color=GRAY, size=13)
        page.space(10)
    page.rule()
    for line in textwrap.wrap(f"Why: {_sentence(chain)}", LETTERS):
        page.text(line)
    chains, choices = len(evaluation.chains), evaluation.evidence.choices
    page.text(
        f"Real output: the mean of {_count(chains, 'evaluation chain')}, from"
        f" {_count(choices, 'past choice')}, seed {evaluation.seed}. Reasons are those of a typical"
        " chain.",
        color=GRAY,
        size=12,
        leading=26,
    )
    return page.svg(alternative_text(evaluation))


def alternative_text(evaluation: Evaluation) -> str:
    """Return what the picture shows, in words."""
    told = "; ".join(
        f"{_number(evaluation.score_of(name))} of 10 for “{_beginning(evaluation, name)}”"
        for name in evaluation.ranking
    )
    return f"{told}. {typical_chain(evaluation).persona.text}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _beginning(evaluation: Evaluation, name: str) -> str:
    text = next(answer.text for answer in evaluation.request.candidates if answer.id == name)
    return textwrap.shorten(text, 50, placeholder=" ...")


def _number(score: CandidateScore) -> str:
    error = score.standard_error
    return f"{score.mean:.1f}" + ("" if error is None else f" ± {error:.1f}")


def _sentence(chain: EvaluationChain) -> str:
    """Return the persona, and what counts for them."""
    if chain.rubric is None:
        return chain.persona.text
    criteria = sorted(chain.rubric.criteria, key=lambda criterion: -criterion.weight)
    weights = ", ".join(f"{criterion.name} {criterion.weight:.0f} %" for criterion in criteria)
    return f"{chain.persona.text} What counts: {weights}."


def _reasons(chain: EvaluationChain, name: str) -> Iterator[str]:
    """Yield the lines on an answer: its marks, and the chain's own words where it has some."""
    marks = chain.marks.get(name, ())
    if chain.rubric is not None and marks:
        given = sorted(
            zip(chain.rubric.criteria, marks, strict=False), key=lambda pair: -pair[0].weight
        )
        told = ", ".join(
            f"{criterion.name} {'-' if mark is None else f'{mark:g}'}" for criterion, mark in given
        )
        yield from textwrap.wrap(f"{told} (of 10)", LETTERS)
    yield from textwrap.wrap(chain.reasons.get(name, ""), LETTERS)


class _Page:
    """SVG elements from top to bottom."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._y = MARGIN - 10.0

    def space(self, height: float) -> None:
        self._y += height

    def text(
        self,
        text: str,
        *,
        size: int = 15,
        weight: int = 400,
        color: str = "#1f2328",
        leading: int = LINE,
    ) -> None:
        self._y += leading
        self._parts.append(
            f'<text x="{MARGIN}" y="{self._y:g}" font-size="{size}" font-weight="{weight}"'
            f' fill="{color}">{_safe(text)}</text>'
        )

    def bar(self, score: CandidateScore, color: str) -> None:
        """Draw a score as a bar from 1 to 10 with its error, and its figures beside it."""
        if score.mean is None:
            return
        self._y += 10
        middle = self._y + BAR_HEIGHT / 2
        self._rectangle(BAR_RIGHT - BAR_LEFT, "#eef1ef")
        self._rectangle(_x(score.mean) - BAR_LEFT, color)
        if score.standard_error is not None:
            ends = [_x(score.mean + sign * score.standard_error) for sign in (-1, 1)]
            self._parts.append(
                f'<path d="M{ends[0]:.1f} {middle:g}H{ends[1]:.1f}'
                f'M{ends[0]:.1f} {middle - 5:g}v10M{ends[1]:.1f} {middle - 5:g}v10"'
                ' stroke="#1f2328" stroke-width="1.5" fill="none"/>'
            )
        chance = score.probability_best
        best = "" if chance is None else f"  ·  best with {100 * chance:.0f} %"
        self._parts.append(
            f'<text x="{BAR_RIGHT + 16}" y="{middle + 5:g}" font-size="15" font-weight="600"'
            f' fill="#1f2328">{_safe(_number(score) + best)}</text>'
        )
        self._y += BAR_HEIGHT + 4

    def rule(self) -> None:
        self._parts.append(
            f'<path d="M{MARGIN} {self._y + 4:g}H{WIDTH - MARGIN}" stroke="#d0d7de" fill="none"/>'
        )
        self._y += 14

    def svg(self, told: str) -> str:
        height = self._y + MARGIN - 8
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}"'
                f' width="{WIDTH}" height="{height:g}" role="img"'
                " font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\">",
                f"<title>{_safe(told)}</title>",
                f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="10"'
                ' fill="#ffffff" stroke="#d0d7de"/>',
                *self._parts,
                "</svg>\n",
            )
        )

    def _rectangle(self, width: float, color: str) -> None:
        self._parts.append(
            f'<rect x="{BAR_LEFT}" y="{self._y:g}" width="{width:.1f}" height="{BAR_HEIGHT}"'
            f' rx="3" fill="{color}"/>'
        )


def _x(score: float) -> float:
    """Return where a score stands on a bar."""
    share = (min(max(score, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
    return BAR_LEFT + share * (BAR_RIGHT - BAR_LEFT)


def _safe(text: str) -> str:
    return escape(_NO_XML.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)
