"""The towers of queries and shops, in torch. Not imported by serving."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's name

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_WIDTH, _HIDDEN = 64, 128
_MARGIN = 1.0


@dataclass(frozen=True)
class Shops:
    """s shops.

    Attributes:
        text: vectors of name and menu, [s, d].
        price: log of the price, standardised, 0 where there is none; and whether there is: [s, 2].
        popularity: orders, [s].
    """

    text: Floats
    price: Floats
    popularity: Floats


@dataclass(frozen=True)
class ContentTraining:
    """How to train."""

    epochs: int = 8
    batch: int = 128
    learning_rate: float = 1e-3
    seed: int = 0


class ContentTowers(nn.Module):
    """Vectors of texts → vectors of length 1, in which a query is near the shops that answer it.

    Both begin with the same projection, which keeps what is alike in text alike.

    Args:
        dimension: of the vectors of texts.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, _WIDTH, bias=False)
        nn.init.orthogonal_(self.query.weight)
        self.shop = nn.Linear(dimension, _WIDTH, bias=False)
        self.shop.weight.data.copy_(self.query.weight.data)
        last = nn.Linear(_HIDDEN, _WIDTH)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.more = nn.Sequential(nn.Linear(dimension + 2, _HIDDEN), nn.ReLU(), last)

    def of_queries(self, text: Tensor) -> Tensor:
        """[n, d] → [n, width]."""
        return F.normalize(self.query(text), dim=1)

    def forward(self, text: Tensor) -> Tensor:
        """As `of_queries`: what is served."""
        return self.of_queries(text)

    def of_shops(self, text: Tensor, price: Tensor) -> Tensor:
        """[n, d], [n, 2] → [n, width]."""
        more = self.more(torch.cat([text, price], dim=1))
        return F.normalize(self.shop(text) + more, dim=1)


def train_content(
    queries: Floats,
    ordered: Ints,
    shops: Shops,
    training: ContentTraining,
    progress: Callable[[float], None] = lambda share: None,
) -> ContentTowers:
    """Learn from what was ordered after a search, by triplets (Schroff et al. 2015,
    arXiv:1503.03832): the shop that was ordered from is nearer to the query, by a margin, than one
    drawn by popularity.

    Args:
        queries: vectors of the texts that were searched for, [n, d].
        ordered: rows of the shops, [n].
    """
    torch.manual_seed(training.seed)
    random = np.random.default_rng(training.seed)
    towers = ContentTowers(queries.shape[1])
    steps = training.epochs * -(-len(ordered) // training.batch)
    optimizer = torch.optim.AdamW(towers.parameters(), training.learning_rate, weight_decay=0.01)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    chance = (shops.popularity + 1) / (shops.popularity + 1).sum()
    text, price = torch.from_numpy(shops.text), torch.from_numpy(shops.price)
    done = 0
    for _ in range(training.epochs):
        order = random.permutation(len(ordered))
        for rows in np.array_split(order, -(-len(order) // training.batch)):
            drawn = random.choice(len(chance), len(rows), p=chance)
            own = towers.of_queries(torch.from_numpy(queries[rows]))
            near, far = (
                towers.of_shops(text[torch.from_numpy(at)], price[torch.from_numpy(at)])
                for at in (ordered[rows], drawn)
            )
            loss = F.triplet_margin_loss(own, near, far, margin=_MARGIN)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            falling.step()
            done += 1
            progress(done / steps)
    return towers.eval()
