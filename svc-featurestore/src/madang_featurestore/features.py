"""Look-ups, writes and actions."""

from collections.abc import Sequence

from madang.feature.v1 import feature_store_pb2 as pb
from madang_featurestore.catalog import CompiledView, ViewCatalog
from madang_featurestore.freshness import check_fresh, parse_token, token
from madang_featurestore.rows import pack_rows, unpack_rows
from madang_featurestore.stores.base import RECENT_TTL_MS, Event, Read, RowStore
from madang_runtime.errors import invalid
from madang_runtime.times import given_ms, now_ms

MAX_ENTITIES = 20_000
MAX_ANSWER_BYTES = 12 * 2**20  # a gRPC message holds 16 MiB
# Rows outlive their expiry so that readers are told EXPIRED for a while instead of NOT_FOUND.
_KEEP_EXPIRED = 2
_FUTURE_MS = 300_000
_DEFAULT_RECENT = 3


class FeatureStore:
    """The domain of the service, on any `RowStore`."""

    def __init__(self, store: RowStore, catalog: ViewCatalog) -> None:
        self._store = store
        self._catalog = catalog

    def lookup(self, request: pb.LookupFeaturesRequest) -> tuple[pb.LookupFeaturesResponse, str]:
        """Read all views and users of a request in one round trip.

        Returns:
            the answer, and the freshness token that belongs into its serving info.

        Raises:
            MadangError: FIELD_INVALID, FEATURE_VIEW_NOT_FOUND, FEATURE_NOT_FOUND, NOT_FRESH_YET,
                STORED_DATA_INVALID, STORE_UNAVAILABLE.
        """
        entities = sum(len(lookup.entity_ids) for lookup in request.lookups)
        if entities > MAX_ENTITIES:
            raise invalid("lookups", f"asks for {entities} entities, at most {MAX_ENTITIES}")
        recent = request.recent_actions
        if not request.lookups and not recent.user_ids:
            raise invalid("lookups", "is empty, and so is recent_actions")
        wanted = parse_token(request.freshness_token)
        now = now_ms()
        views, read = self._read(request, now)
        check_fresh(read.sequence, wanted)
        answer, at = pb.LookupFeaturesResponse(), 0
        for view, lookup in zip(views, request.lookups, strict=True):
            values = read.values[at : at + len(lookup.entity_ids)]
            at += len(values)
            _decode(view, values, tuple(lookup.features), now, answer.rows.add())
        for user, payloads, hidden in zip(recent.user_ids, read.recent, read.hidden, strict=True):
            answer.recent_actions.append(_recent(user, payloads, hidden, recent))
        return answer, token(read.sequence)

    def _read(self, request: pb.LookupFeaturesRequest, now: int) -> tuple[list[CompiledView], Read]:
        """Read by the cached definitions; once more if they turn out to be old."""
        within = request.recent_actions.within.ToMilliseconds() or RECENT_TTL_MS
        if not 0 < within <= RECENT_TTL_MS:
            raise invalid("recent_actions.within", "must be positive and at most 1 hour")
        users = list(request.recent_actions.user_ids)
        snapshot = self._catalog.cached()
        while True:
            if any(lookup.view not in snapshot.views for lookup in request.lookups):
                snapshot = self._catalog.reload()
            views = [snapshot.find(lookup.view) for lookup in request.lookups]
            _check_size(views, request)
            pairs = zip(views, request.lookups, strict=True)
            keys = [view.keys(lookup.entity_ids) for view, lookup in pairs]
            read = self._store.read(keys, users, now - within)
            if read.epoch == snapshot.epoch:
                return views, read
            snapshot = self._catalog.reload()

    def write(self, request: pb.WriteFeaturesRequest) -> tuple[int, str]:
        """Replace rows of a view, all or none.

        Returns:
            the number of rows and the freshness token.

        Raises:
            MadangError: FIELD_INVALID, FEATURE_VIEW_NOT_FOUND, FEATURE_NOT_FOUND,
                SHAPE_MISMATCH, NOT_FINITE, STORE_UNAVAILABLE.
        """
        view = self._catalog.reload().find(request.view)
        if view.windows:
            raise invalid("view", f"{view.name!r} counts actions; use RecordActions")
        ids = list(request.entity_ids)
        if len(set(ids)) < len(ids):
            raise invalid("entity_ids", "has an id twice")
        now = now_ms()
        event_time_ms = _event_time(request, now)
        if view.ttl_ms is not None and event_time_ms + view.ttl_ms <= now:
            raise invalid("event_time", "is older than the view's ttl")
        packed = pack_rows(view.layout, request.blocks, len(ids), event_time_ms, view.ttl_ms)
        keep = None if view.ttl_ms is None else view.ttl_ms * _KEEP_EXPIRED
        if keep is not None:
            keep = max(keep - (now - event_time_ms), 1)
        sequence = self._store.write(dict(zip(map(view.key, ids), packed, strict=True)), keep)
        return len(ids), token(sequence)

    def record(self, actions: Sequence[pb.Action]) -> pb.RecordActionsResponse:
        """Count actions into windows and append them to users' last actions, all or none.

        Raises:
            MadangError: FIELD_INVALID, STORE_UNAVAILABLE.
        """
        now = now_ms()
        windowed = [view for view in self._catalog.reload().all() if view.windows]
        events = [
            event
            for i, action in enumerate(actions)
            if (event := _event(action, windowed, now, f"actions[{i}]"))
        ]
        recorded, sequence = self._store.record(events)
        return pb.RecordActionsResponse(
            recorded=sum(recorded),
            duplicates=len(recorded) - sum(recorded),
            late=len(actions) - len(events),
            freshness_token=token(sequence),
        )


