"""Compares a model that shall serve with the one that does, on the requests of now."""

import contextlib
import logging
import queue
import random
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram

from madang_eta.distribution import Floats, means
from madang_eta.orders import Orders
from madang_eta.reading import LookUp
from madang_eta.resolving import Service
from madang_eta.stage_model import EtaModel
from madang_runtime.errors import MadangError

log = logging.getLogger(__name__)
_WAITING, _ROWS = 64, 32  # jobs, and orders of one
_LONGEST_JOB = 2.0
_MINUTES = (-30, -15, -10, -5, -2, -1, 0, 1, 2, 5, 10, 15, 30)
_APART = (0.25, 0.5, 1, 2, 3, 5, 10, 20)


class ShadowMetrics:
    """What Prometheus gets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.shift = Histogram(
            "madang_eta_shadow_shift_minutes",
            "The shadow's mean minutes beyond those of the model that serves, by order.",
            ["service"],
            buckets=_MINUTES,
            registry=registry,
        )
        self.apart = Histogram(
            "madang_eta_shadow_distance_minutes",
            "Area between the distributions of the two, by order.",
            ["service"],
            buckets=_APART,
            registry=registry,
        )
        self.skipped = Counter(
            "madang_eta_shadow_skipped_total",
            "Requests that were not compared, since the shadow was busy or could not.",
            ["service"],
            registry=registry,
        )


class _Job(NamedTuple):
    service: str
    orders: Orders
    served: Floats


class ShadowComparer:
    """Works from a thread of its own, so that no request waits; what it can't keep up with is
    counted and left out.

    Args:
        shadow: gives the shadow of a service, None when there is none.
        look_up: the feature store.
        metrics: get the differences.
        share: of requests that are compared.
    """

    def __init__(
        self,
        shadow: Callable[[str], EtaModel | None],
        look_up: LookUp,
        metrics: ShadowMetrics,
        share: float,
    ) -> None:
        self._shadow, self._look_up = shadow, look_up
        self._metrics, self._share = metrics, share
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_WAITING)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, and leave what waits."""
        if self._thread.is_alive():
            self._closing = True
            with contextlib.suppress(queue.Full):
                self._jobs.put_nowait(None)  # else it sees so after the job that it works at
            self._thread.join(_LONGEST_JOB)

    def watch(self, service: Service, orders: Orders, served: Floats) -> None:
        """Note what was served."""
        if self._shadow(service.name) is None or random.random() >= self._share:
            return
        some = slice(0, _ROWS)
        try:
            self._jobs.put_nowait(_Job(service.name, orders.rows(some), served[some]))
        except queue.Full:
            self._metrics.skipped.labels(service.name).inc()

    def _run(self) -> None:
        while (job := self._jobs.get()) and not self._closing:
            try:
                self._compare(job)
            except MadangError:
                self._metrics.skipped.labels(job.service).inc()
            except Exception:
                log.exception("a shadow could not be compared")
                self._metrics.skipped.labels(job.service).inc()

    def _compare(self, job: _Job) -> None:
        model = self._shadow(job.service)
        if model is None:
            return
        inputs, _ = model.reader.read(job.orders, self._look_up)
        found = model.arrivals(inputs)
        shift, apart = self._metrics.shift, self._metrics.apart
        for minutes in (means(found) - means(job.served)).tolist():
            shift.labels(job.service).observe(minutes)
        for minutes in distance(found, job.served).tolist():
            apart.labels(job.service).observe(minutes)


def distance(a: Floats, b: Floats) -> Floats:
    """∫ |F - G| of each row, in minutes: how far probability has to be moved (Wasserstein-1)."""
    width = max(a.shape[1], b.shape[1])
    padded = [np.pad(pmf, ((0, 0), (0, width - pmf.shape[1]))) for pmf in (a, b)]
    minutes: Floats = np.abs(np.cumsum(padded[0] - padded[1], axis=1)).sum(1)
    return minutes
