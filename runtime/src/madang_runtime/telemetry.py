"""Traces by OpenTelemetry and logs as JSON lines with the trace id."""

import json
import logging
import sys
import time
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

_VERSION = "00"
# A receiver that starts after us is found within seconds; by default it may take two minutes.
_PATIENCE = (
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, message, trace_id."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; exceptions become a field."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            entry["trace_id"] = f"{context.trace_id:032x}"
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def start_logging(service: str, level: str) -> None:
    """Send the root logger to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def start_tracing(service: str, otlp_endpoint: str, sampling_ratio: float) -> TracerProvider:
    """Make a tracer provider that exports to an OTLP/gRPC receiver.

    Without an endpoint spans are made (so that ids travel) but not exported.
    """
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"madang-{service}"}),
        sampler=ParentBasedTraceIdRatio(sampling_ratio),
        shutdown_on_exit=False,
    )
    if otlp_endpoint:
        exporter = OTLPSpanExporter(
            endpoint=otlp_endpoint,
            insecure=True,
            timeout=2,
            channel_options=_PATIENCE,  # type: ignore[arg-type]
        )
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=250))
    return provider


def parent_from(metadata: Sequence[tuple[str, str | bytes]]) -> trace.SpanContext | None:
    """Read the W3C `traceparent` of a call's metadata; None when there is none or it is broken."""
    for key, value in metadata:
        if key == "traceparent" and isinstance(value, str):
            parts = value.split("-")
            try:
                context = trace.SpanContext(
                    int(parts[1], 16), int(parts[2], 16), True, trace.TraceFlags(int(parts[3], 16))
                )
            except (IndexError, ValueError):
                return None
            return context if context.is_valid else None
    return None


def traceparent(context: trace.SpanContext) -> str:
    """The W3C `traceparent` header of a span."""
    return f"{_VERSION}-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def current_trace_id() -> str:
    """The sampled trace's id as 32 hex digits, or ""."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.trace_flags.sampled else ""
