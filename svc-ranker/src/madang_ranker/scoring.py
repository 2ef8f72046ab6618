"""The DCN of one version, or what takes its place, loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import serving_info_pb2
from madang_ranker.fallback import Fallback
from madang_runtime.metrics import Metrics
from madang_runtime.models.batcher import DynamicBatcher
from madang_runtime.models.context import Clock, context_row
from madang_runtime.models.inputs import InputRows, ViewInputs
from madang_runtime.models.onnx_backend import OnnxBackend, Tensors
from madang_runtime.models.registry import ModelFiles

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ScoreRequest:
    """One user and context, and n items beside them.

    Attributes:
        user, context: one row each; the model computes their part once.
        items: n rows.
    """

    user: InputRows
    context: InputRows
    items: InputRows


@dataclass(frozen=True)
class Scores:
    """P(click), P(order) and P(hide) of n items if seen, float32 in [0, 1]."""

    click: Floats
    order: Floats
    hide: Floats


class DcnScorer:
    """Scores items in dynamic batches.

    Files: `model.onnx`, `fallback.npz`. Parameters: `user_view`, `item_view`, `utc_offset_hours`.
    """

    def __init__(
        self,
        model: ModelFiles,
        metrics: Metrics,
        *,
        threads: int = 1,
        batch_rows: int = 2048,
        batch_delay: float = 0.0,
    ) -> None:
        manifest = model.manifest
        self.version = serving_info_pb2.ModelVersion(name=manifest.name, version=manifest.version)
        self.user_inputs = ViewInputs(manifest.parameters["user_view"], manifest.features)
        self.item_inputs = ViewInputs(manifest.parameters["item_view"], manifest.features)
        self.fallback = Fallback(model.files["fallback.npz"])
        self._clock = Clock(manifest.parameters["utc_offset_hours"])
        self._backend = OnnxBackend(model.files["model.onnx"], threads)
        for n in (1, 2, 512):  # ONNX Runtime plans its memory by shape
            self._run([self._nothing(n)] * 2)
        self._batcher = DynamicBatcher(
            self._run,
            name=manifest.name,
            metrics=metrics,
            max_rows=batch_rows,
            max_delay=batch_delay,
        )

    def context(self, time_ms: int, latitude: float, longitude: float) -> InputRows:
        """The context row of a request."""
        return context_row(time_ms, latitude, longitude, self._clock)

    def score(self, request: ScoreRequest) -> Scores:
        """Score a request's items. Raises: MadangError OVERLOADED, DEADLINE_EXCEEDED."""
        return self._batcher(request, len(request.items.ints))

    def score_all(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """Score several requests at once, beside the batches of others."""
        return self._run(requests)

    def _run(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        sizes = [len(r.items.ints) for r in requests]
        outputs = self._backend.run(batch_tensors(requests, sizes))
        ends = np.cumsum(sizes)
        click = outputs["click"]
        # Versions from before there was that head have no `hide`.
        columns = click, outputs["order"], outputs.get("hide", np.zeros_like(click))
        return [
            Scores(*(column[end - n : end] for column in columns))
            for n, end in zip(sizes, ends, strict=True)
        ]

    def _nothing(self, n: int) -> ScoreRequest:
        return ScoreRequest(
            self.user_inputs.defaults(1), self.context(0, 0.0, 0.0), self.item_inputs.defaults(n)
        )


def batch_tensors(requests: Sequence[ScoreRequest], sizes: Sequence[int]) -> Tensors:
    """The model's inputs for several requests: `segment` says whose a row is."""
    return {
        "user_ints": _stack([r.user.ints for r in requests]),
        "user_floats": _stack([r.user.floats for r in requests]),
        "context_ints": _stack([r.context.ints for r in requests]),
        "context_floats": _stack([r.context.floats for r in requests]),
        "item_ints": _stack([r.items.ints for r in requests]),
        "item_floats": _stack([r.items.floats for r in requests]),
        "segment": np.repeat(np.arange(len(requests)), sizes),
    }


def _stack(arrays: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