def _decode(
    view: CompiledView,
    values: list[bytes | None],
    names: tuple[str, ...],
    now: int,
    answer: pb.ViewRows,
) -> None:
    answer.view, answer.version = view.name, view.layout.version
    if view.windows:
        view.windows.counts(view.layout, values, names, now, answer)
    else:
        unpack_rows(view.layouts, view.layout, values, names, now, answer)


def _recent(
    user: str, payloads: list[bytes], hidden: list[bytes], asked: pb.RecentActionsLookup
) -> pb.RecentActions:
    actions = [
        action
        for action in map(pb.Action.FromString, payloads)
        if not asked.types or action.type in asked.types
    ]
    return pb.RecentActions(
        user_id=user,
        actions=actions[: asked.limit or _DEFAULT_RECENT],
        hidden_item_ids=[item.decode() for item in hidden],
    )


def _check_size(views: list[CompiledView], request: pb.LookupFeaturesRequest) -> None:
    size = sum(
        len(lookup.entity_ids) * view.layout.dtype.itemsize
        for view, lookup in zip(views, request.lookups, strict=True)
    )
    if size > MAX_ANSWER_BYTES:
        raise invalid("lookups", f"reads {size:,} bytes of rows, at most {MAX_ANSWER_BYTES:,}")


def _event(action: pb.Action, windowed: list[CompiledView], now: int, field: str) -> Event | None:
    """The store's event of an action; None when it is too old to change anything."""
    if action.type == pb.ACTION_TYPE_SEARCH and not action.query:
        raise invalid(f"{field}.query", "is required for a search")
    if action.type != pb.ACTION_TYPE_SEARCH and not action.item_id:
        raise invalid(f"{field}.item_id", "is required unless the action is a search")
    time_ms = _event_time(action, now, f"{field}.")
    counters = {}
    for view in windowed:
        assert view.windows
        entity_id = action.item_id if view.windows.entity == "item" else action.user_id
        increments = view.windows.increments(action.type, time_ms, now)
        if entity_id and increments:
            counters[view.key(entity_id)] = (view.windows.longest_ms, increments)
    # Views are counted but not listed: three pages of them would push every click out.
    unlisted = (pb.ACTION_TYPE_VIEW, pb.ACTION_TYPE_HIDE)
    listed = action.type not in unlisted and time_ms >= now - RECENT_TTL_MS
    hides = action.item_id if action.type == pb.ACTION_TYPE_HIDE else ""
    if not counters and not listed and not hides:
        return None
    kept = pb.Action()
    kept.CopyFrom(action)
    kept.event_time.FromMilliseconds(time_ms)
    payload = kept.SerializeToString() if listed else b""
    return Event(action.event_id, action.user_id, time_ms, payload, counters, hides)


def _event_time(message: pb.Action | pb.WriteFeaturesRequest, now: int, path: str = "") -> int:
    time_ms = given_ms(message, "event_time", now, path)
    if time_ms > now + _FUTURE_MS:
        raise invalid(f"{path}event_time", "is more than 5 minutes in the future")
    return time_ms
