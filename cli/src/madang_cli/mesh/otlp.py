"""A small OTLP receiver: every span of the mesh, the gateway's too, as JSON lines in one file.

A line is an ExportTraceServiceRequest in OTLP's JSON, which Jaeger's user interface opens.
"""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)

_IDS = ("traceId", "spanId", "parentSpanId")


class _TraceServicer(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def Export(  # noqa: N802
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.ServicerContext,
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        line = json.dumps(to_otlp_json(request), ensure_ascii=False)
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()
        return trace_service_pb2.ExportTraceServiceResponse()


class OtlpReceiver:
    """Listens on loopback and appends to a file."""

    def __init__(self, path: Path) -> None:
        self._server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="otlp"))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            _TraceServicer(path), self._server
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """Take what is under way, then stop."""
        self._server.stop(1.0).wait()


def to_otlp_json(request: trace_service_pb2.ExportTraceServiceRequest) -> dict[str, Any]:
    """OTLP's JSON of a request: protobuf's, but with ids in hex instead of base64."""
    document: dict[str, Any] = json_format.MessageToDict(request)
    for resource in document.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for key in _IDS:
                    if key in span:
                        span[key] = base64.b64decode(span[key]).hex()
                for link in span.get("links", ()):
                    for key in _IDS[:2]:
                        link[key] = base64.b64decode(link[key]).hex()
    return document
