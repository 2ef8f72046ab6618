"""Trains the two towers and exports what svc-candidate loads.

Loss: sampled softmax over in-batch and uniform negatives with the logQ correction (Yi et al.,
"Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019; the
mixed negatives of Yang et al., "Mixed negative sampling for learning two-tower neural networks in
recommendations", WWW 2020).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from madang_candidate.model import ItemTower, TowerConfig, UserTower
from madang_runtime.models.batches import batch_size, batches, count_steps
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.manifest import FeatureRef
from madang_runtime.models.onnx_export import Example, export_onnx

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TowerExamples:
    """n positives.

    Attributes:
        users, items: feature rows that `user_row` and `item_row` point into.
        context: n rows.
        catalogue: rows of `items` that uniform negatives are drawn from, one an item.
    """

    users: InputRows
    items: InputRows
    user_row: Ints
    item_row: Ints
    context: InputRows
    catalogue: Ints


@dataclass(frozen=True)
class TowerTraining:
    """How to train.

    Attributes:
        batch: positives of a step, at most.
        steps: of an epoch, about; of few positives fewer, as batches have 32 at least.
        temperature: logits are cosines divided by it.
    """

    epochs: int = 8
    batch: int = 1024
    steps: int = 75
    uniform_negatives: int = 512
    temperature: float = 0.07
    learning_rate: float = 3e-3
    weight_decay: float = 1e-5
    seed: int = 7

    def size(self, rows: int) -> int:
        """Positives of a step, of so many."""
        return batch_size(rows, self.steps, self.batch)

    def in_words(self, rows: int) -> str:
        """What is chosen for so many positives."""
        return f"epochs {self.epochs}, batches of {self.size(rows):,}"


@dataclass(frozen=True)
class Towers:
    """A trained pair: `UserTower` and `ItemTower`, or what takes their arguments."""

    user: torch.nn.Module
    item: torch.nn.Module


def train(
    examples: TowerExamples,
    config: TowerConfig,
    features: list[FeatureRef],
    views: tuple[str, str],
    how: TowerTraining = TowerTraining(),
    progress: Callable[[float], None] = lambda _: None,
) -> Towers:
    """Train the towers; `views` names the user and the item view."""
    torch.manual_seed(how.seed)
    rng = np.random.default_rng(how.seed)
    user_tower = UserTower(config, features, views[0])
    item_tower = ItemTower(config, features, views[1], user_tower)
    data = _tensors(examples)
    user_tower.standardise.fit(user_tower.numbers_of(data.user_floats))
    item_tower.standardise.fit(item_tower.numbers_of(data.item_floats))
    parameters = {*user_tower.parameters(), *item_tower.parameters()}
    optimiser = torch.optim.Adam(
        parameters, lr=how.learning_rate, weight_decay=how.weight_decay, foreach=True
    )
    n = len(examples.user_row)
    size = how.size(n)
    total = count_steps(n, size, how.epochs)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, how.learning_rate, total_steps=total + 1
    )
    share = np.bincount(data.item_code[examples.item_row], minlength=config.items) / n
    for step, batch in enumerate(batches(rng, n, size, how.epochs), 1):
        negatives = rng.choice(examples.catalogue, how.uniform_negatives)
        loss = _loss(data, batch, negatives, user_tower, item_tower, share, how, examples)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(min(1.0, step / total))
    return Towers(user_tower.eval(), item_tower.eval())


@dataclass(frozen=True)
class _Data:
    user_ints: Tensor
    user_floats: Tensor
    item_ints: Tensor
    item_floats: Tensor
    context_ints: Tensor
    context_floats: Tensor
    item_code: Ints


def _tensors(examples: TowerExamples) -> _Data:
    return _Data(
        torch.from_numpy(examples.users.ints),
        torch.from_numpy(examples.users.floats),
        torch.from_numpy(examples.items.ints),
        torch.from_numpy(examples.items.floats),
        torch.from_numpy(examples.context.ints),
        torch.from_numpy(examples.context.floats),
        examples.items.ints[:, 0],
    )


def _loss(
    data: _Data,
    batch: Ints,
    negatives: Ints,
    user_tower: UserTower,
    item_tower: ItemTower,
    share: NDArray[np.float64],
    how: TowerTraining,
    examples: TowerExamples,
) -> Tensor:
    user_rows = examples.user_row[batch]
    users = user_tower(
        data.user_ints[user_rows],
        data.user_floats[user_rows],
        data.context_ints[batch],
        data.context_floats[batch],
    )
    item_rows = np.concatenate([examples.item_row[batch], negatives])
    codes = data.item_code[item_rows]
    vectors = item_tower(data.item_ints[item_rows], data.item_floats[item_rows])
    # An item is drawn into a batch as a positive or uniformly: Q is the mixture of both.
    b, u = len(batch), len(negatives)
    q = (b * share[codes] + u / len(examples.catalogue)) / (b + u)
    logits = users @ vectors.T / how.temperature - torch.from_numpy(np.log(q)).float()
    same = torch.from_numpy(codes[None, :] == codes[:b, None])
    same[torch.arange(b), torch.arange(b)] = False
    logits = logits.masked_fill(same, -1e9)
    return torch.nn.functional.cross_entropy(logits, torch.arange(b))


def item_vectors(network: torch.nn.Module, items: InputRows) -> Floats:
    """The vectors that a network of items (or ads) gives, float32, shape [n, dimension], of length
    1."""
    with torch.no_grad():
        vectors = network(torch.from_numpy(items.ints), torch.from_numpy(items.floats))
    array: Floats = vectors.numpy()
    return array


def export_users(network: torch.nn.Module, users: InputRows, context: InputRows) -> bytes:
    """A network of users in their contexts as ONNX; inputs are named as the arguments of its
    `forward`. The rows only show their shapes."""
    return _export(
        network,
        {
            "user_ints": users.ints,
            "user_floats": users.floats,
            "context_ints": context.ints,
            "context_floats": context.floats,
        },
    )


def export_items(network: torch.nn.Module, items: InputRows) -> bytes:
    """A network of items (or ads) as ONNX: `ints` and `floats` → `vector`. The rows only show their
    shapes."""
    return _export(network, {"ints": items.ints, "floats": items.floats})


def _export(network: torch.nn.Module, inputs: dict[str, NDArray[np.generic]]) -> bytes:
    examples = {name: Example(rows[:2]) for name, rows in inputs.items()}
    return export_onnx(network, examples, ["vector"])
