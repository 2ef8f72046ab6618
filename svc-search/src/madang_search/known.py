"""Versions that know texts, and the vectors of these."""

import threading
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np

from madang_runtime.text.encoder import Encoder
from madang_search.bundle import SearchBundle
from madang_search.nearest import Floats


class Known(Protocol):
    """A version of something that was learned of texts."""

    @property
    def texts(self) -> Sequence[str]:
        """They."""

    def __hash__(self) -> int:
        """Each is itself."""


# Weak, as an encoder that serves no more is to be given up with its hundreds of megabytes.
_vectors: WeakKeyDictionary[Encoder, WeakKeyDictionary[Known, Floats]] = WeakKeyDictionary()
_making = threading.Lock()


def known_vectors(encoder: Encoder, known: Known) -> Floats:
    """Vectors of the texts, [n, d]: made when either is loaded."""
    made = _vectors.setdefault(encoder, WeakKeyDictionary())
    if known not in made:
        with _making:  # it takes a second: once, however many ask
            if known not in made:
                made[known] = encoder.encode(known.texts)
    return made[known]


def nearest_known(text: str, known: Known, bundle: SearchBundle, near: float) -> int | None:
    """The row of the text that is nearest to another one; None where none is so near."""
    if not (text and known.texts):
        return None
    vectors = known_vectors(bundle.encoder, known)
    nearest = bundle.nearest(text, vectors, np.ones(len(vectors), bool), 1)
    return int(nearest.rows[0]) if nearest.similarities[0] >= near else None
