"""Marks with their weights, shares and totals beside them, every combination: read right, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

import pytest
from readings import Reading, text_of

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.errors import ChainError

NAMES = ("Clarity", "Depth", "Tone")
# Some marks equal their weights, and the last two weights do not sum to 100.
WEIGHTS = (
    (70, 30),
    (70, 20, 10),
    (90, 10),
    (95, 5),
    (50, 40, 10),
    (85, 8, 7),
    (50, 40, 20),
    (60, 30),
)
MARKS = (((8, 10, 5), (3, 6, 7)), ((9, 5, 2), (3, 8, 10)))
ITEMS = (
    *("{n} {m}", "{n} ({w}%): {m}", "{n} ({w}): {m}", "{n} {m} ({s})", "{n}: {m} x {h} = {s}"),
    *("{n}: {h} * {m} = {s}", "{n}: {m} → {s}", "{n} {m} ({w}%)", "{n} = {m}, so {s}"),
    *("{n} [{w}] {m}", "{n}: {m}/10 ({s})", "{n} ({m}) {s}", "{n}: {m} (weighted {s})"),
    *("{n} ({m})", "{n} [{m}]"),
)
ENDS = (
    *("", " = {t}", " ({shares} = {t})", " - {shares} = {t}", " – {products} = {t}", ", so {t}"),
    *(" ({products} = {t})", ", {shares} = {t}", " ({t})", ". Total: {shares} = {t}"),
)


def short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def breakdowns(weights: Sequence[int]) -> Iterator[tuple[str, list[float]]]:
    """Breakdowns, and the totals as they are told in them."""
    for item, end, marks, separator in product(ITEMS, ENDS, MARKS, (", ", "\n- ")):
        lines, totals = [], []
        for number, row in enumerate(marks, 1):
            pairs = list(zip(row, weights, strict=False))
            shares = [short(mark * weight / 100) for mark, weight in pairs]
            total = sum(mark * weight for mark, weight in pairs) / 100
            listed = separator.join(
                item.format(n=name, m=mark, w=weight, h=short(weight / 100), s=share)
                for name, (mark, weight), share in zip(NAMES, pairs, shares, strict=False)
            )
            products = " + ".join(f"{mark}*{short(weight / 100)}" for mark, weight in pairs)
            ending = end.format(t=short(total), shares=" + ".join(shares), products=products)
            lines.append(f"Response {number}: {listed}{ending}")
            totals.append(total)
        yield "\n".join(lines), totals


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("told", [True, False])
def test_no_share_or_total_is_taken_for_a_mark(weights: tuple[int, ...], told: bool) -> None:
    whole = sum(weights) / 100
    criteria = "\n".join(
        f"{place}. {name} ({weight}%): x"
        for place, (name, weight) in enumerate(zip(NAMES, weights, strict=False), 1)
    )
    outcomes: Counter[str] = Counter()
    for rationale, totals in breakdowns(weights):
        written = {f"response_{n}": round(total, 2) for n, total in enumerate(totals, 1)}
        reading: Reading = {
            "criteria": criteria,
            "rationale": rationale,
            "written": written if told else {},
        }
        try:
            chain = parse_chain(text_of(reading), ("a", "b"))
        except ChainError as refusal:
            outcomes[refusal.reason] += 1
            continue
        if chain.incomplete is not None or chain.totals_from == "reported":
            outcomes["unsure"] += 1
            continue
        right = {name: total / whole for name, total in zip("ab", totals, strict=True)}
        assert chain.totals == pytest.approx(right), rationale
        outcomes["right"] += 1
    # A total that is a whole number settles nothing, and leaves its chain in doubt.
    assert outcomes["right"] > 0.6 * outcomes.total()
