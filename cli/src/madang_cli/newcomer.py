"""The demo's fresh shop: it opens while the mesh serves, and users like those of the city try it.

It is the twin of a shop of the simulated city, at its place and with its menu, but the models have
never seen it. Who would open it is known from the simulator.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from madang.candidate.v1 import candidate_pb2, candidate_pb2_grpc
from madang.common.v1 import place_pb2
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang_pipelines.city.truth import Truth, kilometres
from madang_pipelines.features import ITEM_VIEW, load_views
from madang_pipelines.publish import feature_blocks
from madang_pipelines.tables import Tables

NEWCOMER = "fresh-shop"
SURFACE = "discover"
_EVENING = 19
_WAVES, _USERS, _PAGE, _TIMEOUT = 5, 150, 10, 5.0
_LEARNS_SECONDS = 2.0  # a batch a second, and a look at it every half second


@dataclass(frozen=True)
class Wave:
    """What became of the shop in one wave of users near it.

    Attributes:
        users: who came.
        shown: pages that had it.
        opened: how many of those users opened it.
        liking: mean probability, if they see it, that those whom it was shown to open it.
        usual: the same of all who came.
    """

    users: int
    shown: int
    opened: int
    liking: float
    usual: float


class Newcomer:
    """A shop that opens now.

    Args:
        tables, truth: of the simulated city.
        features: the folder of its published features.
        gateway: of the mesh.

    Attributes:
        last_page: the last page that showed it.
    """

    def __init__(self, tables: Tables, truth: Truth, features: Path, gateway: str) -> None:
        self._items, self._truth = tables.frames["items"], truth
        self._features, self._gateway = features, gateway
        self._rng = np.random.default_rng(7)
        rows = {item_id: row for row, item_id in enumerate(self._items["item_id"].to_list())}
        self._visits = _evening_visits(tables)
        self._twin = self._choose()
        self._row_of = {**rows, NEWCOMER: self._twin}
        self.last_page = ranker_pb2.RecommendResponse()

    @property
    def twin(self) -> str:
        """The shop that it is the twin of."""
        return str(self._items["item_id"][self._twin])

    def _choose(self) -> int:
        """A shop that some around it would like much more than others."""
        radius, best = self._items["radius_km"].to_numpy(), (0.0, 0)
        able = ~self._truth.is_ad & ((self._items["open_hours"].to_numpy() >> _EVENING) & 1 > 0)
        for row in self._rng.permutation(np.flatnonzero(able))[:200].tolist():
            near = self._near(row, float(radius[row]))
            if len(near) >= _USERS:
                likes = self._liking(near, np.full((len(near), 1), row))
                best = max(best, (float(likes.std()), row))
        return best[1]

    def _near(self, row: int, radius: float) -> pl.DataFrame:
        away = kilometres(
            self._visits.select("latitude", "longitude").to_numpy(), self._truth.item_places[row]
        )
        return self._visits.filter(pl.Series(away < radius - 1))

    def _liking(self, visits: pl.DataFrame, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The true probability that each visitor opens each item, if they see it."""
        click, _ = self._truth.probabilities(
            visits["user"].to_numpy()[:, None],
            rows,
            np.full((len(visits), 1), _EVENING),
            visits.select("latitude", "longitude").to_numpy()[:, None, :],
        )
        return click

    def open(self) -> float:
        """Put the shop in; returns the seconds until a feed near it could show it."""
        item = self._items.row(self._twin, named=True)
        view = load_views()[ITEM_VIEW]
        known = pl.read_parquet(self._features / f"{ITEM_VIEW}.parquet")[self._twin]
        unknown = ("item_code", "click_rate", "order_rate")
        row = known.with_columns(
            *(pl.lit(None).cast(known.schema[name]).alias(name) for name in unknown),
            orders=pl.lit(0.0, pl.Float32),
        )
        place = place_pb2.Place(latitude=item["latitude"], longitude=item["longitude"])
        request = candidate_pb2.UpsertItemsRequest(
            items=[
                candidate_pb2.Item(
                    item_id=NEWCOMER,
                    kind=place_pb2.ITEM_KIND_SHOP,
                    place=place,
                    delivery_radius_km=item["radius_km"],
                    open_hours=item["open_hours"],
                )
            ],
            features=feature_blocks(view, row, f"{ITEM_VIEW}."),
        )
        with grpc.insecure_channel(self._gateway) as channel:
            candidates = candidate_pb2_grpc.CandidateServiceStub(channel)
            candidates.GetIndexInfo(candidate_pb2.GetIndexInfoRequest(), timeout=_TIMEOUT)
            started = time.perf_counter()
            token = candidates.UpsertItems(request, timeout=_TIMEOUT).freshness_token
            retrieve = candidate_pb2.RetrieveRequest(
                user_id="someone", place=place, freshness_token=token, surface=SURFACE, limit=2000
            )
            retrieve.request_time.FromMilliseconds(int(self._visits["time"][0]))
            found = candidates.Retrieve(retrieve, timeout=_TIMEOUT)
            assert NEWCOMER in found.item_ids
            return time.perf_counter() - started

    def waves(self, progress: Callable[[float], None]) -> list[Wave]:
        """Let users near the shop come in waves, and the bandit learn between them."""
        radius = float(self._items["radius_km"][self._twin])
        near = self._near(self._twin, radius)
        found = []
        with grpc.insecure_channel(self._gateway) as channel:
            ranker = ranker_pb2_grpc.RankerServiceStub(channel)
            for number in range(_WAVES):
                drawn = self._rng.choice(len(near), min(_USERS, len(near)), replace=False)
                found.append(self._wave(ranker, near[drawn]))
                time.sleep(_LEARNS_SECONDS)
                progress((number + 1) / _WAVES)
        return found

    def _wave(self, ranker: ranker_pb2_grpc.RankerServiceStub, visits: pl.DataFrame) -> Wave:
        events: list[ranker_pb2.FeedbackEvent] = []
        shown, opened = [], 0
        for i, visit in enumerate(visits.iter_rows(named=True)):
            request = ranker_pb2.RecommendRequest(
                user_id=visit["user_id"],
                place=place_pb2.Place(latitude=visit["latitude"], longitude=visit["longitude"]),
                page_size=_PAGE,
                surface=SURFACE,
            )
            request.request_time.FromMilliseconds(visit["time"])
            page = ranker.Recommend(request, timeout=_TIMEOUT)
            ids = [item.item_id for item in page.items]
            rows = np.array([[self._row_of[item_id] for item_id in ids]])
            clicks = self._rng.random(len(ids)) < self._liking(visits[i : i + 1], rows)[0]
            if NEWCOMER in ids:
                self.last_page = page
                shown.append(i)
                opened += bool(clicks[ids.index(NEWCOMER)])
            for item_id, clicked in zip(ids, clicks.tolist(), strict=True):
                kinds = [ranker_pb2.FEEDBACK_TYPE_IMPRESSION]
                kinds += [ranker_pb2.FEEDBACK_TYPE_CLICK] * clicked
                events += [_event(kind, visit["user_id"], item_id, page) for kind in kinds]
        for start in range(0, len(events), 1000):
            told = ranker_pb2.RecordFeedbackRequest(events=events[start : start + 1000])
            ranker.RecordFeedback(told, timeout=_TIMEOUT)
        liking = self._liking(visits, np.full((len(visits), 1), self._twin))[:, 0]
        return Wave(
            len(visits),
            len(shown),
            opened,
            float(liking[shown].mean()) if shown else 0.0,
            float(liking.mean()),
        )


