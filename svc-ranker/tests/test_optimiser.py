"""Adam, with a weight decay of its own for embeddings."""

import torch
from torch import nn

from madang_ranker.optimiser import adam
from madang_runtime.models.layers import Codes


class Network(nn.Module):
    """Embeddings, and a layer."""

    def __init__(self):
        super().__init__()
        self.codes, self.layer = Codes(5, 3, std=0.1), nn.Linear(3, 1)


def test_only_embeddings_shrink():
    model = Network()
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = adam(model, learning_rate=1e-3, shrink=0.1)
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(before)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    codes, *layer = model.parameters()
    assert (codes.abs() < before[0].abs()).all()
    assert all(torch.equal(now, was) for now, was in zip(layer, before[1:], strict=True))
