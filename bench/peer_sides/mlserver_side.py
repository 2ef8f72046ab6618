"""MLServer with an ONNX session as a runtime: `mlserver_side.py PORT MODEL TENSORS FOLDER`.

Runs in MLServer's environment; writes the request that the bench sends to FOLDER/request.bin."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.grpc.converters import ModelInferRequestConverter
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class Dcn(MLModel):
    """Named tensors in, named tensors out."""

    async def load(self) -> bool:
        """Open the session, with one thread as all sides have."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(self.settings.parameters.uri, options)
        self._names = [o.name for o in self._session.get_outputs()]
        self._ranks = {i.name: len(i.shape) for i in self._session.get_inputs()}
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run it."""
        given = {}
        for one in payload.inputs:
            array = NumpyCodec.decode_input(one)  # a vector comes as one column
            given[one.name] = array[:, 0] if array.ndim > self._ranks[one.name] else array
        found = self._session.run(self._names, given)
        outputs = [NumpyCodec.encode_output(n, v) for n, v in zip(self._names, found, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def main() -> None:
    """Serve, in one process."""
    port, model, tensors, folder = int(sys.argv[1]), *sys.argv[2:5]
    given = dict(np.load(tensors))
    session = ort.InferenceSession(model)
    inputs = [NumpyCodec.encode_input(i.name, given[i.name]) for i in session.get_inputs()]
    request = ModelInferRequestConverter.from_types(
        InferenceRequest(inputs=inputs), model_name="dcn", model_version=None, use_raw=True
    )
    (Path(folder) / "request.bin").write_bytes(request.SerializeToString())
    settings = Settings(
        debug=False,
        parallel_workers=0,
        host="127.0.0.1",
        http_port=port + 1,
        grpc_port=port,
        metrics_port=port + 2,
        metrics_dir=folder,
    )
    dcn = ModelSettings(name="dcn", implementation=Dcn, parameters=ModelParameters(uri=model))
    asyncio.run(MLServer(settings).start([dcn]))


if __name__ == "__main__":
    main()
