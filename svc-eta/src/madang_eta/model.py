"""The network of one stage: a classifier over minutes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_WIDEST = 5.0


class StageNet(nn.Module):
    """Several networks of one stage, of which the mean is taken.

    Args:
        mean, scale: of each input column, shape [columns].
        classes: minutes and the tail.
        hidden: sizes of the layers.
        members: how many networks.
        dropout: share of what a layer says that is left out in training.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        mean: Tensor,
        scale: Tensor,
        classes: int,
        hidden: Sequence[int],
        members: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.members = nn.ModuleList(
            _member(len(mean), classes, hidden, dropout) for _ in range(members)
        )

    def normal(self, inputs: Tensor) -> Tensor:
        """Inputs in units of their spread, 0 where nothing is known, shape [n, columns]."""
        known = torch.where(torch.isnan(inputs), self.mean, inputs)
        return torch.clamp((known - self.mean) / self.scale, -_WIDEST, _WIDEST)

    def forward(self, inputs: Tensor) -> Tensor:
        """Probabilities of each minute and of longer, shape [n, classes]."""
        normal = self.normal(inputs)
        parts = [torch.softmax(member(normal), dim=1) for member in self.members]
        return torch.stack(parts).mean(0)


def _member(columns: int, classes: int, hidden: Sequence[int], dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(columns, size), nn.SiLU(), nn.Dropout(dropout)]
        columns = size
    return nn.Sequential(*layers, nn.Linear(columns, classes))


def crps(probabilities: Tensor, minutes: Tensor) -> Tensor:
    """The ranked probability score of each row, in minutes: Σₖ (P(T < k) - 1{t < k})² over the ends
    of the minutes (Epstein, "A scoring system for probability forecasts of ranked categories",
    1969).

    Args:
        probabilities: shape [n, minutes + tail].
        minutes: what it took, shape [n].
    """
    below = probabilities[:, :-1].cumsum(1)
    ends = torch.arange(1, below.shape[1] + 1, dtype=minutes.dtype)
    over = (minutes[:, None] < ends).to(below.dtype)
    return ((below - over) ** 2).sum(1)
