"""A version of the keywords, as it serves."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import serving_info_pb2
from madang_runtime.models.onnx_backend import OnnxBackend
from madang_runtime.models.registry import ModelFiles
from madang_search.analysis import normal

Floats = NDArray[np.float32]
MODEL, VOCABULARY = "model.onnx", "vocabulary.json"


class Step(NamedTuple):
    """An action: its kind, by number in the feature store, and its node."""

    kind: int
    node: int


def keyword_text(query: str) -> str:
    """A query as a keyword: in small letters, one space between words."""
    return " ".join(normal(query).lower().split())


def keyword_code(text: str) -> int:
    """The number of a keyword in features, the same in every version; never 0."""
    digest = blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 1) | 1


class KeywordModel:
    """What a user will search for, by what they just did.

    A version holds `model.onnx` (`nodes` and `kinds`, int64 [n, longest], to `scores`, float32
    [n, K]) and `vocabulary.json`: `keywords`, the most searched first, `popularity`, searches for
    each, and `items`. Node 0 is nothing; the keywords follow, then the items.

    Attributes:
        version: as answers name it.
        keywords: K texts.
        shares: of the searches, [K].

    Args:
        files: the version; its parameter is `longest`.
        threads: of an operator.
    """

    def __init__(self, files: ModelFiles, threads: int) -> None:
        vocabulary = json.loads(files.files[VOCABULARY])
        manifest = files.manifest
        self.version = serving_info_pb2.ModelVersion(name=manifest.name, version=manifest.version)
        self.keywords: list[str] = vocabulary["keywords"]
        popularity = np.array(vocabulary["popularity"], np.float32)
        self.shares: Floats = popularity / max(popularity.sum(), 1)
        self._longest = int(manifest.parameters["longest"])
        self._backend = OnnxBackend(files.files[MODEL], threads)
        self._row = {text: row for row, text in enumerate(self.keywords)}
        self._row_of_code = {keyword_code(text): row for text, row in self._row.items()}
        first = 1 + len(self.keywords)
        self._items = {item: first + at for at, item in enumerate(vocabulary["items"])}
        found = self.probabilities([Step(1, 1)]).shape
        if found != (len(self.keywords),):
            raise ValueError(f"the model scores {found}, there are {len(self.keywords)} keywords")

    @property
    def texts(self) -> list[str]:
        """The keywords."""
        return self.keywords

    def row(self, text: str) -> int | None:
        """The row of a keyword."""
        return self._row.get(text)

    def rows(self, codes: Sequence[int]) -> list[int]:
        """The rows of those keywords that the version has."""
        return [row for code in codes if (row := self._row_of_code.get(code)) is not None]

    def item_node(self, item_id: str) -> int | None:
        """The node of an item."""
        return self._items.get(item_id)

    def probabilities(self, steps: Sequence[Step]) -> Floats:
        """Of each keyword to be searched for next, after actions, the latest last: [K]."""
        latest = steps[-self._longest :]
        nodes, kinds = np.zeros((2, 1, self._longest), np.int64)
        for at, step in enumerate(latest, self._longest - len(latest)):
            nodes[0, at], kinds[0, at] = step.node, step.kind
        scores = self._backend.run({"nodes": nodes, "kinds": kinds})["scores"][0]
        odds = np.exp(scores - scores.max())
        return np.asarray(odds / odds.sum(), np.float32)
