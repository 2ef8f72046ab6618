"""Messages to users: within their caps, and what became of them."""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from madang.targeting.v1 import targeting_pb2 as pb
from madang_runtime.errors import Code, MadangError, invalid, reason
from madang_runtime.times import given_ms, now_ms
from madang_targeting.caps import Bools, Caps, CapStore, Sends
from madang_targeting.results import Event, ResultStore, campaign_not_found

_FURTHEST_MS = 90 * 86_400_000
_AT_ONCE = 10_000
_EVENTS = {pb.OUTCOME_CLICK: Event.CLICK, pb.OUTCOME_ORDER: Event.ORDER}


class Outreach:
    """The domain of the RPCs about caps, sends and results.

    Args:
        caps: of users.
        sent: what they were sent.
        results: what became of it.
    """

    def __init__(self, caps: Caps, sent: CapStore, results: ResultStore) -> None:
        self._caps, self._sent, self._results = caps, sent, results

    def allowed(self, channel: str, user_ids: Sequence[str]) -> Bools:
        """Whose caps allow a new message now. Raises: CHANNEL_NOT_FOUND, STORE_UNAVAILABLE."""
        self._check(channel)
        return self._sent.allowed(self._caps, Sends("", channel, int(time.time()), user_ids))

    def check(self, request: pb.CheckCapsRequest) -> pb.CheckCapsResponse:
        """Answer CheckCaps. Raises: MadangError, as the proto says."""
        found = self._sent.allowed(self._caps, self._sends(request))
        return pb.CheckCapsResponse(
            allowed=found.astype(np.uint8).tobytes(), allowed_count=int(found.sum())
        )

    def record(self, request: pb.RecordSendsRequest) -> pb.RecordSendsResponse:
        """Answer RecordSends. Raises: MadangError, as the proto says."""
        sends = self._sends(request)
        found = self._sent.record(self._caps, sends)
        users = [user for user, may in zip(sends.user_ids, found.tolist(), strict=True) if may]
        if users:
            self._results.append(request.campaign_id, Event.SENT, users, request.channel)
        return pb.RecordSendsResponse(
            recorded=found.astype(np.uint8).tobytes(), recorded_count=len(users)
        )

    def results(self, request: pb.RecordResultsRequest) -> None:
        """Answer RecordResults. Raises: MadangError STORE_UNAVAILABLE."""
        self._results.append(
            request.campaign_id, _EVENTS[request.outcome], list(dict.fromkeys(request.user_ids))
        )

    def list_results(self, request: pb.ListResultsRequest) -> Iterator[pb.ListResultsResponse]:
        """Answer ListResults. Raises: MadangError, as the proto says."""
        found = self._results.read(request.campaign_id)
        if not found:
            raise campaign_not_found(request.campaign_id)
        users = sorted(set().union(*found.values()))
        for at in range(0, len(users), _AT_ONCE):
            own = users[at : at + _AT_ONCE]
            sent, clicked, ordered = (
                bytes(user in found.get(event, ()) for user in own) for event in Event
            )
            yield pb.ListResultsResponse(user_ids=own, sent=sent, clicked=clicked, ordered=ordered)

    def _sends(self, request: pb.CheckCapsRequest | pb.RecordSendsRequest) -> Sends:
        self._check(request.channel)
        users = list(request.user_ids)
        if len(set(users)) < len(users):
            raise invalid("user_ids", "name a user twice")
        now = now_ms()
        sent = given_ms(request, "send_time", now)
        if abs(sent - now) > _FURTHEST_MS:
            raise invalid("send_time", "must be within 90 days from now")
        return Sends(request.campaign_id, request.channel, sent // 1000, users)

    def _check(self, channel: str) -> None:
        if channel not in self._caps.channels:
            raise MadangError(
                Code.NOT_FOUND,
                reason.ERROR_REASON_CHANNEL_NOT_FOUND,
                f"channel: {channel!r} is not configured; there are "
                + ", ".join(self._caps.channels),
                field="channel",
            )
