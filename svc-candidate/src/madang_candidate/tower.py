"""What the registry holds of a two-tower model, loaded."""

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import serving_info_pb2
from madang_candidate.ads import AdNetworks
from madang_candidate.ann import AnnIndex
from madang_candidate.index import ItemIndex, TrainedItems, unpack_columns
from madang_candidate.popularity import Popularity
from madang_runtime.models.context import Clock, context_row
from madang_runtime.models.inputs import InputRows, ViewInputs
from madang_runtime.models.onnx_backend import OnnxBackend
from madang_runtime.models.registry import ModelFiles

Floats = NDArray[np.float32]


class TowerBundle:
    """Towers, items and popularity of one version: they belong together and swap together.

    Files: `model.onnx` (the user tower), `items.onnx` (the item tower), `items.npz`, `ann.faiss`,
    `popular.npz`; and where there are ads, `ad_query.onnx` and `ads.onnx`. Parameters: `user_view`,
    `item_view`, `h3_resolution`, `utc_offset_hours`, `time_slots`.

    Attributes:
        index: the items that the version was trained on.
        ads: the networks of ads, None where there are none.
    """

    def __init__(self, model: ModelFiles, *, threads: int, exact_below: int) -> None:
        parameters = model.manifest.parameters
        self.version = serving_info_pb2.ModelVersion(
            name=model.manifest.name, version=model.manifest.version
        )
        self.manifest = model.manifest
        self.clock = Clock(parameters["utc_offset_hours"])
        self.user_inputs = ViewInputs(parameters["user_view"], model.manifest.features)
        self.item_inputs = ViewInputs(parameters["item_view"], model.manifest.features)
        trained = TrainedItems(
            unpack_columns(model.files["items.npz"]),
            parameters["h3_resolution"],
            AnnIndex(model.files["ann.faiss"]),
        )
        self.index = ItemIndex(trained, exact_below)
        self.popularity = Popularity(
            unpack_columns(model.files["popular.npz"]), parameters["time_slots"]
        )
        self._backend = OnnxBackend(model.files["model.onnx"], threads)
        self._items = OnnxBackend(model.files["items.onnx"], threads)
        self.ads = (
            AdNetworks(model.files["ad_query.onnx"], model.files["ads.onnx"], threads)
            if "ads.onnx" in model.files
            else None
        )
        self.user_vectors(self.user_inputs.defaults(1), self.context(0, 0.0, 0.0))  # warm up

    def context(self, time_ms: int, latitude: float, longitude: float) -> InputRows:
        """The context row of a request."""
        return context_row(time_ms, latitude, longitude, self.clock)

    def user_vectors(self, users: InputRows, context: InputRows) -> Floats:
        """Vectors of n users, each in a context of its own, shape [n, d]."""
        vectors: Floats = self._backend.run(
            {
                "user_ints": users.ints,
                "user_floats": users.floats,
                "context_ints": context.ints,
                "context_floats": context.floats,
            }
        )["vector"]
        return vectors

    def item_vectors(self, items: InputRows) -> Floats:
        """Vectors of n items, shape [n, d]."""
        vectors: Floats = self._items.run({"ints": items.ints, "floats": items.floats})["vector"]
        return vectors
