"""The Prometheus metrics of every service. One registry a server, so that tests can have many."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ROWS = (1, 8, 32, 128, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """Requests, errors and durations by method; batches; models; degradations."""

    def __init__(self) -> None:
        # Else each series has a gauge beside it, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "madang_rpc_duration_seconds",
            "Time to answer an RPC, by its outcome.",
            ["method", "code"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waited = Histogram(
            "madang_rpc_queue_seconds",
            "Time that an RPC waited for a thread.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "madang_batch_rows",
            "Rows that the dynamic batcher ran at once.",
            ["model"],
            buckets=_ROWS,
            registry=self.registry,
        )
        self.model_info = Gauge(
            "madang_model_info",
            "1 for the model version that serves.",
            ["model", "version"],
            registry=self.registry,
        )
        self.model_failures = Counter(
            "madang_model_load_failures_total",
            "Versions that could not be loaded; the version before kept serving.",
            ["model"],
            registry=self.registry,
        )
        self.degradations = Counter(
            "madang_degradations_total",
            "Answers of which a part was replaced by something worse.",
            ["component", "cause"],
            registry=self.registry,
        )

        self.log_applied = Counter(
            "madang_log_applied_total",
            "Entries of a change log that this process applied.",
            ["log"],
            registry=self.registry,
        )
        self.log_behind = Gauge(
            "madang_log_behind",
            "Entries of a change log that a group has not finished.",
            ["log", "group"],
            registry=self.registry,
        )

        self.records_dropped = Counter(
            "madang_records_dropped_total",
            "Shown pages and searches that could not be kept or logged.",
            ["what"],
            registry=self.registry,
        )

    def serve(self, host: str, port: int) -> None:
        """Serve /metrics over HTTP from a daemon thread."""
        start_http_server(port, addr=host, registry=self.registry)
