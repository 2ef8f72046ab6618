"""Trains a ranker of fields, and exports it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from madang_ranker.fields.model import FieldsConfig, FieldsDcn, Numbers, Served
from madang_ranker.optimiser import adam
from madang_runtime.models.batches import batches, count_steps
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.onnx_export import Example, export_onnx

Floats = NDArray[np.floating]
_PARTS = 16
"""Parts of a number's distribution."""


@dataclass(frozen=True)
class FieldRows:
    """n rows: the fields of the user and the moment, those of the item, and whether it was clicked.

    Attributes:
        user, item: n rows each.
        clicked: shape [n].
    """

    user: InputRows
    item: InputRows
    clicked: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> "FieldRows":
        """Some of them."""
        user, item = (
            InputRows(side.ints[rows], side.floats[rows]) for side in (self.user, self.item)
        )
        return FieldRows(user, item, self.clicked[rows])


@dataclass(frozen=True)
class FieldsTraining:
    """How to train.

    Attributes:
        epochs: at most; the best by AUC on rows held out is kept.
        patience: epochs without a better one after which it ends.
        batch: rows of a step.
        learning_rate: Adam's; a tenth after an epoch that was not better.
        shrink: weight decay of the embeddings.
        seed: of the weights and the order of rows.
    """

    epochs: int = 30
    patience: int = 2
    batch: int = 4096
    learning_rate: float = 1e-3
    shrink: float = 1e-4
    seed: int = 7


@dataclass(frozen=True)
class FieldsTrained:
    """The members, and the AUC and the log loss on the rows held out after each of their epochs."""

    members: list[FieldsDcn]
    history: list[tuple[float, float]]


def train(
    learn: FieldRows,
    held: FieldRows,
    config: FieldsConfig,
    how: FieldsTraining = FieldsTraining(),
    progress: Callable[[float], None] = lambda _: None,
) -> FieldsTrained:
    """Train on rows, and keep what is best on those held out."""
    members, history = [], []
    for number in range(config.members):
        own = replace(how, seed=how.seed + number)

        def told(share: float, number: int = number) -> None:
            progress((number + share) / config.members)

        member, epochs = _member(learn, held, config, own, told)
        members.append(member)
        history += epochs
    return FieldsTrained(members, history)


def _member(
    learn: FieldRows,
    held: FieldRows,
    config: FieldsConfig,
    how: FieldsTraining,
    progress: Callable[[float], None],
) -> tuple[FieldsDcn, list[tuple[float, float]]]:
    torch.manual_seed(how.seed)
    rng = np.random.default_rng(how.seed)
    user, item = (_numbers(side.floats, config.dimension) for side in (learn.user, learn.item))
    model = FieldsDcn(config, user, item)
    optimiser = adam(model, how.learning_rate, how.shrink)
    inputs, clicked = tensors(learn), torch.from_numpy(learn.clicked).float()
    best, kept, worse = -np.inf, copy.deepcopy(model), 0
    history = []
    for epoch in range(how.epochs):
        model.train()
        steps = count_steps(len(clicked), how.batch, epochs=1)
        for at, rows in enumerate(batches(rng, len(clicked), how.batch, epochs=1), 1):
            logits = model(*(column[rows] for column in inputs), torch.arange(len(rows)))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, clicked[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            progress((epoch + at / steps) / how.epochs)
        auc, logged = judge(predict([model], held), held.clicked)
        history.append((auc, logged))
        if auc > best:
            best, kept, worse = auc, copy.deepcopy(model), 0
            continue
        if best < _by_chance(held.clicked):
            continue  # what only pairs of fields tell takes a while to be found
        worse += 1
        if worse >= how.patience:
            break
        for group in optimiser.param_groups:
            group["lr"] /= 10
    progress(1.0)
    return kept.eval(), history


def _by_chance(clicked: NDArray[np.bool_]) -> float:
    """The AUC that one model of forty has that knows nothing (Mann and Whitney 1947)."""
    yes, no = float(clicked.sum()), float((~clicked).sum())
    return 0.5 + 1.96 * float(np.sqrt((yes + no + 1) / (12 * yes * no)))


def _numbers(floats: NDArray[np.float32], dimension: int) -> Numbers | None:
    """How to read the numbers, from the rows to learn from."""
    if not floats.shape[1]:
        return None
    levels = np.linspace(0, 1, _PARTS + 1)[1:-1]
    known = [column[np.isfinite(column)] for column in floats.T]
    known = [column if len(column) else np.zeros(1, np.float32) for column in known]
    edges = np.stack([np.quantile(column, levels) for column in known])
    mean = [column.mean() for column in known]
    scale = [max(column.std(), 1e-6) for column in known]
    return Numbers(
        torch.tensor(edges, dtype=torch.float32),
        torch.tensor(mean, dtype=torch.float32),
        torch.tensor(scale, dtype=torch.float32),
        dimension,
    )


def tensors(rows: FieldRows) -> list[Tensor]:
    """The arguments of `FieldsDcn.forward` but the segment."""
    arrays = (rows.user.ints, rows.user.floats, rows.item.ints, rows.item.floats)
    return [torch.from_numpy(array) for array in arrays]


def predict(members: list[FieldsDcn], rows: FieldRows) -> NDArray[np.float64]:
    """P(click) of n rows, shape [n]."""
    inputs, found = tensors(rows), []
    with torch.no_grad():
        for part in torch.split(torch.arange(len(rows.clicked)), 16_384):
            own = [column[part] for column in inputs]
            segment = torch.arange(len(part))
            logits = torch.stack([member.eval()(*own, segment) for member in members])
            found.append(torch.sigmoid(logits).mean(0).double().numpy())
    return np.concatenate(found)


def judge(predicted: Floats, clicked: NDArray[np.bool_]) -> tuple[float, float]:
    """AUC and log loss."""
    p = np.clip(predicted, 1e-7, 1 - 1e-7)
    loss = -np.where(clicked, np.log(p), np.log1p(-p)).mean()
    return float(roc_auc_score(clicked, p)), float(loss)


def export(members: list[FieldsDcn], rows: FieldRows, context: InputRows) -> bytes:
    """The members as ONNX, with the inputs and outputs of every ranker; the rows only show their
    shapes."""
    inputs = {
        "user_ints": Example(rows.user.ints[:2], ["requests"]),
        "user_floats": Example(rows.user.floats[:2], ["requests"]),
        "context_ints": Example(context.ints[:2], ["requests"]),
        "context_floats": Example(context.floats[:2], ["requests"]),
        "item_ints": Example(rows.item.ints[:3], ["rows"]),
        "item_floats": Example(rows.item.floats[:3], ["rows"]),
        "segment": Example(np.array([0, 1, 1]), ["rows"]),
    }
    return export_onnx(Served(members), inputs, ["click", "order", "hide"])
