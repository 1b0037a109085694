"""What the server tells Prometheus. No label names a tenant or a user."""

from __future__ import annotations

from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pgenrm_agent.integrations.server.admission import Admission
from pgenrm_agent.schema import Evaluation

SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "pgenrm_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "pgenrm_request_seconds",
            "Time to answer, waiting included.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.evaluations = Counter(
            "pgenrm_evaluations",
            "Evaluations by outcome: done, failed, canceled.",
            ["outcome"],
            registry=self.registry,
        )
        self.chains = Counter(
            "pgenrm_chains",
            "Texts sampled, by what they were: usable, or the reason why not.",
            ["outcome"],
            registry=self.registry,
        )
        inside = Gauge(
            "pgenrm_evaluations_inside", "Evaluations running or waiting.", registry=self.registry
        )
        inside.set_function(lambda: admission.inside)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Count a finished evaluation and its chains."""
        self.evaluations.labels("done").inc()
        self.chains.labels("usable").inc(len(evaluation.chains))
        for reason, count in Tally(failure.reason for failure in evaluation.failures).items():
            self.chains.labels(reason).inc(count)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
