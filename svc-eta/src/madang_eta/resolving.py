"""Which shop, kind of service and place a request means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from madang.common.v1 import tensor_pb2
from madang.eta.v1 import eta_pb2 as pb
from madang.feature.v1 import feature_store_pb2
from madang_eta.kinds import Kind, not_found
from madang_eta.orders import Coded, Floats, Ints, Orders, Points
from madang_eta.reading import LookUp
from madang_eta.stage_model import EtaModel
from madang_runtime.columns import block_columns
from madang_runtime.errors import Code, MadangError, invalid, reason
from madang_runtime.models.inputs import ViewInputs
from madang_runtime.models.manifest import FeatureRef

ITEM_VIEW = "item_profile"
_PLACE = ViewInputs(
    ITEM_VIEW,
    [FeatureRef(view=ITEM_VIEW, name=n, dtype="FLOAT32") for n in ("latitude", "longitude")],
)


@dataclass(frozen=True)
class Service:
    """A kind of service as it is served: its settings, and what gives the model of now."""

    name: str
    kind: Kind
    model: Callable[[], EtaModel]


class Resolver:
    """Finds shops among those that the models know, else in the feature store.

    Args:
        services: by name; the first is taken for shops that none knows.
    """

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = services

    def service(self, name: str) -> Service:
        """A service by name. Raises: MadangError ETA_SERVICE_NOT_FOUND."""
        if name not in self._services:
            raise not_found(name, self._services)
        return self._services[name]

    def of_shops(
        self, name: str, shop_ids: list[str]
    ) -> tuple[dict[str, Ints], MadangError | None]:
        """Rows of a request by service: the one that is named, or each shop's own.

        Returns:
            the rows; and why there are none of the first service, which shops that none knows
            belong to, when it has no model.

        Raises:
            MadangError: ETA_SERVICE_NOT_FOUND.
        """
        if name:
            return {self.service(name).name: np.arange(len(shop_ids))}, None
        left, found = np.ones(len(shop_ids), bool), {}
        first = next(iter(self._services))
        failure: MadangError | None = None
        for service in self._services.values():
            try:
                known = service.model().shops.rows(shop_ids) >= 0
            except MadangError as error:
                failure = error if service.name == first else failure
                continue
            found[service.name] = np.flatnonzero(left & known)
            left &= ~known
        if first in found:
            found[first] = np.union1d(found[first], np.flatnonzero(left))
        rows = {service: rows for service, rows in found.items() if len(rows)}
        return rows, failure if left.any() else None

    def batch(
        self,
        model: EtaModel,
        shop_ids: list[str],
        place: Floats,
        time_ms: int,
        look_up: LookUp | None,
    ) -> tuple[Orders, Ints]:
        """Orders from shops to one place; and which of the shops could be found.

        Args:
            model: of their service.
            shop_ids: n shops.
            place: degrees, shape [2].
            time_ms: when they are placed.
            look_up: the feature store, for shops that the model does not know; None: leave them.

        Raises:
            MadangError: the feature store's.
        """
        rows = model.shops.rows(shop_ids)
        known = np.flatnonzero(rows >= 0)
        origin, ids = model.shops.columns(rows[known])
        unknown = np.flatnonzero(rows < 0)
        if look_up and len(unknown):
            others = [shop_ids[i] for i in unknown.tolist()]
            degrees = _stored_places(others, look_up)
            found = ~np.isnan(degrees).any(1)
            known = np.concatenate([known, unknown[found]])
            names = [others[i] for i in np.flatnonzero(found).tolist()]
            origin = Points.of(np.concatenate([origin.rows(), degrees[found]]))
            ids = {
                "shop": Coded.of([*_values(ids["shop"]), *names]),
                "category": Coded.of([*_values(ids["category"]), *[""] * len(names)]),
            }
        n = len(known)
        there = Points(place[None, :], np.zeros(n, np.int64))
        return Orders(np.full(n, time_ms), origin, there, np.full(n, np.nan), ids), known

    def order(
        self, model: EtaModel, request: pb.PredictRequest, time_ms: int, look_up: LookUp
    ) -> Orders:
        """The one order of a request.

        Raises:
            MadangError: SHOP_NOT_FOUND; FIELD_INVALID, SHAPE_MISMATCH or NOT_FINITE for numbers
                that the model does not read, or that are none; the feature store's.
        """
        ids = {"shop": Coded.same(request.shop_id, 1)}
        row = int(model.shops.rows([request.shop_id])[0])
        origin = np.full((1, 2), np.nan)
        if row >= 0:
            points, ids = model.shops.columns(np.array([row]))
            origin = points.rows()
        if request.HasField("origin"):
            origin = np.array([[request.origin.latitude, request.origin.longitude]])
        elif row < 0:
            origin = _place_of(request.shop_id, look_up)
        ids["courier"] = Coded.same(request.courier_id, 1)
        ids["user"] = Coded.same(request.user_id, 1)
        place = np.array([[request.place.latitude, request.place.longitude]])
        return Orders(
            np.array([time_ms]),
            Points(origin, np.zeros(1, np.int64)),
            Points(place, np.zeros(1, np.int64)),
            np.array([request.distance_km or np.nan]),
            ids,
            _numbers(model, request),
        )


def _place_of(shop_id: str, look_up: LookUp) -> Floats:
    if not shop_id:
        raise invalid("origin", "is required without a shop_id")
    found = _stored_places([shop_id], look_up)
    if np.isnan(found).any():
        raise MadangError(
            Code.NOT_FOUND,
            reason.ERROR_REASON_SHOP_NOT_FOUND,
            f"shop_id: nothing says where {shop_id!r} is; give its origin",
            field="shop_id",
        )
    return found


def _stored_places(shop_ids: list[str], look_up: LookUp) -> Floats:
    """Degrees of shops in the feature store, shape [n, 2]; NaN where it has none."""
    request = feature_store_pb2.LookupFeaturesRequest(lookups=[_PLACE.lookup(shop_ids)])
    answer = look_up(request)
    return _PLACE.pack(answer.rows[0], len(shop_ids)).floats.astype(np.float64)


def _values(coded: Coded) -> list[str]:
    return [coded.values[c] for c in coded.codes.tolist()]


def _numbers(model: EtaModel, request: pb.PredictRequest) -> dict[str, Floats]:
    """What the request says of the model's numbers, shape [1] each."""
    if not request.HasField("numbers"):
        return {}
    values, dims, statuses = block_columns(request.numbers, 1, "numbers")
    if values.dtype.kind != "f" or set(dims) != {1}:
        raise invalid("numbers", "must be FLOAT32, one of each")
    names = request.numbers.features
    if len(set(names)) < len(names):
        raise invalid("numbers.features", "names one twice")
    if unread := sorted(set(names) - set(model.layout.numbers)):
        known = ", ".join(model.layout.numbers) or "none"
        raise invalid("numbers.features", f"{unread[0]!r} is not read; the model reads {known}")
    present = statuses == tensor_pb2.FEATURE_STATUS_PRESENT
    row = np.where(present, values, np.nan)[0]
    return {name: row[i : i + 1] for i, name in enumerate(names)}
