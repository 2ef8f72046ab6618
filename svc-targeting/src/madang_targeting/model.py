"""A version of the service's model: the layout of the audience, what is expected of users by
channel and preference group, and whom campaigns before were sent to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from madang.targeting.v1.targeting_pb2 import Outcome, SegmentSpec
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.registry import ModelFiles
from madang_targeting.audience import Audience, GetAudience
from madang_targeting.calibration import Calibration
from madang_targeting.trees import probabilities

NAME = "targeting"
"""In the registry."""
CAMPAIGNS, RECIPIENTS = "campaigns.parquet", "recipients.parquet"
OUTCOMES = {Outcome.OUTCOME_CLICK: "clicked", Outcome.OUTCOME_ORDER: "ordered"}
"""The columns of recipients that say what they did."""
Inputs = NDArray[np.float32]
Floats = NDArray[np.float64]


class Layout(BaseModel):
    """Columns of the audience and of recipients.

    Attributes:
        about: of the user alone.
        by_group: of the user and each preference group: column "orders.pizza" is orders of pizza.
        groups: preference groups.
        channels: that messages take.
    """

    model_config = ConfigDict(frozen=True)

    about: list[str]
    by_group: list[str]
    groups: list[str]
    channels: list[str]

    def of_group(self, group: str) -> list[str]:
        """What the models of a group read."""
        return [*self.about, *(f"{name}.{group}" for name in self.by_group)]

    def columns(self, groups: Sequence[str] | None = None) -> list[str]:
        """Of some groups, or of all."""
        chosen = self.groups if groups is None else groups
        return [*self.about, *(f"{name}.{group}" for group in chosen for name in self.by_group)]


@dataclass(frozen=True)
class Simulator:
    """P(outcome | told by a channel).

    Attributes:
        trees: reads what `Layout.of_group` says.
        calibration: of its probabilities.
    """

    trees: lightgbm.Booster
    calibration: Calibration

    def __call__(self, inputs: Inputs, threads: int) -> Floats:
        """Probabilities of n users, shape [n]."""
        return self.calibration(probabilities(self.trees, inputs, threads))


class Before(NamedTuple):
    """A campaign that was sent: what it was about, and by which channel."""

    group: str
    channel: str


@dataclass(frozen=True)
class Recipients:
    """Who was sent something, and what they did.

    Attributes:
        inputs: as of the send, shape [n, columns of the layout].
        did: the outcome in question, shape [n].
        channels: that the messages took, shape [n].
    """

    inputs: Inputs
    did: NDArray[np.bool_]
    channels: NDArray[np.str_]


def pack(
    layout: Layout,
    simulators: Mapping[str, Mapping[str, Simulator]],
    spread: Mapping[str, float],
    campaigns: pa.Table,
    recipients: pa.Table,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files and parameters of a version.

    Args:
        layout: of the audience.
        simulators: by channel and column of OUTCOMES.
        spread: between campaigns, by column of OUTCOMES.
        campaigns: campaign_id, group, channel.
        recipients: campaign_id, a column an outcome, and those of the layout as of the send.
    """
    # Files are numbered, since channels may have any name.
    files, calibrations = {}, {}
    for number, channel in enumerate(layout.channels):
        for outcome, model in simulators[channel].items():
            key = f"{number}.{outcome}"
            files[f"{key}.txt"] = model.trees.model_to_string().encode()
            calibrations[key] = [c.tolist() for c in vars(model.calibration).values()]
    files |= {CAMPAIGNS: _parquet(campaigns), RECIPIENTS: _parquet(recipients)}
    parameters = {
        "layout": layout.model_dump(),
        "calibrations": calibrations,
        "spread": dict(spread),
    }
    return files, parameters


