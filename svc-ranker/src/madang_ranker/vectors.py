"""In the DCN's place where a user's and an item's vector say all that is known. Not imported by
serving."""

import torch
from torch import Tensor, nn

_SURE = 30.0


class VectorRanker(nn.Module):
    """Log odds of a click by a dot product; whoever clicks orders, and nobody hides.

    Args:
        user: makes vectors [requests, d] of a user and a context, as `Dcn.forward` has them.
        item: makes vectors [rows, d] of items.
        slope, intercept: of the log odds.
    """

    def __init__(self, user: nn.Module, item: nn.Module, slope: float, intercept: float) -> None:
        super().__init__()
        self._user, self._item = user, item
        self._slope, self._intercept = slope, intercept

    def forward(self, *inputs: Tensor) -> Tensor:
        """From the arguments of `Dcn.forward`, what it returns."""
        *of_user, item_ints, item_floats, segment = inputs
        dots = (self._user(*of_user)[segment] * self._item(item_ints, item_floats)).sum(1)
        clicked = self._slope * dots + self._intercept
        sure = torch.full_like(dots, _SURE)
        return torch.stack([clicked, sure, -sure], dim=1)
