"""What it costs: the parts of `pgenrm bench`, a module each; `speed` puts them together."""

from pgenrm_agent.benchmarks.speed import SpeedReport, measure_speed

__all__ = ["SpeedReport", "measure_speed"]