class TargetingModel:
    """A version in memory.

    Args:
        files: of it; its parameter `audience` is the version of the audience.
        audience: gives that.

    Raises:
        MadangError: MODEL_NOT_FOUND, MODEL_CORRUPT of the audience.
        KeyError, ValueError: it is no such model.
    """

    def __init__(self, files: ModelFiles, audience: GetAudience) -> None:
        self.manifest, self._files = files.manifest, files.files
        given = files.manifest.parameters
        self.layout = Layout.model_validate(given["layout"])
        self.spread: dict[str, float] = given["spread"]
        self.audience: Audience = audience(given["audience"])
        self.sample = self.audience.sample(self.layout.columns())
        self._simulators = {
            key: Simulator(
                lightgbm.Booster(model_str=self._files[f"{key}.txt"].decode()),
                Calibration(*(np.array(knots) for knots in calibration)),
            )
            for key, calibration in given["calibrations"].items()
        }
        campaigns = pq.read_table(pa.BufferReader(self._files[CAMPAIGNS])).to_pylist()
        self.campaigns = {c["campaign_id"]: Before(c["group"], c["channel"]) for c in campaigns}

    def groups_of(self, spec: SegmentSpec) -> list[str]:
        """The groups that a segment's message is about."""
        before = (self.campaigns.get(c) for c in spec.reference_campaign_ids)
        return list(spec.groups) or sorted({b.group for b in before if b})

    def check(self, channel: str, groups: Sequence[str]) -> None:
        """Raises: MadangError CHANNEL_NOT_FOUND, PREFERENCE_GROUP_NOT_FOUND."""
        if channel not in self.layout.channels:
            known = ", ".join(self.layout.channels)
            raise MadangError(
                Code.NOT_FOUND,
                reason.ERROR_REASON_CHANNEL_NOT_FOUND,
                f"channel: no model knows {channel!r}; there are {known}",
                field="channel",
            )
        for group in groups:
            if group not in self.layout.groups:
                known = ", ".join(self.layout.groups)
                raise MadangError(
                    Code.NOT_FOUND,
                    reason.ERROR_REASON_PREFERENCE_GROUP_NOT_FOUND,
                    f"groups: no model knows {group!r}; there are {known}",
                    field="groups",
                )

    def simulate(
        self,
        inputs: Inputs,
        columns: Sequence[str],
        channel: str,
        groups: Sequence[str],
        outcomes: Sequence[str],
        threads: int = 0,
    ) -> Floats:
        """What is expected of users who are told of whichever group draws them most.

        Args:
            inputs: shape [n, columns].
            columns: what they are, at least those of the groups.
            channel: that the message takes.
            groups: that it is about.
            outcomes: columns of OUTCOMES; the first says what draws.
            threads: of the prediction; 0: as many as there are.

        Returns:
            probabilities, shape [outcomes, n].
        """
        at, number = {c: i for i, c in enumerate(columns)}, self.layout.channels.index(channel)
        best = np.zeros((len(outcomes), len(inputs)))
        for group in groups:
            own = np.ascontiguousarray(inputs[:, [at[c] for c in self.layout.of_group(group)]])
            found = np.stack([self._simulators[f"{number}.{o}"](own, threads) for o in outcomes])
            best = np.where(found[0] > best[0], found, best)
        return best

    def recipients(self, campaign_ids: Sequence[str], outcome: str) -> Recipients:
        """Those of campaigns before."""
        table = pq.read_table(
            pa.BufferReader(self._files[RECIPIENTS]),
            filters=[("campaign_id", "in", list(campaign_ids))] if campaign_ids else None,
        ).slice(0, None if campaign_ids else 0)
        inputs = [table[c].to_numpy().astype(np.float32) for c in self.layout.columns()]
        channels = [self.campaigns[c].channel for c in table["campaign_id"].to_pylist()]
        return Recipients(
            np.stack(inputs, axis=1),
            table[outcome].to_numpy().astype(np.bool_),
            np.array(channels, np.str_),
        )


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    packed: bytes = sink.getvalue().to_pybytes()
    return packed
