"""Nothing is reported to anybody."""

import os
import subprocess
import sys

_RUN = """
import numpy as np, onnx
from onnx import TensorProto, helper
from madang_runtime.models.onnx_backend import OnnxBackend
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
print(OnnxBackend(model.SerializeToString(), 1).run({"x": np.ones(1, np.float32)})["y"])
"""


def test_onnx_runtime_keeps_no_events_of_this_machine(tmp_path):
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    home.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(
        [sys.executable, "-c", _RUN], env=home, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[1.]\n"
    assert list(tmp_path.rglob("*")) == []
