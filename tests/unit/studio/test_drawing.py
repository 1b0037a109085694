"""Where dots and nodes stand."""

from __future__ import annotations

from pgenrm_agent.debugging.views import ChainView
from pgenrm_agent.studio.drawing import plot_of


def chain(index: int, level: str, **totals: float) -> ChainView:
    return ChainView(
        index=index,
        level=level,
        signals_of="ada",
        status="written",
        tokens=1,
        text="",
        persona=None,
        rubric=(),
        totals=totals,
    )


def test_a_dot_stands_at_its_total_and_hides_no_other() -> None:
    chains = [chain(i, "individual", red=9.0, green=2.0 + i) for i in range(4)]
    chains += [chain(i, "prototype", red=9.0) for i in range(4, 6)]
    plot = plot_of(["red", "green"], chains, {"red": 9.0, "green": 3.5})
    assert plot is not None
    red, green = plot.rows
    scale = dict(plot.ticks)
    assert {dot.x for dot in red.dots} == {scale[9]}
    assert sorted(dot.x for dot in green.dots) == [scale[mark] for mark in (2, 3, 4, 5)]
    assert len({(dot.x, dot.y) for dot in red.dots}) == len(red.dots) == 6
    assert all((dot.y > red.line) == (dot.level == "prototype") for dot in red.dots)
    # Nothing reaches into the next candidate's row, or out of the picture.
    assert max(dot.y for dot in red.dots) < green.label < min(dot.y for dot in green.dots)
    assert green.line < plot.height


def test_many_equal_totals_overlap_rather_than_fill_the_page() -> None:
    few = plot_of(["red"], [chain(i, "individual", red=9.0) for i in range(8)], {"red": 9.0})
    many = plot_of(["red"], [chain(i, "individual", red=9.0) for i in range(64)], {"red": 9.0})
    assert few is not None
    assert many is not None
    assert few.height == many.height
