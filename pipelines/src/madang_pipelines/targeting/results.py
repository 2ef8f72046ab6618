"""Campaigns that a mesh was used for, as canonical tables: what the next training learns from."""

from collections.abc import Iterator

import grpc
import polars as pl

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1 import targeting_pb2_grpc
from madang_pipelines.tables import SCHEMAS, Tables

_TIMEOUT, _LONGEST = 10.0, 600.0
_GONE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
Row = tuple[str, str, bool, bool, bool]


def collect(gateway: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables `campaigns`, without periods, and `sends` of every campaign that segments were
    made for: whom messages were recorded of, and who was held out.

    Args:
        gateway: host:port.

    Raises:
        grpc.RpcError: the mesh does not answer.
    """
    with grpc.insecure_channel(gateway) as channel:
        stub = targeting_pb2_grpc.TargetingServiceStub(channel)
        info = stub.GetAudienceInfo(pb.GetAudienceInfoRequest(), timeout=_TIMEOUT)
        group_of = {campaign.campaign_id: campaign.group for campaign in info.campaigns}
        campaigns: dict[str, tuple[str, str, str]] = {}
        held: dict[str, set[str]] = {}
        # In the order in which they were sent, which is that of their first segments.
        for segment in sorted(_segments(stub), key=_created):
            spec, name = segment.spec, segment.spec.campaign_id or segment.segment_id
            about = [*spec.groups, *(group_of.get(c, "") for c in spec.reference_campaign_ids)]
            group = next(filter(None, about), "")
            if group:
                campaigns.setdefault(name, (name, group, spec.channel))
                held.setdefault(name, set()).update(_held_out(stub, segment.segment_id))
        sends = [row for name in campaigns for row in _sends(stub, name, held[name])]
    told = {row[0] for row in sends if row[2]}
    return (
        pl.DataFrame(
            [c for name, c in campaigns.items() if name in told],
            schema={c: t for c, t in SCHEMAS["campaigns"].items() if c != "period"},
            orient="row",
        ),
        pl.DataFrame(
            [row for row in sends if row[0] in told], schema=SCHEMAS["sends"], orient="row"
        ),
    )


def _created(segment: pb.Segment) -> int:
    return segment.operation.create_time.ToMilliseconds()


def with_campaigns(tables: Tables, campaigns: pl.DataFrame, sends: pl.DataFrame) -> None:
    """Add campaigns to tables, behind those that they have, as sent in their last period."""
    new = campaigns.join(
        tables.frames["campaigns"], "campaign_id", how="anti", maintain_order="left"
    )
    new = new.with_columns(period=pl.lit(tables.test_period, pl.Int64))
    tables.frames["campaigns"] = pl.concat([tables.frames["campaigns"], new])
    own = sends.join(new.select("campaign_id"), "campaign_id", how="semi", maintain_order="left")
    of_users = own.join(tables.frames["users"].select("user_id"), "user_id", how="semi")
    tables.frames["sends"] = pl.concat([tables.frames["sends"], of_users])


def _segments(stub: targeting_pb2_grpc.TargetingServiceStub) -> Iterator[pb.Segment]:
    """Those that are made, page by page."""
    token = ""
    while True:
        request = pb.ListSegmentsRequest(page_size=200, page_token=token)
        page = stub.ListSegments(request, timeout=_TIMEOUT)
        for segment in page.segments:
            if segment.operation.state == pb.OPERATION_STATE_DONE:
                yield segment
        token = page.next_page_token
        if not token:
            return


def _held_out(stub: targeting_pb2_grpc.TargetingServiceStub, segment_id: str) -> set[str]:
    request = pb.ListMembersRequest(segment_id=segment_id, part=pb.MEMBER_PART_HELD_OUT)
    try:
        stream = stub.ListMembers(request, timeout=_LONGEST)
        return {user for message in stream for user in message.user_ids}
    except grpc.RpcError as error:
        if error.code() not in _GONE:
            raise
        return set()  # it was deleted meanwhile


def _sends(
    stub: targeting_pb2_grpc.TargetingServiceStub, campaign_id: str, held: set[str]
) -> Iterator[Row]:
    """A row a user who was sent it, or held out; of others nobody knows why they did anything."""
    seen: set[str] = set()
    try:
        stream = stub.ListResults(pb.ListResultsRequest(campaign_id=campaign_id), timeout=_LONGEST)
        for message in stream:
            columns = message.user_ids, message.sent, message.clicked, message.ordered
            for user, sent, clicked, ordered in zip(*columns, strict=True):
                if sent or user in held:
                    seen.add(user)
                    yield campaign_id, user, bool(sent), bool(sent and clicked), bool(ordered)
    except grpc.RpcError as error:
        if error.code() not in _GONE:
            raise
        return
    for user in sorted(held - seen):
        yield campaign_id, user, False, False, False
