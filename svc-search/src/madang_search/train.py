"""Fine-tunes the sentence encoder, and exports it."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import quantize_dynamic
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's name

from madang_runtime.models.onnx_export import Example, export_onnx
from madang_runtime.text.tokens import TextTokens, padded
from madang_search.model import SentenceEncoder

Tokens = list[list[int]]
_MARGIN = 1.0
_TEMPERATURE = 0.05
_DECAY = 0.995
_SORTED_TOGETHER = 16


@dataclass(frozen=True)
class Objective:
    """What to learn from one set of texts.

    Attributes:
        texts: two or three columns of n texts each: a text, one that is near, one that is not.
        losses: "scored" (how alike the first two are), "pairs" (the second is nearest to the first
            of all texts of a batch) and "triplets" (the second is nearer than the third), by the
            weight of each.
        scores: of "scored", in [0, 1], shape [n].
    """

    texts: Sequence[Sequence[str]]
    losses: Mapping[str, float]
    scores: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: passes over the largest objective.
        batch: rows of each objective in a step.
        learning_rate: the largest, after a warm-up of a twentieth; it falls to 0 in a line.
        forget: share of tokens that a step does not see.
        seed: of everything drawn.
    """

    epochs: int = 6
    batch: int = 64
    learning_rate: float = 3e-4
    forget: float = 0.1
    seed: int = 0


class _Batches:
    """Batches of an objective for ever, of texts about as long as each other."""

    def __init__(self, objective: Objective, tokens: TextTokens, schedule: Schedule) -> None:
        self.objective = objective
        self._columns: list[Tokens] = [tokens(column) for column in objective.texts]
        self._longest = np.array([max(map(len, row)) for row in zip(*self._columns, strict=True)])
        self._size = min(schedule.batch, len(self._longest))
        self._random = np.random.default_rng(schedule.seed)
        self._forget = schedule.forget

    def __len__(self) -> int:
        return max(1, len(self._longest) // self._size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        while True:
            order = self._random.permutation(len(self._longest))
            for start in range(0, len(order), self._size * _SORTED_TOGETHER):
                near = order[start : start + self._size * _SORTED_TOGETHER]
                near = near[np.argsort(self._longest[near], kind="stable")]
                whole = near[: len(near) // self._size * self._size].reshape(-1, self._size)
                yield from whole[self._random.permutation(len(whole))]

    def vectors(self, model: SentenceEncoder, rows: NDArray[np.int64]) -> Sequence[Tensor]:
        """Of each column, those of the rows: [rows, d]."""
        ids, mask = padded([column[row] for column in self._columns for row in rows.tolist()])
        seen = self._random.random(mask.shape) >= self._forget
        seen[:, 0] = True
        vectors: Tensor = model(torch.from_numpy(ids), torch.from_numpy(mask * seen))
        columns: Sequence[Tensor] = torch.split(vectors, len(rows))
        return columns


def fine_tune(
    model: SentenceEncoder,
    tokens: TextTokens,
    objectives: Sequence[Objective],
    schedule: Schedule,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> None:
    """Train an encoder in place on several objectives at once. It ends as the moving average of its
    weights, which is better than any of them (Polyak & Juditsky 1992).

    Args:
        progress: is told steps done, and how many there are.
    """
    torch.manual_seed(schedule.seed)
    batches = [_Batches(objective, tokens, schedule) for objective in objectives]
    steps = schedule.epochs * max(map(len, batches))
    optimizer = torch.optim.AdamW(model.parameters(), schedule.learning_rate, weight_decay=0.01)
    warm = max(1, steps // 20)
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warm) * (1 - step / steps)
    )
    average = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model.train()
    for step, drawn in enumerate(zip(*batches, strict=False)):
        if step == steps:
            break
        loss = torch.stack(
            [
                _loss(b.objective, rows, b.vectors(model, rows))
                for b, rows in zip(batches, drawn, strict=True)
            ]
        ).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        falling.step()
        _average(average, model, step)
        progress(step + 1, steps)
    model.load_state_dict(average, strict=False)
    model.eval()


def mean_weights(models: Sequence[SentenceEncoder]) -> SentenceEncoder:
    """The first of several models that were fine-tuned from one start, with the mean of all their
    weights: as a rule better than any of them (Wortsman et al. 2022, arXiv:2203.05482)."""
    every = [dict(model.named_parameters()) for model in models]
    with torch.no_grad():
        for name, weight in every[0].items():
            weight.copy_(torch.stack([weights[name] for weights in every]).mean(0))
    return models[0]


def _average(average: Mapping[str, Tensor], model: SentenceEncoder, step: int) -> None:
    """Take the weights after a step into their moving average, which at first is a shorter one."""
    decay = min(_DECAY, (1 + step) / (10 + step))
    for name, weight in model.named_parameters():
        average[name].lerp_(weight.detach(), 1 - decay)


def _loss(objective: Objective, rows: NDArray[np.int64], vectors: Sequence[Tensor]) -> Tensor:
    """STS by squared error of the cosine; pairs by MultipleNegativesRanking (Henderson et al. 2017,
    arXiv:1705.00652); triplets by margin of distances (Schroff et al. 2015, arXiv:1503.03832)."""
    first, second = vectors[0], vectors[1]
    total = torch.zeros(())
    for loss, weight in objective.losses.items():
        if loss == "scored":
            assert objective.scores is not None
            wanted = torch.from_numpy(objective.scores[rows])
            total = total + weight * F.mse_loss((first * second).sum(1), wanted)
        elif loss == "pairs":
            logits = first @ torch.cat(list(vectors[1:])).T / _TEMPERATURE
            total = total + weight * F.cross_entropy(logits, torch.arange(len(first)))
        else:
            apart = F.triplet_margin_loss(first, second, vectors[2], margin=_MARGIN)
            total = total + weight * apart
    return total


def export(model: nn.Module) -> bytes:
    """An encoder as ONNX: `input_ids` and `attention_mask`, int64 [n, tokens], to
    `sentence_embedding`, float32 [n, d]."""
    example = Example(np.ones((2, 8), np.int64), ("n", "length"))
    inputs = {"input_ids": example, "attention_mask": example}
    return export_onnx(model, inputs, ["sentence_embedding"])


def quantised(model: bytes) -> bytes:
    """The same with matrices as int8 and products in integers: about a quarter of the work."""
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder) / "whole.onnx", Path(folder) / "small.onnx"
        parsed = onnx.load_from_string(model)
        del parsed.graph.value_info[:]  # the exporter's shapes, from before it folded constants
        # Else ONNX Runtime warns that the model was not simplified before.
        onnx.helper.set_model_props(parsed, {"onnx.quant.pre_process": "onnxruntime.quant"})
        onnx.save(parsed, whole)
        quantize_dynamic(whole, small, per_channel=True, op_types_to_quantize=["MatMul"])
        return small.read_bytes()
