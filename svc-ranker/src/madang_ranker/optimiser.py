"""Adam, with a weight decay of its own for embeddings."""

from typing import Any

import torch
from torch import nn

from madang_runtime.models.layers import Codes


def adam(
    model: nn.Module, learning_rate: float, shrink: float, weight_decay: float = 0.0
) -> torch.optim.Adam:
    """Adam over a network's weights.

    Args:
        shrink: weight decay of the embeddings (`Codes`). Through Adam even a small one takes back
            what seldom used embeddings have learned by rote.
        weight_decay: of the other weights.
    """
    codes = [m.weight for m in model.modules() if isinstance(m, Codes)]
    rest = [p for p in model.parameters() if all(p is not c for c in codes)]
    groups: list[dict[str, Any]] = [
        {"params": codes, "weight_decay": shrink},
        {"params": rest, "weight_decay": weight_decay},
    ]
    return torch.optim.Adam(groups, lr=learning_rate, foreach=True)
