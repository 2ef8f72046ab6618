"""Text → token ids, by any `tokenizer.json`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Ids = NDArray[np.int64]


class TextTokens:
    """Token ids of texts.

    Args:
        content: of a `tokenizer.json` (Hugging Face tokenizers).
        longest: tokens at which a text is cut.
    """

    def __init__(self, content: bytes, longest: int) -> None:
        self._tokenizer = Tokenizer.from_buffer(content)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(longest)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, with those that mark its begin and end."""
        return [found.ids for found in self._tokenizer.encode_batch_fast(list(texts))]


def padded(ids: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Ids of n texts as a matrix [n, longest], and a mask of the same shape: 1 where one is."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
    matrix = np.zeros(mask.shape, np.int64)
    matrix[mask] = np.concatenate(ids) if len(ids) else 0
    return matrix, mask.astype(np.int64)
