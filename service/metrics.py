"""What `/metrics` shows. One registry an application; no label ever holds content."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from moderation.verdict import Verdict
from policies import Surface

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "wardgate_requests",
            "Requests answered, by route and status.",
            ("route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "wardgate_request_seconds",
            "Seconds from the request to the end of its answer, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._verdicts = Counter(
            "wardgate_verdicts",
            "Verdicts, by surface and action.",
            ("surface", "action"),
            registry=self.registry,
        )
        self._violations = Counter(
            "wardgate_violations",
            "Violated policies, by policy and its mode.",
            ("policy", "mode"),
            registry=self.registry,
        )
        self._scores = Counter(
            "wardgate_scores",
            "Scores in verdicts, by source: `cache` for those that were remembered in full, `model`"
            " for the others.",
            ("source",),
            registry=self.registry,
        )
        self._scoring_seconds = Histogram(
            "wardgate_scoring_seconds",
            "Seconds that the classifier worked on one content, without waiting for it.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.overloads = Counter(
            "wardgate_overloads",
            "Requests refused because a queue was full, or too many `bodies` came, by queue.",
            ("queue",),
            registry=self.registry,
        )
        self.gate_outcomes = Counter(
            "wardgate_gate_outcomes",
            "Chats, by what the gate did with them.",
            ("outcome",),
            registry=self.registry,
        )
        self.policy_reloads = Counter(
            "wardgate_policy_reloads",
            "Reloads of the policies: `loaded`, or `failed` where the old ones stay in force.",
            ("outcome",),
            registry=self.registry,
        )
        for outcome in ("loaded", "failed"):  # at 0, or an alert would miss the first one
            self.policy_reloads.labels(outcome)
        self._queue_depth = Gauge(
            "wardgate_queue_depth",
            "Jobs that wait or run, by queue.",
            ("queue",),
            registry=self.registry,
        )

    def watch_queue(self, name: str, depth: Callable[[], int]) -> None:
        """Shows the depth of a queue, asked for whenever the metrics are read."""
        self._queue_depth.labels(name).set_function(depth)

    def count_verdict(self, surface: Surface, verdict: Verdict) -> None:
        """Counts one verdict."""
        self._verdicts.labels(surface.value, verdict.action.value).inc()
        self._scoring_seconds.observe(verdict.scoring_ms / 1000)
        for score in verdict.scores:
            self._scores.labels("cache" if score.cached else "model").inc()
            if score.violates:
                self._violations.labels(score.policy_id, score.mode).inc()

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
