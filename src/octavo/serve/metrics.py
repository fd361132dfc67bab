"""GET /metrics: what the server does, for Prometheus."""

from collections.abc import Iterable

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from octavo.serve.calls import Usage
from octavo.serve.observer import Observer
from octavo.serve.service import Service

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics(Observer):
    """Counts what the service tells. Each server has a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "octavo_requests", "Requests, by how they ended", ["model", "reason"], registry=registry
        )
        self._tokens = Counter("octavo_tokens", "Tokens read and written", ["model", "kind"], registry=registry)
        self._first = Histogram(
            "octavo_first_token_seconds", "Time to the first token", ["model"], registry=registry, buckets=_SECONDS
        )
        self._whole = Histogram(
            "octavo_request_seconds", "Time to the last token", ["model"], registry=registry, buckets=_SECONDS
        )

    def refused(self, model: str) -> None:
        self._requests.labels(model, "queue_full").inc()

    def first_token(self, model: str, seconds: float) -> None:
        self._first.labels(model).observe(seconds)

    def finished(self, model: str, reason: str, usage: Usage, seconds: float) -> None:
        self._requests.labels(model, reason).inc()
        self._whole.labels(model).observe(seconds)
        kinds = {
            "prompt": usage.prompt_tokens,
            "cached": usage.cached_tokens,
            "completion": usage.completion_tokens,
            "reasoning": usage.reasoning_tokens,
        }
        for kind, tokens in kinds.items():
            self._tokens.labels(model, kind).inc(tokens)


class State(Collector):
    """What is so at the moment of asking."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        rows = GaugeMetricFamily("octavo_rows", "Sequences that run or wait", labels=["model"])
        free = GaugeMetricFamily("octavo_free_slots", "Rows that no sequence uses", labels=["model"])
        drawn = CounterMetricFamily("octavo_drawn_tokens", "Tokens drawn since the model was loaded", labels=["model"])
        kept = GaugeMetricFamily("octavo_prefix_cache_bytes", "Memory of prompts that are kept", labels=["model"])
        loaded = GaugeMetricFamily("octavo_model_loaded", "Whether the model is in memory", labels=["model"])
        for info in self._service.models():
            rows.add_metric([info.name], self._service.rows.get(info.name, 0))
            loaded.add_metric([info.name], info.state == "loaded")
        for model in self._service.loaded:
            free.add_metric([model.name], model.engine.free_slots)
            drawn.add_metric([model.name], model.engine.tokens_drawn)
            kept.add_metric([model.name], model.engine.prefix_cache_bytes)
        return rows, free, drawn, kept, loaded


def routes(service: Service) -> APIRouter:
    """The endpoint; counts nothing but the present state where the service was given no Metrics."""
    router = APIRouter()
    observer = service.observer
    registry = observer.registry if isinstance(observer, Metrics) else CollectorRegistry()
    registry.register(State(service))

    @router.get("/metrics", tags=["server"])
    async def metrics() -> Response:
        """What the server does, for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
