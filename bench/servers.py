"""The servers that the floor is measured with: `python bench/servers.py KIND PORT [OTLP]`."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from madang.feature.v1 import feature_store_pb2 as pb
from madang.feature.v1 import feature_store_pb2_grpc
from madang_runtime.server import ServiceHost
from madang_runtime.settings import ServiceSettings

THREADS = 8


class EmptyServicer(feature_store_pb2_grpc.FeatureStoreServiceServicer):
    """Answers at once with next to nothing."""

    def GetFeatureView(  # noqa: N802
        self, request: pb.GetFeatureViewRequest, context: Any
    ) -> pb.GetFeatureViewResponse:
        """See the proto."""
        return pb.GetFeatureViewResponse()


def bare(port: int) -> grpc.Server:
    """grpcio's sync server with nothing around the handler."""
    server = grpc.server(ThreadPoolExecutor(THREADS))
    feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server(EmptyServicer(), server)  # type: ignore[abstract]
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


def madang(port: int, otlp: str, ratio: float) -> ServiceHost:
    """The same handler on our runtime: everything on."""
    settings = ServiceSettings(
        port=port, threads=THREADS, otlp_endpoint=otlp, sampling_ratio=ratio, metrics_port=0
    )
    host = ServiceHost("bench", settings)
    add = feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server
    host.register(add, EmptyServicer())  # type: ignore[abstract]
    host.start()
    return host


if __name__ == "__main__":
    kind, port, *rest = sys.argv[1:]
    kept = bare(int(port)) if kind == "bare" else madang(int(port), rest[0], float(rest[1]))
    threading.Event().wait()
