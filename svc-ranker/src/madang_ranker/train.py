"""Trains the DCN and exports it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from madang_ranker.model import Dcn, DcnConfig, Probabilities
from madang_ranker.optimiser import adam
from madang_runtime.models.batches import batch_size, batches, count_steps
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.manifest import FeatureRef
from madang_runtime.models.onnx_export import Example, export_onnx

Ints = NDArray[np.int64]
_MOST_SHRINK = 1e-2


@dataclass(frozen=True)
class DcnExamples:
    """n impressions of m sessions.

    Attributes:
        users, items: feature rows that `user_row` and `item_row` point into.
        context: m rows.
        user_row: of each session, [m].
        session, item_row: of each impression, [n].
        clicked, ordered, hidden: of each impression, [n]; an order follows a click.
    """

    users: InputRows
    items: InputRows
    context: InputRows
    user_row: Ints
    session: Ints
    item_row: Ints
    clicked: NDArray[np.bool_]
    ordered: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


@dataclass(frozen=True)
class DcnTraining:
    """How to train.

    Attributes:
        batch: impressions of a step, at most.
        steps: of an epoch, about; of few impressions fewer, as batches have 32 at least.
        shrink_by_rows: over the number of impressions (drawn ones included) it is the weight decay
            of the embeddings, 0.01 at most: the fewer there are, the more is learned by rote.
    """

    epochs: int = 2
    batch: int = 4096
    steps: int = 300
    learning_rate: float = 2e-3
    weight_decay: float = 1e-6
    shrink_by_rows: float = 1.0
    seed: int = 7

    def size(self, rows: int) -> int:
        """Impressions of a step, of so many."""
        return batch_size(rows, self.steps, self.batch)

    def shrink(self, rows: int) -> float:
        """The embeddings' weight decay, of so many impressions."""
        return min(self.shrink_by_rows / rows, _MOST_SHRINK)

    def in_words(self, rows: int) -> str:
        """What is chosen for so many impressions."""
        return (
            f"epochs {self.epochs}, batches of {self.size(rows):,}, "
            f"weight decay of the embeddings {self.shrink(rows):.2g}"
        )


def train(
    examples: DcnExamples,
    config: DcnConfig,
    features: list[FeatureRef],
    views: tuple[str, str],
    how: DcnTraining = DcnTraining(),
    progress: Callable[[float], None] = lambda _: None,
) -> Dcn:
    """Train a DCN; `views` names the user and the item view."""
    torch.manual_seed(how.seed)
    rng = np.random.default_rng(how.seed)
    model = Dcn(config, features, views)
    n = len(examples.session)
    size = how.size(n)
    total = count_steps(n, size, how.epochs)
    optimiser = adam(model, how.learning_rate, how.shrink(n), how.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, how.learning_rate, total_steps=total + 1
    )
    done = np.stack([examples.clicked, examples.ordered, examples.hidden], axis=1)
    outcomes = torch.from_numpy(done).float()
    model.train()
    for step, batch in enumerate(batches(rng, n, size, how.epochs), 1):
        loss = _loss(model(*tensors(examples, batch)), outcomes[batch])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(min(1.0, step / total))
    return model.eval()


def tensors(examples: DcnExamples, batch: Ints) -> tuple[Tensor, ...]:
    """The arguments of `Dcn.forward` for some impressions, each a request of its own."""
    session = examples.session[batch]
    user, item = examples.user_row[session], examples.item_row[batch]
    arrays = (
        examples.users.ints[user],
        examples.users.floats[user],
        examples.context.ints[session],
        examples.context.floats[session],
        examples.items.ints[item],
        examples.items.floats[item],
        np.arange(len(batch)),
    )
    return tuple(map(torch.from_numpy, arrays))


def _loss(logits: Tensor, outcomes: Tensor) -> Tensor:
    """Cross entropy of the click, of the order among the clicked, and of hiding."""
    weight = torch.ones_like(outcomes)
    weight[:, 1] = outcomes[:, 0]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, outcomes, weight=weight, reduction="sum"
    )
    return loss / len(outcomes)


def predict(model: Dcn, examples: DcnExamples) -> NDArray[np.float32]:
    """P(click), P(order) and P(hide) of all n impressions, shape [n, 3]."""
    rows = np.arange(len(examples.session))
    served = Probabilities(model)
    with torch.no_grad():
        parts = [
            torch.stack(served(*tensors(examples, rows[at : at + 8192])), dim=1).numpy()
            for at in range(0, len(rows), 8192)
        ]
    return np.concatenate(parts)


def export(model: torch.nn.Module, examples: DcnExamples) -> bytes:
    """A DCN, or what takes its arguments, as ONNX; inputs are named as in `Dcn.forward`, outputs
    `click`, `order`, `hide`."""
    users, context, items = examples.users, examples.context, examples.items
    inputs = {
        "user_ints": Example(users.ints[:2], ["requests"]),
        "user_floats": Example(users.floats[:2], ["requests"]),
        "context_ints": Example(context.ints[:2], ["requests"]),
        "context_floats": Example(context.floats[:2], ["requests"]),
        "item_ints": Example(items.ints[:3], ["rows"]),
        "item_floats": Example(items.floats[:3], ["rows"]),
        "segment": Example(np.array([0, 1, 1]), ["rows"]),
    }
    return export_onnx(Probabilities(model), inputs, ["click", "order", "hide"])
