"""Ray Serve with an ONNX session, by its gRPC proxy: `ray_side.py PORT MODEL TENSORS FOLDER`.

Runs in Ray's environment; writes the request that the bench sends to FOLDER/request.bin."""

import io
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import onnxruntime as ort
import ray
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve
from ray.serve.config import gRPCOptions


def add_dcn(servicer: object, server: grpc.Server) -> None:
    """What protoc would write for `rpc Infer(BytesValue) returns (BytesValue)`."""
    infer = grpc.unary_unary_rpc_method_handler(
        servicer.Infer, BytesValue.FromString, BytesValue.SerializeToString
    )
    handler = grpc.method_handlers_generic_handler("bench.Dcn", {"Infer": infer})
    server.add_generic_rpc_handlers((handler,))


@serve.deployment(max_ongoing_requests=8)
class Dcn:
    """Tensors as .npz in, the clicks' probabilities out."""

    def __init__(self, model: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model, options)
        self._inputs = [i.name for i in self._session.get_inputs()]

    def Infer(self, request: BytesValue) -> BytesValue:  # noqa: N802 - gRPC names it
        """Run it."""
        with np.load(io.BytesIO(request.value)) as given:
            found = self._session.run(None, {name: given[name] for name in self._inputs})
        return BytesValue(value=b"".join(v.tobytes() for v in found))


def main() -> None:
    """Serve."""
    port, model, tensors, folder = int(sys.argv[1]), *sys.argv[2:5]
    request = BytesValue(value=Path(tensors).read_bytes())
    (Path(folder) / "request.bin").write_bytes(request.SerializeToString())
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    options = gRPCOptions(port=port, grpc_servicer_functions=["ray_side.add_dcn"])
    serve.start(grpc_options=options, http_options={"port": port + 1})
    serve.run(Dcn.bind(model), name="dcn", route_prefix="/")
    (Path(folder) / "ready").write_text("")
    threading.Event().wait()


if __name__ == "__main__":
    main()
