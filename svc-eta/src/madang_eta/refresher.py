"""`python -m madang_eta.refresher`: makes the lists anew every few minutes."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import h3
import numpy as np
from prometheus_client import CollectorRegistry, Gauge

from madang.feature.v1 import feature_store_pb2 as pb
from madang.feature.v1 import feature_store_pb2_grpc
from madang_eta import lists
from madang_eta.kinds import load_kinds
from madang_eta.orders import Orders, Points
from madang_eta.resolving import Service
from madang_eta.serving import hot_models, services_of
from madang_eta.settings import RefresherSettings
from madang_eta.stage_model import EtaModel
from madang_runtime.clients import Remote, open_channel
from madang_runtime.columns import block
from madang_runtime.dependency import Dependency
from madang_runtime.errors import MadangError
from madang_runtime.server import ServiceHost, run
from madang_runtime.times import now_ms

log = logging.getLogger(__name__)
_AT_ONCE = 8192
_RETRY_SECONDS = 5.0
Write = Dependency[pb.WriteFeaturesRequest, pb.WriteFeaturesResponse]
Read = Dependency[pb.LookupFeaturesRequest, pb.LookupFeaturesResponse]


class RefreshMetrics:
    """What Prometheus gets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["service"]
        self.rows = Gauge(
            "madang_eta_list_rows", "Estimates of the last refresh.", labels, registry=registry
        )
        self.seconds = Gauge(
            "madang_eta_list_seconds", "How long the last refresh took.", labels, registry=registry
        )
        self.time = Gauge(
            "madang_eta_list_timestamp_seconds",
            "When the last refresh ended, in seconds since the epoch.",
            labels,
            registry=registry,
        )


class ListRefresher:
    """Estimates every shop and cell that it delivers to, as of now.

    Args:
        services: by name.
        read, write: the feature store.
        metrics: get rows and seconds.
        threads: parts that are made at once.
    """

    def __init__(
        self,
        services: dict[str, Service],
        read: Read,
        write: Write,
        metrics: RefreshMetrics,
        threads: int,
    ) -> None:
        self._services = services
        self._read, self._write = read, write
        self._metrics, self._threads = metrics, threads

    def refresh(self, service: Service, stop: threading.Event) -> None:
        """Make the lists of a kind of service.

        Raises:
            MadangError: NOT_READY, or the feature store's; parts may have been written.
        """
        started = time.monotonic()
        rows = self._of_service(service, service.model(), stop)
        if stop.is_set():
            return
        seconds = time.monotonic() - started
        self._metrics.rows.labels(service.name).set(rows)
        self._metrics.seconds.labels(service.name).set(seconds)
        self._metrics.time.labels(service.name).set_to_current_time()
        log.info("%s: %d estimates in %.1f s", service.name, rows, seconds)

    def _of_service(self, service: Service, model: EtaModel, stop: threading.Event) -> int:
        orders, keys = _pairs(model, service.name, now_ms())
        parts = [slice(at, at + _AT_ONCE) for at in range(0, len(keys), _AT_ONCE)]

        def make(part: slice) -> None:
            if stop.is_set():
                return
            inputs, _ = model.reader.read(orders.rows(part), self._read)
            rows = lists.list_rows(model.arrivals(inputs), service.kind.window_minutes)
            names, dims = zip(*((f.name, f.dim) for f in lists.FEATURES), strict=True)
            self._write(
                pb.WriteFeaturesRequest(
                    view=lists.VIEW,
                    entity_ids=keys[part],
                    blocks=[block(names, rows.astype(np.float32), dims=dims)],
                )
            )

        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="refresh")
        try:
            for _ in pool.map(make, parts):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        return len(keys)

    def run(self, every: float, stop: threading.Event) -> None:
        """Refresh until told to stop; a kind of service that fails is tried again soon."""
        due = dict.fromkeys(self._services, time.monotonic())
        while not stop.is_set():
            name = min(due, key=lambda service: due[service])
            if stop.wait(max(due[name] - time.monotonic(), 0)):
                return
            due[name] = time.monotonic() + every
            try:
                self.refresh(self._services[name], stop)
            except MadangError as error:
                log.warning("lists of %s stay as they are: %s", name, error.message)
                due[name] = time.monotonic() + min(every, _RETRY_SECONDS)
            except Exception:
                log.exception("lists of %s stay as they are", name)
                due[name] = time.monotonic() + min(every, _RETRY_SECONDS)


def _pairs(model: EtaModel, service: str, time_ms: int) -> tuple[Orders, list[str]]:
    """An order from every shop to each cell that it delivers to, and the keys of their rows."""
    shops = model.shops
    cells, codes = np.unique(shops.pair_cells, return_inverse=True)
    names = [h3.int_to_str(cell) for cell in cells.tolist()]
    centres = np.array([h3.cell_to_latlng(name) for name in names]).reshape(-1, 2)
    origin, ids = shops.columns(shops.pair_rows)
    n = len(shops.pair_rows)
    places = Points(centres, codes)
    orders = Orders(np.full(n, time_ms), origin, places, np.full(n, np.nan), ids)
    pairs: Iterator[tuple[int, int]] = zip(shops.pair_rows.tolist(), codes.tolist(), strict=True)
    keys = [lists.list_key(service, shops.shop_ids[row], names[code]) for row, code in pairs]
    return orders, keys


def wire(host: ServiceHost, settings: RefresherSettings) -> None:
    """Start to refresh."""
    channel = open_channel(settings.gateway, settings.max_message_bytes)
    host.closing.callback(channel.close)
    store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    timeout = settings.feature_timeout_seconds
    models = hot_models(host, settings, store, timeout, settings.model_alias)
    refresher = ListRefresher(
        services_of(load_kinds(settings.services), models),
        Remote(store.LookupFeatures, "features", timeout, host.tracer),
        Remote(store.WriteFeatures, "write_features", timeout, host.tracer),
        RefreshMetrics(host.metrics.registry),
        settings.refresh_threads,
    )
    for model in models.values():
        model.start()
    stop = threading.Event()
    thread = threading.Thread(
        target=refresher.run, args=(settings.refresh_seconds, stop), daemon=True
    )
    host.closing.callback(thread.join, 10.0)
    host.closing.callback(stop.set)  # called first
    thread.start()


if __name__ == "__main__":
    run("refresher", RefresherSettings(), wire)
