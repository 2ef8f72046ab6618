"""Calls to other services through the gateway: deadline, trace context and typed errors."""

import contextlib
from typing import Any, Generic, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2
from opentelemetry import trace

from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.handlers import DETAILS_KEY
from madang_runtime.scope import SCOPE, USER_HEADER, outgoing_timeout
from madang_runtime.telemetry import traceparent

Request = TypeVar("Request")
Response = TypeVar("Response")
Metadata = tuple[tuple[str, str | bytes], ...]


def open_channel(target: str, max_message_bytes: int = 16 * 2**20) -> grpc.Channel:
    """Open a channel to `host:port` with keepalive and message limits as our servers have them."""
    return grpc.insecure_channel(
        target,
        options=[
            ("grpc.lb_policy_name", "round_robin"),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        ],
    )


class Remote(Generic[Request, Response]):
    """One RPC of another service.

    Calls block: grpcio starts a thread for a call that doesn't.

    Args:
        method: the stub's method.
        name: of the client span and the stage, such as "retrieve".
        cap: the longest that a call may take, in seconds.
        tracer: makes the client spans.
    """

    def __init__(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        name: str,
        cap: float,
        tracer: trace.Tracer,
    ) -> None:
        self.name = name
        self._method = method
        self._cap = cap
        self._tracer = tracer

    def __call__(self, request: Request) -> Response:
        """Call and wait.

        Raises:
            MadangError: the callee's error, or UNAVAILABLE, DEADLINE_EXCEEDED.
        """
        timeout = outgoing_timeout(self._cap)
        span = self._tracer.start_span(self.name, kind=trace.SpanKind.CLIENT)
        metadata: Metadata = (("traceparent", traceparent(span.get_span_context())),)
        if user := SCOPE.get().user:
            metadata = (*metadata, (USER_HEADER, user))
        try:
            return self._method(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            span.set_status(trace.StatusCode.ERROR)
            raise from_rpc_error(error) from error
        finally:
            span.end()


def from_rpc_error(error: grpc.RpcError) -> MadangError:
    """Turn a failed call into the error that the callee raised, or the nearest to it."""
    name = error.code().name
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        name = Code.UNAVAILABLE.value  # the gateway, or the callee, is of a version before
    code = Code(name) if name in Code.__members__ else Code.INTERNAL
    why, about = _FALLBACK.get(code, reason.ERROR_REASON_INTERNAL), {}
    trailing: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
    if details := trailing.get(DETAILS_KEY):
        info = _error_info(details)
        with contextlib.suppress(ValueError):
            why = reason.ErrorReason.Value(f"ERROR_REASON_{info.reason}")
        about = dict(info.metadata)
    return MadangError(code, why, error.details() or name, **about)


_FALLBACK = {
    Code.UNAVAILABLE: reason.ERROR_REASON_NOT_READY,
    Code.DEADLINE_EXCEEDED: reason.ERROR_REASON_DEADLINE_EXCEEDED,
    Code.RESOURCE_EXHAUSTED: reason.ERROR_REASON_OVERLOADED,
}


def _error_info(details: bytes) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(details).details:
        if detail.Unpack(info):
            break
    return info
