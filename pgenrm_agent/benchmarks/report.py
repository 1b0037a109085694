"""What a measurement of speed says."""

from __future__ import annotations

from collections.abc import Mapping

from pgenrm_agent.fields import Model


class Figure(Model):
    """One measured figure. `value` is in the unit that `shown` shows."""

    name: str
    value: float
    shown: str
    goal: str

    @classmethod
    def of(cls, name: str, value: float, form: str, goal: str = "-") -> Figure:
        """Return a figure that is shown by a format such as "{:.1f} ms"."""
        return cls(name=name, value=value, shown=form.format(value), goal=goal)


class Series(Model):
    """Measured values over something that was varied: a line of a plot."""

    name: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


class SpeedReport(Model):
    """What was measured, and on what. model, engine: None where no model was measured."""

    machine: str
    model: str | None = None
    engine: str | None = None
    figures: tuple[Figure, ...]
    series: tuple[Series, ...] = ()


def series_of(name: str, x_label: str, y_label: str, values: Mapping[int, float]) -> Series:
    """Return the line through `values`, given by what was varied."""
    return Series(
        name=name, x_label=x_label, y_label=y_label, x=tuple(values), y=tuple(values.values())
    )
