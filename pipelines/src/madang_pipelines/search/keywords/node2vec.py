"""Vectors of a graph's nodes by node2vec (Grover & Leskovec 2016, arXiv:1607.00653)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 - torch's name

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Weights = NDArray[np.floating]


@dataclass(frozen=True)
class Node2Vec:
    """How to walk and to learn.

    Attributes:
        dimension: of the vectors.
        back, away: the paper's p and q: how seldom a walk goes back, and far.
        walks, length: from each node, and steps of each.
        window: nodes of a walk that are near each other.
        drawn: nodes drawn at random for each pair.
    """

    dimension: int = 64
    back: float = 1.0
    away: float = 0.5
    walks: int = 6
    length: int = 16
    window: int = 4
    drawn: int = 5
    batch: int = 4096
    learning_rate: float = 0.02
    seed: int = 0


class Graph:
    """An undirected graph.

    Args:
        nodes: how many.
        first, second: the ends of its edges, each edge once.
        weights: of the edges, > 0.
    """

    def __init__(
        self, nodes: int, first: Ints, second: Ints, weights: NDArray[np.floating]
    ) -> None:
        self.nodes = nodes
        source, target = np.concatenate([first, second]), np.concatenate([second, first])
        order = np.lexsort((target, source))
        self._target = target[order]
        self._keys = source[order] * nodes + self._target
        self._ends = np.searchsorted(source[order], np.arange(nodes), side="right")
        self._starts = np.searchsorted(source[order], np.arange(nodes))
        self._sums = np.concatenate([[0.0], np.cumsum(np.tile(weights, 2)[order])])

    def walk(self, starts: Ints, how: Node2Vec, random: np.random.Generator) -> Ints:
        """One walk from each start, [n, length]; one that can't go on stays where it is."""
        walks = np.empty((len(starts), how.length), np.int64)
        walks[:, 0] = walks[:, 1] = starts
        if how.length > 1:
            walks[:, 1] = self._step(starts, random)
        bound = max(1.0, 1 / how.back, 1 / how.away)
        for step in range(2, how.length):
            before, at = walks[:, step - 2], walks[:, step - 1]
            left = np.arange(len(starts))
            # By rejection: drawn by weight, kept by the bias of where the walk came from.
            while len(left):
                drawn = self._step(at[left], random)
                back, near = drawn == before[left], self._linked(before[left], drawn)
                bias = np.where(back, 1 / how.back, np.where(near, 1.0, 1 / how.away))
                kept = random.random(len(left)) * bound < bias
                walks[left[kept], step] = drawn[kept]
                left = left[~kept]
        return walks

    def _step(self, at: Ints, random: np.random.Generator) -> Ints:
        low, high = self._sums[self._starts[at]], self._sums[self._ends[at]]
        drawn = low + random.random(len(at)) * (high - low)
        edge = np.searchsorted(self._sums, drawn, side="right") - 1
        edge = np.clip(edge, self._starts[at], np.maximum(self._ends[at] - 1, 0))
        return np.where(high > low, self._target[edge], at)

    def _linked(self, first: Ints, second: Ints) -> NDArray[np.bool_]:
        keys = first * self.nodes + second
        found = np.searchsorted(self._keys, keys)
        return np.asarray(self._keys[np.minimum(found, len(self._keys) - 1)] == keys)


def node_vectors(graph: Graph, how: Node2Vec) -> Floats:
    """Vectors of length 1, [nodes, dimension], by skip-gram with negative samples over walks."""
    random = np.random.default_rng(how.seed)
    starts = random.permutation(np.tile(np.arange(graph.nodes), how.walks))
    walks = graph.walk(starts, how, random)
    pairs = np.concatenate(
        [
            np.stack([walks[:, :-apart].ravel(), walks[:, apart:].ravel()], axis=1)
            for apart in range(1, how.window + 1)
        ]
    )
    pairs = random.permutation(pairs[pairs[:, 0] != pairs[:, 1]])
    noise = np.bincount(walks.ravel(), minlength=graph.nodes) ** 0.75
    noise = noise.cumsum() / noise.sum()
    generator = torch.Generator().manual_seed(how.seed)
    near = torch.randn(graph.nodes, how.dimension, generator=generator) * 0.1
    far = torch.zeros(graph.nodes, how.dimension)
    tables = [near.requires_grad_(), far.requires_grad_()]
    optimizer = torch.optim.Adam(tables, how.learning_rate)
    for rows in np.array_split(pairs, max(1, len(pairs) // how.batch)):
        if not len(rows):
            break
        drawn = np.searchsorted(noise, random.random((len(rows), how.drawn)))
        own, other = (F.embedding(torch.from_numpy(rows[:, side]), tables[side]) for side in (0, 1))
        others = F.embedding(torch.from_numpy(drawn), tables[1])
        loss = -F.logsigmoid((own * other).sum(1)).mean()
        loss = loss - F.logsigmoid(-(others @ own[:, :, None])[..., 0]).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    vectors: Floats = F.normalize(tables[0].detach(), dim=1).numpy()
    return vectors
