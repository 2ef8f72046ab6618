"""Predict and PredictBatch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import h3
import numpy as np
from numpy.typing import NDArray

from madang.eta.v1 import eta_pb2 as pb
from madang.feature.v1 import feature_store_pb2
from madang_eta import lists
from madang_eta.answers import DEFAULT_LEVELS, Arrivals, one_answer
from madang_eta.buffers import BUFFERS_TOKEN, TimeBuffers
from madang_eta.dependencies import Features
from madang_eta.distribution import Floats, means
from madang_eta.orders import Coded, Ints, Orders, Points
from madang_eta.reading import read_all
from madang_eta.resolving import Resolver, Service
from madang_eta.stage_model import EtaModel, Progress
from madang_runtime.changelog.follower import Follower
from madang_runtime.errors import DEGRADABLE, MadangError, invalid
from madang_runtime.freshness import position
from madang_runtime.stages import Stages
from madang_runtime.times import given_ms, now_ms

_BUFFER_CELLS = 10
_MINUTE_MS = 60_000
_LEAST_HIT_RATE = 0.01
Watch = Callable[[Service, Orders, Floats], None]


@dataclass(frozen=True)
class _Batch:
    """One PredictBatch under way: rows are filled into `found`."""

    request: pb.PredictBatchRequest
    shop_ids: list[str]
    place: Floats
    levels: Floats
    placed: int
    found: Arrivals
    stages: Stages


class _Group(NamedTuple):
    """Rows of a batch that are of one service."""

    service: Service
    model: EtaModel
    rows: Ints


class ArrivalPredictor:
    """The domain of the two RPCs.

    Args:
        resolver: finds shops and services.
        features: the feature store.
        buffers: time buffers; `follower` keeps them at the state of their log.
        list_seconds: how far from now a time may be that refreshed estimates count for.
        watch: is told what is computed for orders that nothing has happened to, such as to compare
            a shadow model.
    """

    def __init__(
        self,
        resolver: Resolver,
        features: Features,
        buffers: TimeBuffers,
        follower: Follower,
        list_seconds: float,
        watch: Watch = lambda service, orders, pmf: None,
    ) -> None:
        self._resolver, self._features = resolver, features
        self._buffers, self._follower = buffers, follower
        self._list_ms = list_seconds * 1000
        self._watch = watch

    def predict(self, request: pb.PredictRequest, stages: Stages) -> pb.PredictResponse:
        """Answer Predict.

        Raises:
            MadangError: ETA_SERVICE_NOT_FOUND, SHOP_NOT_FOUND, FIELD_INVALID, SHAPE_MISMATCH,
                NOT_FINITE, NOT_READY, NOT_FRESH_YET, FRESHNESS_TOKEN_INVALID.
        """
        if 0 < request.hit_rate < _LEAST_HIT_RATE:
            raise invalid("hit_rate", f"is {request.hit_rate:g}, must be 0 or at least 0.01")
        self._follower.reach(position(request.freshness_token, BUFFERS_TOKEN))
        rows, failure = self._resolver.of_shops(request.service, [request.shop_id])
        if not rows:
            assert failure
            raise failure
        name = next(iter(rows))
        service = self._resolver.service(name)
        model, now = service.model(), now_ms()
        placed = given_ms(request, "order_time", now)
        look_up = partial(stages.call, self._features)
        orders = self._resolver.order(model, request, placed, look_up)
        progress = _progress(request, model, placed, now)
        (inputs,), token = self._inputs([(model, orders)], request.freshness_token, stages)
        with stages.stage("distribution"):
            parts = model.distributions(inputs)
            pmf = model.left(parts, progress) if progress else model.combine(parts)
        if not progress:
            self._watch(service, orders, pmf)
        took = progress.took if progress else ()
        over = len(took) == len(parts)
        answer = one_answer(
            pmf, service.kind, request, 0 if over else int(self._minutes(name, orders)[0])
        )
        answer.service = name
        answer.stages.extend(_stages(model, parts, took))
        answer.serving_info.CopyFrom(stages.serving_info([model.version], freshness_token=token))
        return answer

    def batch(self, request: pb.PredictBatchRequest, stages: Stages) -> pb.PredictBatchResponse:
        """Answer PredictBatch.

        Raises:
            MadangError: ETA_SERVICE_NOT_FOUND, FIELD_INVALID, NOT_READY, NOT_FRESH_YET,
                FRESHNESS_TOKEN_INVALID.
        """
        self._follower.reach(position(request.freshness_token, BUFFERS_TOKEN))
        shop_ids, levels = list(request.shop_ids), np.array(request.quantiles or DEFAULT_LEVELS)
        now = now_ms()
        batch = _Batch(
            request,
            shop_ids,
            np.array([request.place.latitude, request.place.longitude]),
            levels,
            given_ms(request, "order_time", now),
            Arrivals.none(len(shop_ids), len(levels)),
            stages,
        )
        found, failure = self._resolver.of_shops(request.service, shop_ids)
        if not found:
            assert failure
            raise failure
        if failure:
            stages.degrade("eta", failure, "nothing of shops whose service has no model")
        services = [(self._resolver.service(name), rows) for name, rows in found.items()]
        groups = [_Group(service, service.model(), rows) for service, rows in services]
        left = [group.rows for group in groups]
        kept = lists.LEVELS[0] <= levels.min() and levels.max() <= lists.LEVELS[-1]
        if kept and not request.online and abs(batch.placed - now) <= self._list_ms:
            left = self._take_listed(batch, groups)
        self._compute(batch, [g._replace(rows=r) for g, r in zip(groups, left, strict=True)])
        answer = batch.found.answer()
        versions = [group.model.version for group in groups]
        token = request.freshness_token
        answer.serving_info.CopyFrom(stages.serving_info(versions, freshness_token=token))
        return answer

    def _take_listed(self, batch: _Batch, groups: list[_Group]) -> list[Ints]:
        """Fill in what has been refreshed, with one look-up for all, and return each group's rows
        that have not."""
        cell = h3.latlng_to_cell(*batch.place.tolist(), lists.CELL_RESOLUTION)
        ids: list[str] = []
        for group in groups:
            shops = group.model.shops
            found = shops.rows([batch.shop_ids[i] for i in group.rows.tolist()])
            names = [shops.shop_ids[s] if s >= 0 else "-" for s in found.tolist()]
            ids += [lists.list_key(group.service.name, name, cell) for name in names]
        look_up = feature_store_pb2.LookupFeaturesRequest(
            lookups=[lists.INPUTS.lookup(ids)], freshness_token=batch.request.freshness_token
        )
        try:
            answer = batch.stages.call(self._features, look_up)
        except MadangError as error:
            _degradable(error)
            return [group.rows for group in groups]  # what computes them names the degradation
        kept = lists.INPUTS.pack(answer.rows[0], len(ids)).floats
        left, start = [], 0
        for group in groups:
            own = kept[start : start + len(group.rows)]
            start += len(group.rows)
            left.append(self._put_listed(batch, group, own))
        return left

    def _put_listed(self, batch: _Batch, group: _Group, kept: Floats) -> Ints:
        """Fill in a group's rows, and return those that have none."""
        fresh = ~np.isnan(kept[:, 0])
        if fresh.any():
            shops = group.model.shops
            named = [batch.shop_ids[i] for i in group.rows[fresh].tolist()]
            origin, ids = shops.columns(shops.rows(named))
            buffer = self._buffers_of(group.service.name, ids["shop"], origin, batch.placed)
            # What arrives earlier than now arrives now: that takes the distribution itself.
            later = buffer >= 0
            fresh[fresh] = later
            made = lists.listed(kept[fresh], batch.levels, buffer[later])
            batch.found.put(group.rows[fresh], made)
        return group.rows[~fresh]

    def _compute(self, batch: _Batch, groups: list[_Group]) -> None:
        """Fill in groups by their models, with one look-up for all; shops that nobody knows stay
        as they are."""
        known: list[tuple[_Group, Orders]] = []
        for group in groups:
            if len(group.rows):
                orders, found = self._orders(batch, group.model, group.rows)
                known += [(group._replace(rows=group.rows[found]), orders)] if len(found) else []
        if not known:
            return
        parts = [(group.model, orders) for group, orders in known]
        inputs, _ = self._inputs(parts, batch.request.freshness_token, batch.stages)
        with batch.stages.stage("distribution"):
            arrivals = [
                group.model.arrivals(rows) for (group, _), rows in zip(known, inputs, strict=True)
            ]
        for (group, orders), pmf in zip(known, arrivals, strict=True):
            buffer = self._minutes(group.service.name, orders)
            length = group.service.kind.window_minutes
            batch.found.put(group.rows, Arrivals.of(pmf, batch.levels, length, buffer))
            self._watch(group.service, orders, pmf)

    def _orders(self, batch: _Batch, model: EtaModel, rows: Ints) -> tuple[Orders, Ints]:
        """The orders of rows, and which of them are of shops that could be found."""
        ids = [batch.shop_ids[i] for i in rows.tolist()]
        wanted = model, ids, batch.place, batch.placed
        try:
            return self._resolver.batch(*wanted, partial(batch.stages.call, self._features))
        except MadangError as error:
            _degradable(error)
            batch.stages.degrade("featurestore", error, "nothing of shops that are new")
            return self._resolver.batch(*wanted, None)

    def _inputs(
        self, parts: list[tuple[EtaModel, Orders]], token: str, stages: Stages
    ) -> tuple[list[NDArray[np.float32]], str]:
        """The inputs of models, each of its own orders, and the store's freshness token."""
        readers = [(model.reader, orders) for model, orders in parts]
        try:
            return read_all(readers, partial(stages.call, self._features), token)
        except MadangError as error:
            _degradable(error)
            stages.degrade("featurestore", error, "from distance and time alone")
            return [reader.without_store(orders) for reader, orders in readers], token

    def _minutes(self, name: str, orders: Orders) -> Ints:
        shops = orders.ids.get("shop") or Coded.same("", len(orders))
        return self._buffers_of(name, shops, orders.origin, int(orders.time_ms[0]))

    def _buffers_of(self, name: str, shops: Coded, origin: Points, placed: int) -> Ints:
        """Minutes that buffers add to each row, of orders that are placed at one time."""
        if not self._buffers.any():
            return np.zeros(len(shops.codes), np.int64)
        cells = origin.cells(_BUFFER_CELLS)
        pairs = shops.with_(cells) if all(cells.values) else shops
        minutes = np.zeros(len(shops.codes), np.int64)
        when = max(now_ms(), placed)
        _, firsts = np.unique(pairs.codes, return_index=True)
        for row in firsts.tolist():
            shop, cell = shops.values[shops.codes[row]], cells.values[cells.codes[row]]
            same = pairs.codes == pairs.codes[row]
            minutes[same] = self._buffers.minutes(name, shop, cell, when)
        return minutes


