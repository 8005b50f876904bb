"""Counts and latencies of requests under the names of TensorFlow Serving, for Prometheus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PREFIX = ":tensorflow:serving:"
# The real server's: from 10 us by a factor of 1.8, to about 20 minutes.
_MICROSECONDS = [10 * 1.8**i for i in range(33)]
_EXAMPLES = [2.0**i for i in range(15)]


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{_PREFIX}request_count",
            "The total number of requests.",
            ["model_name", "status"],
            registry=registry,
        )
        self._request_latency = Histogram(
            f"{_PREFIX}request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            ["model_name", "API", "entrypoint"],
            buckets=_MICROSECONDS,
            registry=registry,
        )
        self._runtime_latency = Histogram(
            f"{_PREFIX}runtime_latency",
            "Distribution of wall time (in microseconds) for Tensorflow runtime.",
            ["model_name", "API", "runtime"],
            buckets=_MICROSECONDS,
            registry=registry,
        )
        self._examples = Histogram(
            f"{_PREFIX}request_example_counts",
            "The number of tensorflow.Examples per request.",
            ["model"],
            buckets=_EXAMPLES,
            registry=registry,
        )
        self._running = Gauge("fcnseg:running_calls", "Calls that run now.", registry=registry)

    def count_request(self, model_name: str, code: str) -> None:
        """Counts a request by the code of its answer."""
        self._requests.labels(model_name, code).inc()

    def count_examples(self, model_name: str, number: int) -> None:
        """Counts the examples of a request."""
        self._examples.labels(model_name).observe(number)

    def observe_request(self, model_name: str, api: str, entrypoint: str, seconds: float) -> None:
        """Notes the time of a request from its arrival to its answer."""
        self._request_latency.labels(model_name, api, entrypoint).observe(seconds * 1e6)

    @contextlib.contextmanager
    def run(self, model_name: str, api: str) -> Iterator[None]:
        """Notes the time that the runtime takes for a request: that of the block."""
        start = time.perf_counter()
        with self._running.track_inprogress():
            yield
        seconds = time.perf_counter() - start
        self._runtime_latency.labels(model_name, api, "TF1").observe(seconds * 1e6)

    def text(self) -> str:
        """The page of metrics, in the form of the real server: no `_total`, no help."""
        lines = []
        for metric in self._registry.collect():
            lines.append(f"# TYPE {metric.name} {metric.type}")
            for sample in metric.samples:
                if sample.name.endswith("_created"):
                    continue
                labels = ",".join(f'{k}="{_escaped(k, v)}"' for k, v in sample.labels.items())
                name = sample.name
                if metric.type == "counter":
                    name = metric.name
                lines.append(f"{name}{{{labels}}} {sample.value:.15g}")
        return "\n".join(lines) + "\n"


def _escaped(label: str, value: str) -> str:
    if label == "le" and value != "+Inf":
        return f"{float(value):g}"
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
