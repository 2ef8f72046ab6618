"""Adam, with a weight decay of its own for embeddings."""

from typing import Any, Protocol

import torch
from torch import nn


class Embedded(Protocol):
    """A network that knows its embeddings."""

    def parameters(self) -> Any:
        """All its weights."""

    def embeddings(self) -> list[nn.Parameter]:
        """Those of embeddings."""


def adam(
    model: Embedded, learning_rate: float, shrink: float, weight_decay: float = 0.0
) -> torch.optim.Adam:
    """Adam over a network's weights.

    Args:
        shrink: weight decay of the embeddings. Through Adam even a small one takes back what seldom
            used embeddings have learned by rote.
        weight_decay: of the other weights.
    """
    embeddings = model.embeddings()
    rest = [p for p in model.parameters() if all(p is not e for e in embeddings)]
    groups: list[dict[str, Any]] = [
        {"params": embeddings, "weight_decay": shrink},
        {"params": rest, "weight_decay": weight_decay},
    ]
    return torch.optim.Adam(groups, lr=learning_rate, foreach=True)