def _progress(
    request: pb.PredictRequest, model: EtaModel, placed: int, now: int
) -> Progress | None:
    """How far the order is, None when it is yet to be placed. Raises: MadangError FIELD_INVALID."""
    expected = [stage.name for stage in model.stages[: len(request.events)]]
    named = [event.stage for event in request.events]
    if named != expected:
        order = ", ".join(stage.name for stage in model.stages)
        raise invalid("events", f"are {', '.join(named)}; stages end in the order {order}")
    times = [placed]
    for i, event in enumerate(request.events):
        times.append(given_ms(event, "time", now, f"events[{i}]."))
        if times[-1] < times[-2]:
            raise invalid(f"events[{i}].time", "is before what came before it")
    default = max(now, times[-1]) if request.events else placed
    as_of = given_ms(request, "as_of", default)
    if as_of < times[-1]:
        raise invalid("as_of", "is before the order was placed or its last event")
    took = np.diff(times) / _MINUTE_MS
    elapsed = (as_of - times[-1]) / _MINUTE_MS
    return Progress(tuple(took.tolist()), elapsed) if len(took) or elapsed else None


def _stages(model: EtaModel, parts: list[Floats], took: tuple[float, ...]) -> list[pb.Stage]:
    found = []
    for i, (spec, part) in enumerate(zip(model.stages, parts, strict=True)):
        over = i < len(took)
        found.append(
            pb.Stage(
                name=spec.name,
                took_minutes=took[i] if over else None,
                probabilities=b"" if over else part[0].astype("<f4").tobytes(),
                mean_minutes=float(means(part)[0]),
            )
        )
    return found


def _degradable(error: MadangError) -> None:
    """Let pass only errors that may degrade an answer; any other is raised again."""
    if error.code not in DEGRADABLE:
        raise error
