"""Approximate nearest neighbours by faiss."""

import faiss
import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

_NEIGHBOURS = 32
_BUILD_EFFORT = 80
_SEARCH_EFFORT = 128


def build_ann(vectors: Floats) -> bytes:
    """Build an HNSW index over vectors of shape [n, d] and serialise it."""
    index = faiss.IndexHNSWFlat(vectors.shape[1], _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BUILD_EFFORT
    index.add(vectors)
    content: bytes = faiss.serialize_index(index).tobytes()
    return content


class AnnIndex:
    """A loaded index."""

    def __init__(self, content: bytes) -> None:
        self._index = faiss.deserialize_index(np.frombuffer(content, np.uint8))

    def search(self, vector: Floats, allowed: Rows | None, k: int) -> tuple[Rows, Floats]:
        """About the k items of largest dot product, best first; None allows all."""
        parameters = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
            efSearch=max(_SEARCH_EFFORT, k)
        )
        if allowed is not None:
            parameters.sel = faiss.IDSelectorBatch(allowed)
        scores, rows = self._index.search(vector[None, :], k, params=parameters)
        found = rows[0] >= 0
        return rows[0][found], scores[0][found]
