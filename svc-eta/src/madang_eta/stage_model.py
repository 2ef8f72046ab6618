"""The stages of one kind of service: one version, loaded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from madang.common.v1 import serving_info_pb2
from madang_eta.dependence import Factor, StageDependence, total
from madang_eta.distribution import Floats, cumulative, remaining, with_tail
from madang_eta.layout import Layout
from madang_eta.reading import OrderReader
from madang_eta.shops import Shops
from madang_runtime.models.onnx_backend import OnnxBackend
from madang_runtime.models.registry import ModelFiles

_AT_ONCE = 256  # what is worked on fits in the cache


@dataclass(frozen=True)
class StageSpec:
    """One stage.

    Attributes:
        name: such as "dispatch".
        minutes: that have a class of their own; longer is the tail.
        mean_excess: minutes beyond those that the tail takes on average.
    """

    name: str
    minutes: int
    mean_excess: float


@dataclass(frozen=True)
class Progress:
    """How far one order is.

    Attributes:
        took: minutes of the stages that are over.
        elapsed: minutes since the last of them ended.
    """

    took: tuple[float, ...] = ()
    elapsed: float = 0.0


class EtaModel:
    """The distributions of an order's stages, and of what they add up to.

    Files: `<stage>.onnx` each, `shops.npz`. Parameters: `service`, `stages`, `loadings`, `layout`.
    """

    def __init__(self, model: ModelFiles, threads: int = 1) -> None:
        manifest = model.manifest
        self.version = serving_info_pb2.ModelVersion(name=manifest.name, version=manifest.version)
        given = manifest.parameters
        self.service: str = given["service"]
        self.layout = Layout.model_validate(given["layout"])
        self.stages = [StageSpec(**stage) for stage in given["stages"]]
        self.reader = OrderReader(self.layout, self.service)
        self.dependence = StageDependence(given["loadings"])
        self.shops = Shops.unpack(model.files["shops.npz"])
        self._nets = [OnnxBackend(model.files[f"{s.name}.onnx"], threads) for s in self.stages]
        self.distributions(np.full((2, len(self.layout.names())), np.nan, np.float32))

    def distributions(self, inputs: NDArray[np.float32]) -> list[Floats]:
        """Of each stage, shape [n, minutes with its tail]."""
        return [
            with_tail(net.run({"inputs": inputs})["probabilities"], stage.mean_excess)
            for net, stage in zip(self._nets, self.stages, strict=True)
        ]

    def arrivals(self, inputs: NDArray[np.float32]) -> Floats:
        """Of whole orders, from when they are placed, shape [n, minutes]."""
        parts = [
            self.combine(self.distributions(inputs[at : at + _AT_ONCE]))
            for at in range(0, len(inputs), _AT_ONCE)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def combine(self, stages: list[Floats]) -> Floats:
        """The sum of all stages, shape [n, minutes]."""
        if len(stages) == 1:
            return stages[0]
        factor = self.dependence.prior()
        parts = [self.dependence.given(pmf, i, factor) for i, pmf in enumerate(stages)]
        return total(parts, factor.weights)

    def left(self, stages: list[Floats], progress: Progress) -> Floats:
        """What remains of one order, shape [1, minutes]; all of it in minute 0 when it is over."""
        stages = [pmf.astype(np.float64) for pmf in stages]  # what is left may be little
        done = len(progress.took)
        if done == len(self.stages):
            return np.ones((1, 1), np.float32)
        factor = self._factor(stages, progress)
        parts = [
            self.dependence.given(pmf, done + i, factor) for i, pmf in enumerate(stages[done:])
        ]
        running, tail_from = parts[0][:, 0, :], self.stages[done].minutes
        rest, survived = remaining(running, progress.elapsed, tail_from)
        weights = factor.weights * np.maximum(survived, 1e-9)
        return total([rest[:, None, :], *parts[1:]], weights / weights.sum())

    def _factor(self, stages: list[Floats], progress: Progress) -> Factor:
        scores = {
            i: normal_scores(stages[i], np.array([minutes]))[0]
            for i, minutes in enumerate(progress.took)
        }
        return self.dependence.after(scores)


def normal_scores(pmf: Floats, minutes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Φ⁻¹ of the probability of at most so many minutes, by row."""
    below, rows = cumulative(pmf), np.arange(len(pmf))
    at = np.clip(minutes, 0, pmf.shape[1] - 1e-6)
    low = at.astype(np.int64)
    share = below[rows, low] + (at - low) * pmf[rows, low]
    found: NDArray[np.float64] = ndtri(np.clip(share.astype(np.float64), 1e-4, 1 - 1e-4))
    return found
