"""Runs an ONNX model in this process."""

import numpy as np
import onnxruntime as ort

from madang_runtime.columns import Array

Tensors = dict[str, Array]


class OnnxBackend:
    """An ONNX Runtime session on CPU.

    Args:
        model: the serialised ONNX model.
        threads: threads of one operator.
    """

    def __init__(self, model: bytes, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle spinning would starve the handlers on a small machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._outputs = [o.name for o in self._session.get_outputs()]
        self.inputs: dict[str, list[int | str]] = {
            i.name: i.shape for i in self._session.get_inputs()
        }

    def run(self, tensors: Tensors) -> Tensors:
        """Run on named arrays and return the named outputs. Raises what ONNX Runtime raises."""
        used = {name: np.ascontiguousarray(tensors[name]) for name in self.inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, used), strict=True))
