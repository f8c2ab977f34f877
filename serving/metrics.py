"""Figures for Prometheus, in a registry of their own for each application."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.state import ServiceState

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters and histograms of the service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "premirror_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "premirror_request_seconds", "Time to the whole answer.", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.batch_size = Histogram(
            "premirror_batch_size", "Requests answered together.", ["route"], buckets=SIZES, registry=self.registry
        )
        self.looks = Counter(
            "premirror_looks", "Looks at the registry and the home folder.", ["outcome"], registry=self.registry
        )
        self.look_seconds = Gauge(
            "premirror_look_seconds", "Time that the last look took, loading included.", registry=self.registry
        )

    def watch(self, current: Callable[[], ServiceState]) -> None:
        """Shows what the state holds at the moment of a scrape."""
        self.registry.register(_StateCollector(current))


class _StateCollector(Collector):
    def __init__(self, current: Callable[[], ServiceState]) -> None:
        self._current = current

    def collect(self) -> Iterator[Metric]:
        state = self._current()
        info = GaugeMetricFamily("premirror_model_info", "Versions that answer.", labels=["model", "version"])
        age = GaugeMetricFamily("premirror_model_age_seconds", "Age of what a model saw last.", labels=["model"])
        now_us = time.time_ns() // 1000
        for kind, part in state.models.items():
            if part.answerer is not None:
                origin = part.answerer.origin
                info.add_metric([kind, origin.version], 1)
                age.add_metric([kind], (now_us - origin.as_of_us) / 1e6)
        plan = GaugeMetricFamily("premirror_plan_age_seconds", "Time since the start of the plan in force.")
        if state.plan.answerer is not None:
            plan.add_metric([], now_us / 1e6 - state.plan.answerer.manifest["at_us"] / 1e6)
        reachable = GaugeMetricFamily("premirror_registry_reachable", "Whether the registry answered the last look.")
        reachable.add_metric([], float(state.registry.reachable))
        yield from (info, age, plan, reachable)


class Measured:
    """ASGI middleware that counts answers by route template, so that ids in paths never become labels."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
