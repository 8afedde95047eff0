"""Metrics of the app in the text form of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120)  # limits of the buckets of histograms


class Metrics:
    """Metrics of one app; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, open files
        self.requests = Counter(
            "motion_http_requests", "Answers to HTTP requests.", ("method", "route", "status"), registry=registry
        )
        self.jobs = Counter(
            "motion_jobs", "Motions and edits: done, stopped, left, refused or failed.", ("outcome",), registry=registry
        )
        self.frames = Counter("motion_frames", "Frames of motion generated.", registry=registry)
        self.first_frames = Histogram(
            "motion_first_frames_seconds",
            "Time from a request to its first frames.",
            buckets=SECONDS,
            registry=registry,
        )
        self.seconds = Histogram(
            "motion_job_seconds", "Time from a request to its last frames.", buckets=SECONDS, registry=registry
        )
        self.held = Gauge(
            "motion_places_held", "Visitors and files that are served or waiting.", ("kind",), registry=registry
        )

    def watch(self, kind: str, count: Callable[[], float]) -> None:
        """Report a number of places that are held whenever the metrics are read."""
        self.held.labels(kind).set_function(count)

    def text(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self.registry)


class CountRequests:
    """Middleware that counts answers by method, route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in ("GET", "POST") else "other"  # few labels
                self.metrics.requests.labels(method, route, message["status"]).inc()
            await send(message)

        await self.app(scope, receive, counted)
