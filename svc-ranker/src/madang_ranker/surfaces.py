"""Surfaces: configured places where lists are shown."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from madang.common.v1 import place_pb2
from madang_ranker.bandit.policy import BanditPolicy
from madang_ranker.scoring import Scores
from madang_runtime.errors import Code, MadangError, reason

Floats = NDArray[np.float32]
DEFAULT = "home"


class Surface(BaseModel):
    """One surface.

    Attributes:
        kinds: the item kinds to retrieve, such as "SHOP".
        sources: those of svc-candidate to ask; none: all.
        model: whether the model scores the candidates; else they stay as they are retrieved.
        candidates: how many to retrieve.
        click_weight, order_weight: the utility's weights.
        annoyance_weight: of P(hide), which counts against an item.
        revenue_weight: of what an ad is expected to pay, bid · P(click).
        reactive_weight: of how near an item is to the user's last actions, in [0, 1].
        arrivals: whether it shows when orders would arrive.
        bandit: how it explores; None: not at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: list[str] = []
    sources: list[str] = []
    model: bool = True
    candidates: int = Field(300, ge=1, le=2000)
    click_weight: float = Field(1.0, ge=0)
    order_weight: float = Field(4.0, ge=0)
    annoyance_weight: float = Field(0.0, ge=0)
    revenue_weight: float = Field(0.0, ge=0)
    reactive_weight: float = Field(0.0, ge=0)
    arrivals: bool = False
    bandit: BanditPolicy | None = None

    @property
    def kind_values(self) -> "list[place_pb2.ItemKind.ValueType]":
        """The kinds as the proto has them."""
        return [place_pb2.ItemKind.Value(f"ITEM_KIND_{kind}") for kind in self.kinds]

    def utility(self, scores: Scores, bids: Floats | None = None) -> Floats:
        """click_weight · P(click) + order_weight · P(order) − annoyance_weight · P(hide)
        + revenue_weight · bid · P(click), per item."""
        utility: Floats = np.float32(self.click_weight) * scores.click
        utility += np.float32(self.order_weight) * scores.order
        if self.annoyance_weight:
            utility -= np.float32(self.annoyance_weight) * scores.hide
        if self.revenue_weight and bids is not None:
            utility += np.float32(self.revenue_weight) * bids * scores.click
        return utility


def load_surfaces(path: Path | None) -> Mapping[str, Surface]:
    """Read surfaces from YAML; None takes the built-in ones. Raises: pydantic's error."""
    text = (
        path.read_text(encoding="utf-8")
        if path
        else (files("madang_ranker") / "surfaces.yaml").read_text(encoding="utf-8")
    )
    return TypeAdapter(dict[str, Surface]).validate_python(yaml.safe_load(text))


def find_surface(surfaces: Mapping[str, Surface], name: str) -> Surface:
    """A surface by name, "" for the default. Raises: MadangError SURFACE_NOT_FOUND."""
    if (name or DEFAULT) not in surfaces:
        raise MadangError(
            Code.NOT_FOUND,
            reason.ERROR_REASON_SURFACE_NOT_FOUND,
            f"surface: {name!r} is not configured; there are {', '.join(sorted(surfaces))}",
            field="surface",
        )
    return surfaces[name or DEFAULT]
