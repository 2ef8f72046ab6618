"""Small indexes for tests."""

import numpy as np

from madang_candidate.ann import AnnIndex, build_ann
from madang_candidate.cells import delivery_cells
from madang_candidate.index import ItemIndex, TrainedItems, pack_columns, unpack_columns

SEOUL = (37.5665, 126.9780)


def unit(n, d, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_index(n=50, radius=3.0, exact_below=1000, vectors=None):
    rng = np.random.default_rng(1)
    places = np.array(SEOUL) + rng.normal(0, 0.01, (n, 2))
    vectors = unit(n, 8) if vectors is None else vectors
    columns = {
        "ids": np.array([f"i{i}".encode() for i in range(n)]),
        "codes": np.arange(1, n + 1),
        "kinds": np.where(np.arange(n) % 5 == 0, 2, 1).astype(np.uint8),
        "vectors": vectors,
        "open_hours": np.where(np.arange(n) % 2 == 0, 1 << 12, (1 << 24) - 1).astype(np.uint32),
        **delivery_cells(places, np.full(n, radius), 8),
    }
    ann = AnnIndex(build_ann(vectors))
    return ItemIndex(TrainedItems(unpack_columns(pack_columns(columns)), 8, ann), exact_below)
