"""Trains the embedding networks of ads.

Loss: preference loss, the cross entropy of clicks by a small network over both vectors, plus
similarity loss, their cross entropy by the cosine alone: a click pulls the (user, context) vector
and the ad's together, none pushes them apart. Items drawn at random count as not clicked in the
latter, since impressions only tell apart what was worth showing at the place. Only the vectors are
served.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from madang_candidate.ad_model import AdNetwork, Preference, QueryNetwork
from madang_candidate.model import TowerConfig
from madang_candidate.train import Ints
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.manifest import FeatureRef


@dataclass(frozen=True)
class AdExamples:
    """n impressions.

    Attributes:
        users, items: feature rows that `user_row` and `item_row` point into.
        context: n rows.
        clicked: of each impression, [n].
        catalogue: rows of `items` that are drawn at random, one an item.
    """

    users: InputRows
    items: InputRows
    user_row: Ints
    item_row: Ints
    context: InputRows
    clicked: NDArray[np.bool_]
    catalogue: Ints


@dataclass(frozen=True)
class AdTraining:
    """How to train.

    Attributes:
        drawn: items drawn at random for a batch.
        drawn_weight: of their loss beside that of the impressions.
    """

    epochs: int = 2
    batch: int = 1024
    drawn: int = 256
    drawn_weight: float = 3.0
    learning_rate: float = 3e-3
    weight_decay: float = 1e-5
    seed: int = 7


@dataclass(frozen=True)
class TrainedAds:
    """The networks that serve."""

    query: QueryNetwork
    ad: AdNetwork


class _Similarity(nn.Module):
    """Logits of a click from cosines."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(16.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, cosines: Tensor) -> Tensor:
        logits: Tensor = self.scale * cosines + self.bias
        return logits


def train_ads(
    examples: AdExamples,
    config: TowerConfig,
    features: list[FeatureRef],
    views: tuple[str, str],
    how: AdTraining = AdTraining(),
    progress: Callable[[float], None] = lambda _: None,
) -> TrainedAds:
    """Train the networks; `views` names the user and the item view."""
    torch.manual_seed(how.seed)
    rng = np.random.default_rng(how.seed)
    query = QueryNetwork(config, features, views[0])
    ad = AdNetwork(config, features, views[1], query)
    query.standardise.fit(query.numbers_of(torch.from_numpy(examples.users.floats)))
    ad.standardise.fit(ad.numbers_of(torch.from_numpy(examples.items.floats)))
    preference, similarity = Preference(config), _Similarity()
    parameters = {p for part in (query, ad, preference, similarity) for p in part.parameters()}
    optimiser = torch.optim.Adam(
        parameters, lr=how.learning_rate, weight_decay=how.weight_decay, foreach=True
    )
    n = len(examples.clicked)
    steps = how.epochs * max(1, n // how.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, how.learning_rate, total_steps=steps + 1
    )
    clicked = torch.from_numpy(examples.clicked).float()
    for step in range(steps):
        batch = rng.integers(0, n, how.batch)
        drawn = rng.choice(examples.catalogue, how.drawn)
        asked, shown = _vectors(query, ad, examples, batch)
        others = ad(*_tensors(examples.items, drawn))
        loss = (
            _cross_entropy(preference(asked, shown), clicked[batch])
            + _cross_entropy(similarity((asked * shown).sum(1)), clicked[batch])
            + how.drawn_weight * nn.functional.softplus(similarity(asked @ others.T)).mean()
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress((step + 1) / steps)
    return TrainedAds(query.eval(), ad.eval())


def _vectors(
    query: QueryNetwork, ad: AdNetwork, examples: AdExamples, rows: Ints
) -> tuple[Tensor, Tensor]:
    user = _tensors(examples.users, examples.user_row[rows])
    context = _tensors(examples.context, rows)
    return query(*user, *context), ad(*_tensors(examples.items, examples.item_row[rows]))


def _tensors(inputs: InputRows, rows: Ints) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(inputs.ints[rows]), torch.from_numpy(inputs.floats[rows])


def _cross_entropy(logits: Tensor, clicked: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, clicked)