def _event(
    kind: ranker_pb2.FeedbackType.ValueType,
    user_id: str,
    item_id: str,
    page: ranker_pb2.RecommendResponse,
) -> ranker_pb2.FeedbackEvent:
    return ranker_pb2.FeedbackEvent(
        event_id=uuid.uuid4().hex,
        type=kind,
        user_id=user_id,
        item_id=item_id,
        request_id=page.request_id,
        surface=SURFACE,
    )


def _evening_visits(tables: Tables) -> pl.DataFrame:
    """Sessions at seven in the evening, with the user's row; one a user."""
    sessions = tables.frames["sessions"]
    hours = tables.clock.local_hours(sessions["time"].to_numpy(), sessions["longitude"].to_numpy())
    users = tables.frames["users"].select("user_id").with_row_index("user")
    return (
        sessions.filter(pl.Series(hours % 24 == _EVENING))
        .unique("user_id", keep="last", maintain_order=True)
        .join(users, "user_id", maintain_order="left")
    )


def print_waves(waves: list[Wave], console: Console) -> None:
    """How a fresh shop found its audience."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("wave", "users near", "were shown it", "opened it"):
        table.add_column(column, justify="right")
    table.add_column("would open it, if seen: they", justify="right")
    table.add_column("all near", justify="right")
    for number, wave in enumerate(waves, 1):
        table.add_row(
            str(number),
            str(wave.users),
            str(wave.shown),
            str(wave.opened),
            f"{wave.liking:.0%}",
            f"{wave.usual:.0%}",
        )
    console.print(table)
