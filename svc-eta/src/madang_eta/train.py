"""Trains the network of one stage, and exports it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from madang_eta.model import StageNet, crps
from madang_runtime.models.onnx_export import Example, export_onnx

Floats = NDArray[np.floating]
_STEPS, _SMALLEST = 40, 32


@dataclass(frozen=True)
class StageTraining:
    """How to train.

    Attributes:
        epochs: of each member.
        batch: rows of a step; of few rows fewer, so that an epoch has 40 steps.
        learning_rate, weight_decay: AdamW's; the rate rises and falls in one cycle.
        hidden, members, dropout: of StageNet.
        seed: of the weights and the order of rows.
    """

    epochs: int = 25
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    hidden: tuple[int, ...] = (256, 128)
    members: int = 4
    dropout: float = 0.3
    seed: int = 0


def train_stage(
    inputs: Floats,
    minutes: Floats,
    weights: Floats,
    classes: int,
    training: StageTraining,
    progress: Callable[[float], None] = lambda _: None,
) -> StageNet:
    """Train on n orders by their ranked probability score.

    Args:
        inputs: shape [n, columns], NaN where nothing is known.
        minutes: what the stage took, shape [n].
        weights: what each order counts, shape [n].
        classes: minutes that have a class of their own; one more is the tail.
        training: how.
        progress: told the share done.
    """
    torch.manual_seed(training.seed)
    x = torch.tensor(inputs, dtype=torch.float32)
    y = torch.tensor(minutes, dtype=torch.float32)
    w = torch.tensor(weights / weights.mean(), dtype=torch.float32)
    mean = torch.nan_to_num(x.nanmean(0))
    scale = torch.sqrt(torch.nan_to_num(((x - mean) ** 2).nanmean(0))).clamp_min(1e-3)
    net = StageNet(mean, scale, classes + 1, training.hidden, training.members, training.dropout)
    with torch.no_grad():
        x = net.normal(x)
    batch = min(training.batch, max(len(x) // _STEPS, _SMALLEST))
    steps = -(-len(x) // batch) * training.epochs
    for number, member in enumerate(net.members):
        optimizer = torch.optim.AdamW(
            member.parameters(), training.learning_rate, weight_decay=training.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, training.learning_rate, total_steps=steps
        )
        member.train()
        for epoch in range(training.epochs):
            for rows in torch.split(torch.randperm(len(x)), batch):
                score = crps(torch.softmax(member(x[rows]), dim=1), y[rows])
                loss = (score * w[rows]).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            progress((number + (epoch + 1) / training.epochs) / training.members)
    return net.eval()


def export(net: StageNet) -> bytes:
    """The network as ONNX: `inputs` [n, columns] → `probabilities` [n, minutes + tail]."""
    example = Example(np.zeros((2, len(net.mean)), np.float32))
    return export_onnx(net, {"inputs": example}, ["probabilities"])
