"""What happens around every RPC: admission, deadline, limits, span, metrics, errors.

The wrapping is done once a method, when a servicer is registered, and costs a call one function
more instead of a chain of interceptors.
"""

import logging
import string
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
_CALLERS = (Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.OUT_OF_RANGE, Code.ALREADY_EXISTS)
"""Mistakes of the caller, which are no errors of the service."""
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
        rpc = _Method(around, service, method)
        parse = _Parser(handler.request_deserializer)
        if handler.unary_unary:
            inner = handler.unary_unary
            return grpc.unary_unary_rpc_method_handler(
                _around(rpc, around.pool, lambda raw, c: inner(parse(raw), c)),
                response_serializer=handler.response_serializer,
            )
        if handler.stream_unary:
            streamed = _streamed(parse, handler.stream_unary, around.deadline_cap)
            call: Any = _around(rpc, around.streams, streamed)
            call.experimental_thread_pool = around.streams
            return grpc.stream_unary_rpc_method_handler(
                call, response_serializer=handler.response_serializer
            )
        if handler.unary_stream:
            answers = handler.unary_stream
            call = _around_stream(rpc, lambda raw, c: answers(parse(raw), c))
            call.experimental_thread_pool = around.streams
            return grpc.unary_stream_rpc_method_handler(
                call, response_serializer=handler.response_serializer
            )
        raise TypeError(f"{service}/{method}: streams both ways have no wrapping yet")


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
                with _patient(context, patience):
                    raw = next(raws, None)
                if raw is None:
                    return
                yield parse(raw)

        return handler(requests(), context)

    return call


@contextmanager
def _patient(context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
    """Cancel the call when the block takes longer."""
    silent = threading.Timer(seconds, context.cancel)
    silent.daemon = True
    silent.start()
    try:
        yield
    finally:
        silent.cancel()


class _Method:
    """What the calls of a method have in common."""

    def __init__(self, around: Surroundings, service: str, method: str) -> None:
        self.around = around
        self.name = f"{service}/{method}"
        self.attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        self.seconds = partial(around.metrics.seconds.labels, method)
        self.seconds_if_ok = self.seconds("OK")


def _around(rpc: _Method, pool: AdmissionPool, handler: Handler) -> Handler:
    cap = rpc.around.deadline_cap

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        it = _Call(rpc, context)
        try:
            it.admit(pool, cap)
            response = handler(request, context)
            it.succeeded()
            return response
        except Exception as error:
            failure = it.failed(error)
        finally:
            it.end()
        return abort(context, failure)

    return call


def _around_stream(rpc: _Method, handler: Callable[[Any, Any], Iterator[Any]]) -> Any:
    """Of a handler that streams its answer, which may take longer than a call. An answer that is
    not taken for longer than the default deadline cancels the stream."""

    def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        it = _Call(rpc, context)
        try:
            it.admit(rpc.around.streams, float("inf"))
            for response in handler(request, context):
                with _patient(context, rpc.around.deadline_cap):
                    yield response
            it.succeeded()
            return
        except GeneratorExit:
            it.ended_as(Code.CANCELLED)
            raise
        except Exception as error:
            failure = it.failed(error)
        finally:
            it.end()
        abort(context, failure)

    return call


class _Call:
    """A call that has come: its span, its scope, and how it ends."""

    def __init__(self, rpc: _Method, context: grpc.ServicerContext) -> None:
        self._started = time.perf_counter()
        self._rpc, self._context = rpc, context
        parent = parent_from(context.invocation_metadata())
        parent_context = (
            trace.set_span_in_context(trace.NonRecordingSpan(parent), otel_context.Context())
            if parent
            else otel_context.Context()
        )
        self._span = rpc.around.tracer.start_span(
            rpc.name, parent_context, trace.SpanKind.SERVER, rpc.attributes
        )
        self._token = otel_context.attach(trace.set_span_in_context(self._span, parent_context))
        self._scope: Any = None

    def admit(self, pool: AdmissionPool, cap: float) -> None:
        """Enter, with at most `cap` seconds to answer. Raises: MadangError."""
        waited = pool.admit()
        self._rpc.around.metrics.waited.observe(waited)
        self._scope = SCOPE.set(_scope(self._context, cap, waited / pool.max_queue_seconds))

    def succeeded(self) -> None:
        self._rpc.seconds_if_ok.observe(time.perf_counter() - self._started)

    def failed(self, error: Exception) -> MadangError:
        """What the caller is told."""
        if isinstance(error, MadangError):
            failure = error
        elif isinstance(error, grpc.RpcError):  # the caller's stream broke
            failure = MadangError(
                Code.CANCELLED, reason.ERROR_REASON_DEADLINE_EXCEEDED, f"the stream ended: {error}"
            )
        else:
            log.error("%s failed", self._rpc.name, exc_info=error)
            failure = MadangError(
                Code.INTERNAL, reason.ERROR_REASON_INTERNAL, "internal error; see the server's log"
            )
        self.ended_as(failure.code)
        return failure

    def ended_as(self, code: Code) -> None:
        self._rpc.seconds(code.value).observe(time.perf_counter() - self._started)
        self._span.set_attribute("rpc.grpc.status_code", int(_CODES[code.value].value[0]))
        if code not in _CALLERS:
            self._span.set_status(trace.StatusCode.ERROR)

    def end(self) -> None:
        if self._scope:
            SCOPE.reset(self._scope)
        otel_context.detach(self._token)
        self._span.end()


def _scope(context: grpc.ServicerContext, cap: float, pressure: float) -> CallScope:
    remaining = context.time_remaining()
    left = cap if remaining is None else min(remaining, cap)
    if left <= 0 or not context.is_active():
        raise deadline_exceeded("the deadline passed before the work began")
    user = next((v for k, v in context.invocation_metadata() if k == USER_HEADER), "")
    # Only ASCII may be sent on.
    user = quote(user, safe=_PRINTABLE)
    return CallScope(time.monotonic() + left, context.is_active, user, pressure)


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
