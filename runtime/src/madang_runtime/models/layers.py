"""Torch layers that the models share. Only a service's `model.py` imports this file."""

import torch
from torch import Tensor, nn

WIDEST = 10.0
"""Standardised numbers beyond it are errors of the data; they must not drown the rest."""
_MOST_COUNTS = 1e4


class Codes(nn.Embedding):
    """An embedding that reads codes outside its vocabulary as 0, unknown.

    Args:
        codes: size of the vocabulary.
        dimension: of a vector.
        std: of the first weights.
    """

    def __init__(self, codes: int, dimension: int, std: float) -> None:
        super().__init__(codes, dimension)
        nn.init.normal_(self.weight, std=std)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Codes of any shape → vectors."""
        return super().forward(self.known(input))

    def known(self, codes: Tensor) -> Tensor:
        """The codes, 0 in place of those outside the vocabulary."""
        inside = (codes >= 0) & (codes < self.num_embeddings)
        return torch.where(inside, codes, torch.zeros_like(codes))


class Forget(nn.Module):
    """Now and then in training, reads a known code as 0, so that the model learns what to expect
    of one that it has never seen."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def forward(self, codes: Tensor) -> Tensor:
        """Codes of any shape → codes."""
        if not self.training:
            return codes
        return torch.where(torch.rand(codes.shape) < self._share, torch.zeros_like(codes), codes)


def pooled(vectors: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over axis 1; zero where no weight is.

    Args:
        vectors: [n, k, d].
        weights: [n, k], not negative.
    """
    total = weights.sum(1, keepdim=True).clamp(min=1e-6)
    return (vectors * (weights / total).unsqueeze(2)).sum(1)


def count_weights(floats: Tensor) -> Tensor:
    """Counts as weights: no value counts 0, and none is absurdly large."""
    return torch.relu(torch.nan_to_num(floats)).clamp(max=_MOST_COUNTS)


def recency_weights(codes: Tensor) -> Tensor:
    """Weights of a list of codes [n, k], latest first: 0.7 to the power of the place, 0 where
    nothing is."""
    return (codes > 0) * 0.7 ** torch.arange(codes.shape[1], dtype=torch.float32)
