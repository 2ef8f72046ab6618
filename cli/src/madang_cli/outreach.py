"""The demo's campaign: a segment like those who responded before, a sample, and the main send."""

import time
from collections.abc import Callable
from typing import NamedTuple

import grpc
import numpy as np
import polars as pl
from rich.console import Console

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1 import targeting_pb2_grpc
from madang_pipelines.city.campaigns import CHANNELS, GROUPS, CampaignWorld
from madang_pipelines.tables import Tables

_TIMEOUT = 5.0
_PATIENCE = 60.0
_HELD_OUT, _SAMPLE = 0.1, 0.25
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ROWS, _COLUMNS = 6, 60


class Reference(NamedTuple):
    """A campaign before.

    Attributes:
        campaign_id, group, channel: of it.
        told, clicked: how many were and did.
    """

    campaign_id: str
    group: str
    channel: str
    told: int
    clicked: int


class Sent(NamedTuple):
    """What came of a part of a segment.

    Attributes:
        told, clicked, ordered: how many of those who were told did.
    """

    told: int
    clicked: int
    ordered: int


def reference(tables: Tables) -> Reference:
    """The campaign that most opened."""
    counts = (
        tables.frames["sends"]
        .group_by("campaign_id")
        .agg(pl.col("told").sum(), pl.col("clicked").sum())
        .join(tables.frames["campaigns"], "campaign_id")
        .sort("clicked", "campaign_id", descending=[True, False])
    )
    names = Reference._fields
    return Reference(**counts.select(names).row(0, named=True))


class Campaign:
    """A campaign about what one before was about.

    Args:
        channel: of the gateway.
        world: how the city's users take messages.
        like: the campaign before.
        campaign_id: of this one.
    """

    def __init__(
        self, channel: grpc.Channel, world: CampaignWorld, like: Reference, campaign_id: str
    ) -> None:
        self._targeting = targeting_pb2_grpc.TargetingServiceStub(channel)
        self._world, self._like, self._id = world, like, campaign_id

    def segment(
        self, name: str, size: int, progress: Callable[[str, float], None], *, learn: bool = False
    ) -> pb.SegmentResult:
        """Make a segment; to `learn` is to learn from what was sent of this campaign, too, and to
        leave those out who were."""
        own = [self._id] if learn else []
        spec = pb.SegmentSpec(
            campaign_id=self._id,
            reference_campaign_ids=[self._like.campaign_id, *own],
            exclude_told_campaign_ids=own,
            channel=self._like.channel,
            goal=pb.OUTCOME_CLICK,
            size=size,
            held_out_share=_HELD_OUT,
            sample_share=0.0 if learn else _SAMPLE,
        )
        return made_segment(self._targeting, name, spec, progress)

    def send(self, name: str, part: "pb.MemberPart.ValueType") -> Sent:
        """Tell a part of a segment, as far as caps allow, and record what they do."""
        users = self.members(name, part)
        sends = pb.RecordSendsRequest(
            campaign_id=self._id, channel=self._like.channel, user_ids=users
        )
        allowed = self._targeting.RecordSends(sends, timeout=_TIMEOUT).recorded
        users = [user for user, may in zip(users, allowed, strict=True) if may]
        came = self._happens(users, told=True)
        for outcome, column in ((pb.OUTCOME_CLICK, "clicked"), (pb.OUTCOME_ORDER, "ordered")):
            who = came.filter(column)["user_id"].to_list()
            if who:
                results = pb.RecordResultsRequest(
                    campaign_id=self._id, outcome=outcome, user_ids=who
                )
                self._targeting.RecordResults(results, timeout=_TIMEOUT)
        return Sent(len(users), int(came["clicked"].sum()), int(came["ordered"].sum()))

    def held_out(self, name: str) -> Sent:
        """What those do who are not told."""
        users = self.members(name, pb.MEMBER_PART_HELD_OUT)
        return Sent(len(users), 0, int(self._happens(users, told=False)["ordered"].sum()))

    def members(self, name: str, part: "pb.MemberPart.ValueType") -> list[str]:
        """The users of a part."""
        request = pb.ListMembersRequest(segment_id=name, part=part)
        stream = self._targeting.ListMembers(request, timeout=_TIMEOUT)
        return [user for message in stream for user in message.user_ids]

    def _happens(self, users: list[str], *, told: bool) -> pl.DataFrame:
        rows = self._world.rows(users)
        group, channel = GROUPS.index(self._like.group), CHANNELS.index(self._like.channel)
        return self._world.send(rows, np.full(len(rows), told), group, channel)[0]


def made_segment(
    targeting: targeting_pb2_grpc.TargetingServiceStub,
    name: str,
    spec: pb.SegmentSpec,
    progress: Callable[[str, float], None],
) -> pb.SegmentResult:
    """Make a segment, and wait until it is made. Raises: RuntimeError when it is not."""
    request = pb.CreateSegmentRequest(segment_id=name, spec=spec)
    targeting.CreateSegment(request, timeout=_TIMEOUT)
    until = time.monotonic() + _PATIENCE
    while True:
        asked = pb.GetSegmentRequest(segment_id=name)
        found = targeting.GetSegment(asked, timeout=_TIMEOUT).segment
        operation = found.operation
        if operation.state == pb.OPERATION_STATE_DONE:
            progress("a segment", 1.0)
            return found.result
        if operation.HasField("end_time") or time.monotonic() > until:
            raise RuntimeError(f"segment {name} was not made: {operation}")
        progress("a segment", operation.progress)
        time.sleep(0.05)


def draw_curve(result: pb.SegmentResult, console: Console) -> None:
    """Reach and response: the rate of each size, that of the segment standing out."""
    sizes = np.array([point.size for point in result.curve], np.float64)
    rates = np.array([point.click_rate.expected for point in result.curve])
    reach = (np.arange(_COLUMNS) + 1) / _COLUMNS * sizes[-1]
    heights = np.interp(reach, sizes, rates)
    chosen = int(np.argmin(np.abs(reach - result.size)))
    scaled = heights / heights.max() * _ROWS
    for row in range(_ROWS - 1, -1, -1):
        line = ""
        for at, height in enumerate(scaled.tolist()):
            block = _BLOCKS[int(np.clip(round((height - row) * 8), 0, 8))]
            line += f"[magenta]{block}[/]" if at == chosen else block
        label = f"{heights.max() * (row + 1) / _ROWS:>5.0%} " if row in (_ROWS - 1, 2) else " " * 6
        console.print(f"  {label}{line}", highlight=False)
    marks = "".join(f"{int(reach[-1] * i / 4):<15,}" for i in range(4)) + f"{int(reach[-1]):,}"
    console.print(f"        {marks}", highlight=False)
