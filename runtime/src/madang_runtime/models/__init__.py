"""Models: the registry, running them, batching for them, and swapping them while serving."""

import os

# Else ONNX Runtime reports events of this machine to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
