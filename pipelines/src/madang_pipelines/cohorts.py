"""Groups users: the warm by the clusters of their vectors, all by age and gender."""

from collections.abc import Mapping

import faiss
import h3
import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_candidate.lists import AREA_RESOLUTION
from madang_candidate.tower import TowerBundle
from madang_pipelines.tables import Tables
from madang_runtime.models.context import context_rows
from madang_runtime.models.inputs import InputRows
from madang_runtime.segments import EVERYBODY

COHORTS = 16
_WARM_ORDERS = 3
_USERS_A_COHORT = 40
_EVENING_HOUR = 19


def user_segments(
    tables: Tables, bundle: TowerBundle, users: InputRows, before: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The rows of the view user_segments, one a user, as of the end of the data.

    Users with orders enough are clustered by k-means of their vectors, each as they would ask from
    home in the evening, less the mean of their area: what is left is taste, and not where they
    live. The others have no cohort.

    Args:
        tables, bundle: the data and the towers.
        users: their feature rows.
        before: the rows of the training before: a cluster keeps the number of the cohort that most
            of its users were in, so that what was counted and listed for it stays its own.
    """
    frame = tables.frames["users"]
    past = tables.frames["actions"].filter(
        (pl.col("type") == "order") & (pl.col("period") < tables.test_period)
    )
    orders = frame.select("user_id").join(
        past.group_by("user_id").len(), "user_id", how="left", maintain_order="left"
    )["len"]
    warm = np.flatnonzero(orders.fill_null(0).to_numpy() >= _WARM_ORDERS)
    cohort = np.full(len(frame), -1)
    k = min(COHORTS, len(warm) // _USERS_A_COHORT)
    if k > 1:
        areas = _areas(tables)[warm]
        cohort[warm] = _clusters(_taste(_vectors(tables, bundle, users)[warm], areas), k)
        if before is not None:
            cohort = _renumbered(cohort, frame["user_id"], before, k)
    age, gender = frame["age_band"], frame["gender"]
    return pl.DataFrame(
        {
            "entity_id": frame["user_id"],
            "cohort": pl.Series(cohort).replace(-1, None),
            "demographic": pl.select(
                pl.when((age > 0) & (gender > 0)).then(age * 10 + gender)
            ).to_series(),
        }
    )


def _vectors(tables: Tables, bundle: TowerBundle, users: InputRows) -> NDArray[np.float32]:
    homes = tables.frames["users"].select("latitude", "longitude").to_numpy()
    last = np.full(len(homes), tables.frames["actions"]["time"].max(), np.int64)
    hour = tables.clock.local_hours(last, homes[:, 1]) % 24
    evening = last + (_EVENING_HOUR - hour) * 3_600_000
    context = context_rows(evening, homes[:, 0], homes[:, 1], tables.clock)
    return bundle.user_vectors(users, context)


def _areas(tables: Tables) -> NDArray[np.int64]:
    """The number of the area in which each user lives."""
    homes = tables.frames["users"].select("latitude", "longitude").iter_rows()
    cells = [h3.latlng_to_cell(*place, AREA_RESOLUTION) for place in homes]
    numbers: NDArray[np.int64] = np.unique(cells, return_inverse=True)[1]
    return numbers


def _taste(vectors: NDArray[np.float32], areas: NDArray[np.int64]) -> NDArray[np.float32]:
    """Vectors less the mean of their area."""
    count = np.maximum(np.bincount(areas), 1)
    means = np.stack([np.bincount(areas, column) / count for column in vectors.T], axis=1)
    return (vectors - means[areas]).astype(np.float32)


def _clusters(vectors: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    kmeans = faiss.Kmeans(vectors.shape[1], k, seed=7, spherical=True, min_points_per_centroid=1)
    kmeans.train(vectors)
    _, found = kmeans.index.search(vectors, 1)
    clusters: NDArray[np.int64] = found[:, 0]
    return clusters


def _renumbered(
    cohort: NDArray[np.int64], user_ids: pl.Series, before: pl.DataFrame, k: int
) -> NDArray[np.int64]:
    """Clusters by the numbers of the cohorts before that share most users with them."""
    now = pl.DataFrame({"entity_id": user_ids, "now": cohort}).filter(pl.col("now") >= 0)
    both = now.join(before.drop_nulls("cohort"), "entity_id").group_by("now", "cohort").len()
    number: dict[int, int] = {}
    for new, old, _ in both.sort("len", "now", descending=[True, False]).iter_rows():
        if new not in number and old not in number.values():
            number[new] = old
    unused = iter(sorted(set(range(k + len(number))) - set(number.values())))
    named = np.array([number[c] if c in number else next(unused) for c in range(k)])
    return np.where(cohort >= 0, named[cohort], -1)


def segment_names(row: Mapping[str, int | None]) -> list[str]:
    """The segments of a user's row, as the mesh names them: the most specific first."""
    names = (f"{feature}={value}" for feature, value in row.items() if value is not None)
    return [*names, EVERYBODY]
