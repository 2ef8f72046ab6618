"""Groups users: the warm by the clusters of their vectors, all by age and gender."""

import faiss
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from madang_candidate.train import Towers
from madang_pipelines.tables import Tables
from madang_runtime.models.context import context_rows
from madang_runtime.models.inputs import InputRows

COHORTS = 16
_WARM_ORDERS = 3
_USERS_A_COHORT = 40
_EVENING_HOUR = 19


def user_segments(tables: Tables, towers: Towers, users: InputRows) -> pl.DataFrame:
    """The rows of the view user_segments, one a user, as of the end of the data.

    Users with orders enough are clustered by k-means of their vectors, each as they would ask from
    home in the evening; the others have no cohort.
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
        cohort[warm] = _clusters(_vectors(tables, towers, users)[warm], k)
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


def _vectors(tables: Tables, towers: Towers, users: InputRows) -> NDArray[np.float32]:
    homes = tables.frames["users"].select("latitude", "longitude").to_numpy()
    last = np.full(len(homes), tables.frames["actions"]["time"].max(), np.int64)
    hour = tables.clock.local_hours(last, homes[:, 1]) % 24
    evening = last + (_EVENING_HOUR - hour) * 3_600_000
    context = context_rows(evening, homes[:, 0], homes[:, 1], tables.clock)
    with torch.no_grad():
        vectors = towers.user(
            torch.from_numpy(users.ints),
            torch.from_numpy(users.floats),
            torch.from_numpy(context.ints),
            torch.from_numpy(context.floats),
        )
    array: NDArray[np.float32] = vectors.numpy()
    return array


def _clusters(vectors: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    kmeans = faiss.Kmeans(vectors.shape[1], k, seed=7, spherical=True, min_points_per_centroid=1)
    kmeans.train(vectors)
    _, found = kmeans.index.search(vectors, 1)
    clusters: NDArray[np.int64] = found[:, 0]
    return clusters
