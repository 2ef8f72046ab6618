"""What a user will search for after what they just did, in torch. Not imported by serving."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's name

from madang_runtime.models.onnx_export import Example, export_onnx

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

KINDS = 8
"""Kinds of actions, by their number in the feature store; 0 fills."""
_WIDTH = 64


@dataclass(frozen=True)
class Sequences:
    """n users' actions before a search.

    Attributes:
        nodes: what was acted on, rows of the node table, the latest last; 0 fills, [n, longest].
        kinds: how, [n, longest].
        keywords: that was searched for, [n].
    """

    nodes: Ints
    kinds: Ints
    keywords: Ints


@dataclass(frozen=True)
class SequenceTraining:
    """How to train. Batches are smaller where there is little to learn from."""

    epochs: int = 8
    batch: int = 256
    smallest_batch: int = 16
    steps_an_epoch: int = 50
    learning_rate: float = 3e-3
    forget: float = 0.2
    seed: int = 0


class KeywordSequence(nn.Module):
    """Actions → a score of each keyword.

    An action is its node and its kind; a node is what the graph knows of it and what its text
    means. A recurrent cell (GRU, Cho et al. 2014) reads the actions; where it ends is compared with
    the nodes of the keywords.

    Args:
        graph, text: vectors of the nodes, float32 [nodes, d]; row 0 is nothing. Not trained.
        keywords: rows of the keywords, K.
        popularity: of the keywords, [K]: where their scores start.
    """

    graph: Tensor
    text: Tensor
    keywords: Tensor

    def __init__(self, graph: Floats, text: Floats, keywords: Ints, popularity: Floats) -> None:
        super().__init__()
        self.register_buffer("graph", torch.from_numpy(graph))
        self.register_buffer("text", torch.from_numpy(text))
        self.register_buffer("keywords", torch.from_numpy(keywords))
        self.of_graph = nn.Linear(graph.shape[1], _WIDTH, bias=False)
        self.of_text = nn.Linear(text.shape[1], _WIDTH, bias=False)
        self.of_kind = nn.Embedding(KINDS, _WIDTH)
        self.cell = nn.GRUCell(_WIDTH, _WIDTH)
        self.out = nn.Linear(_WIDTH, _WIDTH)
        self.bias = nn.Parameter(torch.log(torch.from_numpy(popularity) + 1))

    def table(self) -> Tensor:
        """A vector of each node: [nodes, width]."""
        table: Tensor = self.of_graph(self.graph) + self.of_text(self.text)
        return table

    def forward(self, nodes: Tensor, kinds: Tensor) -> Tensor:
        """int64 [n, longest] each → scores float32 [n, K]."""
        return self.read(self.table(), nodes, kinds)

    def read(self, table: Tensor, nodes: Tensor, kinds: Tensor) -> Tensor:
        """`forward`, with the table of nodes given."""
        actions = F.embedding(nodes, table) + self.of_kind(kinds)
        state = torch.zeros_like(actions[:, 0])
        for step in range(nodes.shape[1]):
            read = self.cell(actions[:, step], state)
            state = torch.where(nodes[:, step : step + 1] > 0, read, state)
        scores: Tensor = self.out(state) @ F.embedding(self.keywords, table).T + self.bias
        return scores


class Served(nn.Module):
    """A model whose table is made once.

    Args:
        model: trained.
    """

    table: Tensor

    def __init__(self, model: KeywordSequence) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("table", model.table().detach())

    def forward(self, nodes: Tensor, kinds: Tensor) -> Tensor:
        """As the model's."""
        return self.model.read(self.table, nodes, kinds)


def train_sequence(
    model: KeywordSequence,
    sequences: Sequences,
    training: SequenceTraining = SequenceTraining(),
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Train a model in place, by the cross entropy of what was searched for."""
    torch.manual_seed(training.seed)
    random = np.random.default_rng(training.seed)
    n = len(sequences.keywords)
    wanted = max(n // training.steps_an_epoch, training.smallest_batch)
    batch = min(wanted, training.batch)
    steps = training.epochs * -(-n // batch)
    optimizer = torch.optim.AdamW(model.parameters(), training.learning_rate, weight_decay=0.01)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    nodes, kinds, keywords = (
        torch.from_numpy(a) for a in (sequences.nodes, sequences.kinds, sequences.keywords)
    )
    model.train()
    done = 0
    for _ in range(training.epochs):
        for rows in torch.split(torch.from_numpy(random.permutation(n)), batch):
            seen = torch.rand(nodes[rows].shape) >= training.forget
            loss = F.cross_entropy(model(nodes[rows] * seen, kinds[rows]), keywords[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            falling.step()
            done += 1
            progress(done / steps)
    model.eval()


def export_sequence(model: KeywordSequence, longest: int) -> bytes:
    """A model as ONNX: `nodes` and `kinds`, int64 [n, longest], to `scores`, float32 [n, K]."""
    example = Example(np.ones((2, longest), np.int64))
    return export_onnx(Served(model), {"nodes": example, "kinds": example}, ["scores"])
