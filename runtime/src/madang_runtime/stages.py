"""The timed steps of one request: spans in its trace and timings in its ServingInfo."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf import duration_pb2
from opentelemetry import trace

from madang.common.v1 import serving_info_pb2
from madang_runtime.dependency import Dependency
from madang_runtime.errors import MadangError
from madang_runtime.metrics import Metrics
from madang_runtime.telemetry import current_trace_id

Request = TypeVar("Request")
Response = TypeVar("Response")


class Stages:
    """Collects the stages and degradations of one request. Not shared between threads."""

    def __init__(self, tracer: trace.Tracer, metrics: Metrics, arm: str = "stable") -> None:
        self._arm = arm
        self._tracer = tracer
        self._metrics = metrics
        self._timings: list[tuple[str, float]] = []
        self._degraded: list[serving_info_pb2.Degradation] = []

    def call(self, dependency: Dependency[Request, Response], request: Request) -> Response:
        """Call another service and time it; the call makes its own span. Raises: MadangError."""
        started = time.perf_counter()
        response = dependency(request)
        self._timings.append((dependency.name, time.perf_counter() - started))
        return response

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a step of this thread, and make it a span if the request is traced."""
        started = time.perf_counter()
        if trace.get_current_span().is_recording():
            with self._tracer.start_as_current_span(name):
                yield
        else:
            yield
        self._timings.append((name, time.perf_counter() - started))

    def degrade(self, component: str, error: MadangError, effect: str) -> None:
        """Note that a part of the answer was replaced by something worse."""
        self._metrics.degradations.labels(component, error.code.value).inc()
        self._degraded.append(
            serving_info_pb2.Degradation(component=component, cause=error.code.value, effect=effect)
        )

    def adopt(self, info: serving_info_pb2.ServingInfo) -> None:
        """Take over the degradations that a dependency reported."""
        self._degraded.extend(info.degraded)

    def serving_info(
        self,
        models: list[serving_info_pb2.ModelVersion] | None = None,
        *,
        freshness_token: str = "",
    ) -> serving_info_pb2.ServingInfo:
        """The ServingInfo of the answer."""
        return serving_info_pb2.ServingInfo(
            models=models,
            stages=[
                serving_info_pb2.StageTiming(name=name, elapsed=_duration(seconds))
                for name, seconds in self._timings
            ],
            degraded=self._degraded,
            experiment_arm=self._arm,
            freshness_token=freshness_token,
            trace_id=current_trace_id(),
        )


def _duration(seconds: float) -> duration_pb2.Duration:
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
