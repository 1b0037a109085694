"""What a model costs on this machine: the parts of `pgenrm bench`; `speed` puts them together."""

from pgenrm_agent.benchmarks.report import SpeedReport
from pgenrm_agent.benchmarks.speed import measure_speed

__all__ = ["SpeedReport", "measure_speed"]
