"""What the server counts, in the format of Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vocabtransfer.serving.engine import Engine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The counters of one server; several servers in one process do not share them."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineState(engine))
        self.requests = Counter(
            "vocabtransfer_requests", "Answered requests.", ("route", "status"), registry=self._registry
        )
        self.tokens = Counter("vocabtransfer_tokens", "Tokens by head.", ("head", "kind"), registry=self._registry)
        self.first = Histogram(
            "vocabtransfer_first_token_seconds",
            "From a request's arrival to its first token.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.seconds = Histogram(
            "vocabtransfer_request_seconds",
            "From a request's arrival to its last token.",
            buckets=SECONDS,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineState(Collector):
    """Read from the engine when somebody asks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        yield GaugeMetricFamily("vocabtransfer_running", "Requests that are being generated.", engine.running)
        yield GaugeMetricFamily("vocabtransfer_waiting", "Requests in the queue.", engine.waiting)
        yield GaugeMetricFamily("vocabtransfer_heads_loaded", "Heads in memory.", len(engine.model.loaded_heads))
        yield GaugeMetricFamily("vocabtransfer_heads_bytes", "Bytes of loaded heads.", engine.model.head_bytes)
        yield CounterMetricFamily("vocabtransfer_steps", "Passes of the body for one more token.", engine.steps)
        yield CounterMetricFamily("vocabtransfer_step_rows", "Rows in all these passes.", engine.row_steps)
