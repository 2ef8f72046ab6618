"""Lists made beforehand: what each cohort and each demographic segment likes in each area."""

from collections.abc import Iterator

import h3
import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang.candidate.v1 import candidate_pb2
from madang_candidate.lists import AREA_RESOLUTION, EVERYWHERE
from madang_pipelines.features import FeatureBuilder, look_up
from madang_pipelines.tables import Tables
from madang_runtime.segments import EVERYBODY

Floats = NDArray[np.float64]

_KEPT, _FEWEST = 100, 10
_PRIOR_ORDERS = 200.0
SHOP = 1


def segment_lists(tables: Tables, segments: pl.DataFrame) -> pl.DataFrame:
    """The lists, one row each: segment, area, item_ids and scores (best first).

    A segment's score of an item is its share of the segment's orders, drawn towards everybody's as
    if by 200 orders. A demographic segment has few orders of its own: it is mapped on the cohorts,
    as the mean of their scores by how many of its warm users each has. An area's list has the shops
    in the area and the areas beside it.
    """
    builder = FeatureBuilder(tables)
    past = tables.frames["actions"].filter(
        (pl.col("type") == "order") & (pl.col("period") < tables.test_period)
    )
    users = look_up(builder.user_rows, past["user_id"])
    items = look_up(builder.item_rows, past["item_id"])
    scores = _scores(segments, users, items, len(builder.item_rows))
    ids = builder.item_rows["id"].to_numpy()
    rows = [
        {
            "segment": segment,
            "area": area,
            "item_ids": ids[best].tolist(),
            "scores": score[best].astype(np.float32).tolist(),
        }
        for area, of_area in _areas(tables)
        for segment, score in scores.items()
        if len(best := of_area[np.argsort(-score[of_area], kind="stable")[:_KEPT]])
    ]
    schema = {
        "segment": pl.String(),
        "area": pl.UInt64(),
        "item_ids": pl.List(pl.String()),
        "scores": pl.List(pl.Float32()),
    }
    return pl.DataFrame(rows, schema)


def upserts(lists: pl.DataFrame) -> Iterator[candidate_pb2.SegmentList]:
    """The lists as UpsertLists takes them."""
    for row in lists.iter_rows(named=True):
        scores = np.array(row["scores"], "<f4").tobytes()
        yield candidate_pb2.SegmentList(
            segment=row["segment"], area=row["area"], item_ids=row["item_ids"], scores=scores
        )


def _scores(
    segments: pl.DataFrame, users: NDArray[np.int64], items: NDArray[np.int64], n: int
) -> dict[str, Floats]:
    """Each segment's score of each item."""
    everybody = np.bincount(items, minlength=n) / max(len(items), 1)
    scores = {EVERYBODY: everybody}
    cohort = segments["cohort"].fill_null(-1).to_numpy()
    for c in np.unique(cohort[cohort >= 0]).tolist():
        own = np.bincount(items[cohort[users] == c], minlength=n)
        scores[f"cohort={c}"] = (own + _PRIOR_ORDERS * everybody) / (own.sum() + _PRIOR_ORDERS)
    warm = segments.drop_nulls().group_by("demographic", "cohort").len().sort("demographic")
    for (demographic,), cohorts in warm.group_by("demographic", maintain_order=True):
        weights = cohorts["len"].to_numpy() / cohorts["len"].sum()
        means = [scores[f"cohort={c}"] for c in cohorts["cohort"].to_list()]
        scores[f"demographic={demographic}"] = np.average(means, axis=0, weights=weights)
    return scores


def _areas(tables: Tables) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Everywhere and each area, with the rows of their shops."""
    frame = tables.frames["items"]
    shops = np.flatnonzero(frame["kind"].to_numpy() == SHOP)
    yield EVERYWHERE, shops
    places = frame.select("latitude", "longitude").to_numpy()[shops]
    cells = [h3.latlng_to_cell(*place, AREA_RESOLUTION) for place in places.tolist()]
    of_cell: dict[str, list[int]] = {}
    for row, cell in zip(shops.tolist(), cells, strict=True):
        of_cell.setdefault(cell, []).append(row)
    for area in sorted({near for cell in of_cell for near in h3.grid_disk(cell, 1)}):
        rows = [row for near in h3.grid_disk(area, 1) for row in of_cell.get(near, ())]
        if len(rows) >= _FEWEST:
            yield h3.str_to_int(area), np.array(rows)
