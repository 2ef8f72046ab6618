"""DCN-V2 over fields of any data, in torch. Serving never imports this file.

Source: Wang et al., "DCN V2: Improved deep & cross network", WWW 2021; the parallel structure. As
in the city's ranker, what a request's rows have in common goes through the first layers once.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from madang_runtime.models.layers import WIDEST, Codes


@dataclass(frozen=True)
class FieldsConfig:
    """Sizes of the network.

    Attributes:
        user_codes, item_codes: vocabulary sizes of each category, code 0 (unknown) included; those
            of the user and the moment, and those of the item.
        user_numbers, item_numbers: how many numbers there are of each.
        dimension: of a field's embedding.
        cross_layers: full-rank cross layers.
        hidden: widths of the deep layers.
        dropout: share of what a deep layer says that is left out in training.
        members: networks of which the mean is taken.
    """

    user_codes: tuple[int, ...]
    item_codes: tuple[int, ...]
    user_numbers: int = 0
    item_numbers: int = 0
    dimension: int = 16
    cross_layers: int = 3
    hidden: tuple[int, ...] = (400, 400)
    dropout: float = 0.2
    members: int = 1

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


class Numbers(nn.Module):
    """Numbers as fields: each in units of its spread, and as the embedding of the part of its
    distribution that it falls into; NaN, no value, is a part of its own.

    Args:
        edges: between the parts, shape [columns, parts - 1], from small to large.
        mean, scale: of each column, shape [columns].
    """

    edges: Tensor
    mean: Tensor
    scale: Tensor
    starts: Tensor

    def __init__(self, edges: Tensor, mean: Tensor, scale: Tensor, dimension: int) -> None:
        super().__init__()
        self.register_buffer("edges", edges)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("starts", torch.arange(len(edges)) * (edges.shape[1] + 2))
        self.parts = Codes(len(edges) * (edges.shape[1] + 2), dimension, 0.01)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers [n, columns] → embeddings [n, columns × dimension] and numbers [n, columns]."""
        missing = torch.isnan(values)
        part = (values.unsqueeze(2) > self.edges).sum(2) + 1
        part = torch.where(missing, torch.zeros_like(part), part)
        scaled = torch.where(missing, torch.zeros_like(values), (values - self.mean) / self.scale)
        embedded = self.parts(part + self.starts)
        return embedded.flatten(1), scaled.clamp(-WIDEST, WIDEST)


class Side(nn.Module):
    """The fields of one side, the user's or the item's, as one vector."""

    def __init__(self, codes: Sequence[int], numbers: Numbers | None, dimension: int) -> None:
        super().__init__()
        self.codes = nn.ModuleList(Codes(size, dimension, 0.01) for size in codes)
        self.numbers = numbers
        columns = 0 if numbers is None else len(numbers.mean)
        self.width = (len(codes) + columns) * dimension + columns

    def forward(self, ints: Tensor, floats: Tensor) -> Tensor:
        """Codes [n, fields] and numbers [n, columns] → [n, width]."""
        parts = [codes(ints[:, at]) for at, codes in enumerate(self.codes)]
        if self.numbers is not None:
            parts += self.numbers(floats)
        return torch.cat(parts, dim=1) if parts else floats.new_zeros(len(ints), 0)


class FieldsDcn(nn.Module):
    """The logit of P(click) of each row."""

    def __init__(self, config: FieldsConfig, user: Numbers | None, item: Numbers | None) -> None:
        super().__init__()
        self.user = Side(config.user_codes, user, config.dimension)
        self.item = Side(config.item_codes, item, config.dimension)
        width = self.user.width + self.item.width
        self.cross_common = nn.Linear(self.user.width, width, bias=False)
        self.cross_rows = nn.Linear(self.item.width, width)
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(config.cross_layers - 1))
        self.deep_common = nn.Linear(self.user.width, config.hidden[0], bias=False)
        self.deep_rows = nn.Linear(self.item.width, config.hidden[0])
        layers: list[nn.Module] = [nn.BatchNorm1d(config.hidden[0]), nn.ReLU()]
        before = config.hidden[0]
        for size in config.hidden[1:]:
            layers += [nn.Dropout(config.dropout), nn.Linear(before, size)]
            layers += [nn.BatchNorm1d(size), nn.ReLU()]
            before = size
        self.deep = nn.Sequential(*layers, nn.Dropout(config.dropout))
        self.head = nn.Linear(width + before, 1)

    def forward(
        self,
        user_ints: Tensor,
        user_floats: Tensor,
        item_ints: Tensor,
        item_floats: Tensor,
        segment: Tensor,
    ) -> Tensor:
        """Logits, shape [rows]; `segment` is the user's row of each item."""
        common = self.user(user_ints, user_floats)
        rows = self.item(item_ints, item_floats)
        x0 = torch.cat([common[segment], rows], dim=1)
        x = x0 * (self.cross_common(common)[segment] + self.cross_rows(rows)) + x0
        for layer in self.cross:
            x = x0 * layer(x) + x
        deep = self.deep(self.deep_common(common)[segment] + self.deep_rows(rows))
        logits: Tensor = self.head(torch.cat([x, deep], dim=1)).squeeze(1)
        return logits


class Served(nn.Module):
    """What is served: P(click); of what such data does not tell, order and hide, it says 0."""

    def __init__(self, members: Sequence[FieldsDcn]) -> None:
        super().__init__()
        self._members = nn.ModuleList(members)

    def forward(
        self,
        user_ints: Tensor,
        user_floats: Tensor,
        context_ints: Tensor,
        context_floats: Tensor,
        item_ints: Tensor,
        item_floats: Tensor,
        segment: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From the inputs of every ranker; the context is among the user's fields."""
        del context_ints, context_floats
        inputs = (user_ints, user_floats, item_ints, item_floats, segment)
        logits = torch.stack([member(*inputs) for member in self._members])
        click = torch.sigmoid(logits).mean(0)
        return click, torch.zeros_like(click), torch.zeros_like(click)
