"""What happens around every RPC: admission, deadline, limits, span, metrics, errors.

The wrapping is done once a method, when a servicer is registered, and costs a call one function
more instead of a chain of interceptors.
"""

import logging
import string
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from opentelemetry import context as otel_context
from opentelemetry import trace

from madang_runtime.admission import AdmissionPool
from madang_runtime.errors import Code, MadangError, invalid, reason
from madang_runtime.limits import compile_limits, run_checks
from madang_runtime.metrics import Metrics
from madang_runtime.scope import SCOPE, USER_HEADER, CallScope, deadline_exceeded
from madang_runtime.telemetry import parent_from

log = logging.getLogger(__name__)

DOMAIN = "madang"
DETAILS_KEY = "grpc-status-details-bin"
_CODES = {code.name: code for code in grpc.StatusCode}
_PRINTABLE = string.digits + string.ascii_letters + string.punctuation
Handler = Callable[[Any, grpc.ServicerContext], Any]


@dataclass(frozen=True)
class Surroundings:
    """What the wrapping needs. Streams have a pool of their own, since each holds a thread."""

    pool: AdmissionPool
    streams: AdmissionPool
    metrics: Metrics
    tracer: trace.Tracer
    deadline_cap: float


class Registrar:
    """Stands in for a `grpc.Server` in the generated `add_…Servicer_to_server` functions."""

    def __init__(self, server: grpc.Server, surroundings: Surroundings) -> None:
        self._server = server
        self._surroundings = surroundings
        self._requests: dict[str, type[Message]] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Ignore the unwrapped handlers; the registered ones follow."""

    def add_registered_method_handlers(
        self, service: str, handlers: "dict[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        """Wrap and register the methods of a service."""
        wrapped = {name: self._wrap(service, name, h) for name, h in handlers.items()}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, wrapped),)
        )
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrap(
        self, service: str, method: str, handler: "grpc.RpcMethodHandler[Any, Any]"
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        around = self._surroundings
        parse = _Parser(handler.request_deserializer)
        if handler.unary_unary:
            inner = handler.unary_unary
            return grpc.unary_unary_rpc_method_handler(
                _around(around, around.pool, service, method, lambda raw, c: inner(parse(raw), c)),
                response_serializer=handler.response_serializer,
            )
        if handler.stream_unary:
            streamed = _streamed(parse, handler.stream_unary, around.deadline_cap)
            call: Any = _around(around, around.streams, service, method, streamed)
            call.experimental_thread_pool = around.streams
            return grpc.stream_unary_rpc_method_handler(
                call, response_serializer=handler.response_serializer
            )
        raise TypeError(f"{service}/{method}: streamed answers have no wrapping yet")


class _Parser:
    """Parses a request and checks the limits of its type."""

    def __init__(self, deserialize: Any) -> None:
        self._deserialize = deserialize
        self._checks = compile_limits(deserialize.__self__.DESCRIPTOR)

    def __call__(self, raw: bytes) -> Any:
        try:
            request = self._deserialize(raw)
        except DecodeError as error:
            raise invalid(
                "request", "is no message of its type, or has text that is not UTF-8"
            ) from error
        run_checks(self._checks, request)
        return request


def _streamed(parse: _Parser, handler: Handler, patience: float) -> Handler:
    """A handler of streamed requests. A stream holds a thread: one that is silent for longer than
    `patience` seconds is cancelled."""

    def call(raws: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        def requests() -> Iterator[Any]:
            while True:
                silent = threading.Timer(patience, context.cancel)
                silent.daemon = True
                silent.start()
                try:
                    raw = next(raws, None)
                finally:
                    silent.cancel()
                if raw is None:
                    return
                yield parse(raw)

        return handler(requests(), context)

    return call


def _around(
    around: Surroundings, pool: AdmissionPool, service: str, method: str, handler: Handler
) -> Handler:
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    span_name = f"{service}/{method}"
    ok_seconds = around.metrics.seconds.labels(method, "OK")

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        started = time.perf_counter()
        parent = parent_from(context.invocation_metadata())
        parent_context = (
            trace.set_span_in_context(trace.NonRecordingSpan(parent), otel_context.Context())
            if parent
            else otel_context.Context()
        )
        span = around.tracer.start_span(
            span_name, parent_context, trace.SpanKind.SERVER, attributes
        )
        token = otel_context.attach(trace.set_span_in_context(span, parent_context))
        scope_token = None
        try:
            waited = pool.admit()
            around.metrics.waited.observe(waited)
            scope = _scope(context, around.deadline_cap, waited / pool.max_queue_seconds)
            scope_token = SCOPE.set(scope)
            response = handler(request, context)
            ok_seconds.observe(time.perf_counter() - started)
            return response
        except MadangError as error:
            _failed(around.metrics, method, span, error.code, started)
            failure = error
        except grpc.RpcError as error:  # the caller's stream broke
            _failed(around.metrics, method, span, Code.CANCELLED, started)
            failure = MadangError(
                Code.CANCELLED, reason.ERROR_REASON_DEADLINE_EXCEEDED, f"the stream ended: {error}"
            )
        except Exception:
            log.exception("%s failed", span_name)
            _failed(around.metrics, method, span, Code.INTERNAL, started)
            failure = MadangError(
                Code.INTERNAL, reason.ERROR_REASON_INTERNAL, "internal error; see the server's log"
            )
        finally:
            if scope_token:
                SCOPE.reset(scope_token)
            otel_context.detach(token)
            span.end()
        return abort(context, failure)

    return call


def _scope(context: grpc.ServicerContext, cap: float, pressure: float) -> CallScope:
    remaining = context.time_remaining()
    left = cap if remaining is None else min(remaining, cap)
    if left <= 0 or not context.is_active():
        raise deadline_exceeded("the deadline passed before the work began")
    user = next((v for k, v in context.invocation_metadata() if k == USER_HEADER), "")
    # Only ASCII may be sent on.
    user = quote(user, safe=_PRINTABLE)
    return CallScope(time.monotonic() + left, context.is_active, user, pressure)


def _failed(metrics: Metrics, method: str, span: trace.Span, code: Code, started: float) -> None:
    metrics.seconds.labels(method, code.value).observe(time.perf_counter() - started)
    span.set_attribute("rpc.grpc.status_code", int(_CODES[code.value].value[0]))
    if code not in (Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.OUT_OF_RANGE):
        span.set_status(trace.StatusCode.ERROR)


def abort(context: grpc.ServicerContext, error: MadangError) -> NoReturn:
    """End a call with the status, ErrorInfo and RetryInfo of an error."""
    context.set_trailing_metadata(((DETAILS_KEY, to_status(error).SerializeToString()),))
    context.abort(_CODES[error.code.value], error.message)


def to_status(error: MadangError) -> status_pb2.Status:
    """The google.rpc.Status of an error."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason_name, domain=DOMAIN, metadata=error.about
    )
    details = [_any(info)]
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        details.append(_any(error_details_pb2.RetryInfo(retry_delay=delay)))
    code = int(_CODES[error.code.value].value[0])
    return status_pb2.Status(code=code, message=error.message, details=details)


def _any(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
