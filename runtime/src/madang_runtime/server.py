"""The life of a service: start, serve, drain, stop."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry import trace

from madang_runtime.admission import AdmissionPool
from madang_runtime.handlers import Registrar, Surroundings
from madang_runtime.metrics import Metrics
from madang_runtime.settings import ServiceSettings
from madang_runtime.stages import Stages
from madang_runtime.telemetry import start_logging, start_tracing
from madang_runtime.workers import is_worker, supervise

log = logging.getLogger(__name__)


LIVE = "live"
"""What probes ask for whether the process is alive; whether it is ready is said under ""."""


class ServiceHost:
    """What a service's wiring gets: telemetry, registration, readiness and a place for clean-up."""

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        # Read when gRPC first starts: connections are polled by the thread that serves them.
        os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
        self.name = name
        self.settings = settings
        self.metrics = Metrics()
        self._provider = start_tracing(name, settings.otlp_endpoint, settings.sampling_ratio)
        self.tracer: trace.Tracer = self._provider.get_tracer("madang")
        self.closing = ExitStack()
        self._pool, self._streams = (
            AdmissionPool(threads, settings.max_waiting, settings.max_queue_seconds)
            for threads in (settings.threads, settings.streams)
        )
        self._server = grpc.server(
            self._pool, options=_server_options(settings), maximum_concurrent_rpcs=4096
        )
        self._health = health.HealthServicer()
        self._health.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        self._services: list[str] = []
        self._ready: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._listens = False
        self._publish_health()
        self._probes = self._start_probes(settings) if settings.health_port else None
        self.port = 0

    def register(self, add_to_server: Callable[[Any, Any], None], servicer: Any) -> None:
        """Register a servicer by its generated `add_…Servicer_to_server` function."""
        surroundings = Surroundings(
            self._pool,
            self._streams,
            self.metrics,
            self.tracer,
            self.settings.default_deadline_seconds,
        )
        add_to_server(servicer, Registrar(self._server, surroundings))
        full_name = next(
            base.__module__.removesuffix("_pb2_grpc").rpartition(".")[0]
            + "."
            + base.__name__.removesuffix("Servicer")
            for base in type(servicer).__mro__
            if base.__module__.endswith("_pb2_grpc")
        )
        self._services.append(full_name)

    def stages(self) -> Stages:
        """Stages for one request."""
        return Stages(self.tracer, self.metrics, self.settings.arm)

    def set_ready(self, part: str, ready: bool) -> None:
        """Say whether a part (a model, a check) is ready; the service is when all its parts are."""
        with self._lock:
            self._ready[part] = ready
            self._publish_health()

    @property
    def ready(self) -> bool:
        """Whether all parts are."""
        with self._lock:
            return all(self._ready.values())

    def _publish_health(self) -> None:
        serving = self._listens and all(self._ready.values())
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in ("", *self._services):
            self._health.set(service, status)

    def _start_probes(self, settings: ServiceSettings) -> grpc.Server:
        probes = grpc.server(ThreadPoolExecutor(1, thread_name_prefix="probes"))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, probes)
        probes.add_insecure_port(f"{settings.host}:{settings.health_port}")
        probes.start()
        return probes

    def start(self) -> int:
        """Listen, and return the port."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        channelz.add_channelz_servicer(self._server)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        with self._lock:
            self._listens = True
            self._publish_health()
        self.port = self._server.add_insecure_port(f"{self.settings.host}:{self.settings.port}")
        self._server.start()
        if self.settings.metrics_port:
            self.metrics.serve(self.settings.host, self.settings.metrics_port)
        log.info("%s listens on %s:%d", self.name, self.settings.host, self.port)
        return self.port

    def stop(self) -> None:
        """Turn NOT_SERVING, wait out endpoint lag, drain, close clients; telemetry last."""
        with self._lock:
            self._listens = False
            self._publish_health()
        time.sleep(self.settings.drain_seconds)
        self._server.stop(self.settings.grace_seconds).wait()
        self.closing.close()
        if self._probes:
            self._probes.stop(None).wait()
        for pool in (self._pool, self._streams):
            pool.shutdown(wait=False)
        self._provider.shutdown()


def run(name: str, settings: ServiceSettings, wire: Callable[[ServiceHost, Any], object]) -> None:
    """Run a service until SIGTERM or SIGINT.

    Args:
        name: the service's short name, such as "ranker".
        settings: its settings.
        wire: builds its objects and registers its servicer on the host.
    """
    start_logging(name, settings.log_level)
    if supervise(settings):
        return
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    host = ServiceHost(name, settings)
    try:
        wire(host, settings)
        # The kernel spreads connections over all workers that listen, ready or not.
        while is_worker() and not host.ready and not stopping.wait(0.1):
            pass
        host.start()
        stopping.wait()
    finally:
        host.stop()


def _server_options(settings: ServiceSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(is_worker())),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_connection_age_ms", 300_000),  # gRPC adds a jitter of 10 %
        ("grpc.max_connection_age_grace_ms", int(settings.grace_seconds * 1000)),
    ]
