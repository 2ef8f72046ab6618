"""The servers that the floor is measured with: `python bench/servers.py KIND PORT …`."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import redis

from madang.feature.v1 import feature_store_pb2 as pb
from madang.feature.v1 import feature_store_pb2_grpc
from madang_runtime.models.onnx_backend import OnnxBackend
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
    return _listen(server, port)


def plain(port: int, answer: Callable[[bytes], bytes]) -> grpc.Server:
    """The shortest service that answers bytes by some work: no deadline, limit, metric or trace."""
    server = grpc.server(ThreadPoolExecutor(THREADS))
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: answer(request))
    server.add_registered_method_handlers("plain", {"Answer": handler})
    return _listen(server, port)


def _listen(server: grpc.Server, port: int) -> grpc.Server:
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


def mget(store: str, keys: str) -> Callable[[bytes], bytes]:
    """Reads rows by redis-py: the keys are the lines of a file."""
    client: Any = redis.Redis.from_url(f"redis://{store}")
    wanted = Path(keys).read_text().split()
    return lambda _: b"".join(client.mget(wanted))


def onnx(model: str, tensors: str) -> Callable[[bytes], bytes]:
    """Runs a session on tensors from a file, one call at a time."""
    session, lock = OnnxBackend(Path(model).read_bytes()), threading.Lock()
    inputs = dict(np.load(tensors))

    def answer(_: bytes) -> bytes:
        with lock:
            return session.run(inputs)["click"].tobytes()

    return answer


def sentences(folder: str, texts: str) -> Callable[[bytes], bytes]:
    """The texts, lines of a file, nearest to a text: sentence-transformers and one product."""
    import torch  # noqa: PLC0415 - slow, and only for this one
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    torch.set_num_threads(1)
    model = SentenceTransformer(folder, device="cpu")
    matrix = model.encode(Path(texts).read_text().splitlines(), normalize_embeddings=True)

    def answer(query: bytes) -> bytes:
        vector = model.encode(query.decode(), normalize_embeddings=True)
        scores = matrix @ vector
        rows = np.argpartition(-scores, 10)[:10]
        return rows[np.argsort(-scores[rows])].tobytes()

    return answer


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
    kept: object
    if kind == "bare":
        kept = bare(int(port))
    elif kind == "madang":
        kept = madang(int(port), rest[0], float(rest[1]))
    else:
        kept = plain(int(port), {"mget": mget, "onnx": onnx, "sentences": sentences}[kind](*rest))
    threading.Event().wait()
