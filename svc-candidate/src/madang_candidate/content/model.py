"""A version of the content towers, as it serves."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from madang_candidate.index import ItemIndex, TrainedItems, unpack_columns
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.onnx_backend import OnnxBackend
from madang_runtime.models.registry import ModelFiles
from madang_runtime.text.encoder import Encoder

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
CONTENT = "shop-content"
QUERY, SHOPS = "query.onnx", "shops.npz"


class ContentModel:
    """Queries and shops in one space.

    A version holds `query.onnx` (`text`, a vector of the sentence encoder [n, d], to `vector`,
    [n, width], length 1) and `shops.npz` (`ids` S, `vectors` f4 [s, width], length 1). Its
    parameter `search-encoder` is the version of the encoder that it was trained with.

    Args:
        files: the version.
        encoder: that it was trained with.
        threads: of an operator.
    """

    def __init__(self, files: ModelFiles, encoder: Encoder, threads: int) -> None:
        self._encoder = encoder
        self._query = OnnxBackend(files.files[QUERY], threads)
        columns = unpack_columns(files.files[SHOPS])
        ids: list[str] = [i.decode() for i in columns["ids"].tolist()]
        self._row_of = {item_id: row for row, item_id in enumerate(ids)}
        vectors = columns["vectors"].astype(np.float32)
        # The last row is that of items which the version does not know.
        self._vectors: Floats = np.concatenate([vectors, np.zeros_like(vectors[:1])])
        self._of_trained = lru_cache(2)(self._rows_of_trained)
        # A search counts for an hour, in each feed of that hour.
        self.query = lru_cache(4096)(self._vector)
        self.query("warm up")

    def _vector(self, text: str) -> Floats:
        """The vector of a query, [width]."""
        vector: Floats = self._query.run({"text": self._encoder.encode([text])})["vector"][0]
        return vector

    def vectors(self, index: ItemIndex, rows: Rows) -> Floats:
        """Vectors of an index's items, [n, width]; zeros for those that the version lacks."""
        trained = rows < len(index.trained)
        found = np.empty(len(rows), np.int64)
        found[trained] = self._of_trained(index.trained)[rows[trained]]
        found[~trained] = [self._row_of.get(index.ids[row], -1) for row in rows[~trained].tolist()]
        vectors: Floats = self._vectors[found]
        return vectors

    def _rows_of_trained(self, items: TrainedItems) -> Rows:
        return np.array([self._row_of.get(item_id, -1) for item_id in items.ids], np.int64)


def no_content() -> ContentModel:
    """Where there are no content towers. Raises: MadangError MODEL_NOT_FOUND."""
    raise MadangError(
        Code.NOT_FOUND, reason.ERROR_REASON_MODEL_NOT_FOUND, "there are no content towers"
    )
