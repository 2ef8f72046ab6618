"""Features that were served equal features rebuilt offline, value by value."""

from glob import glob
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from calls import recommend

from madang_cli.mesh.mesh import wait_for
from madang_pipelines.examples import session_context, sessions_of
from madang_pipelines.features import FeatureBuilder, look_up

_SESSIONS, _ITEMS = 150, 20


@pytest.fixture(scope="module")
def replayed(city, mesh, clients):
    """The held-out sessions of a day, and what the log says was served to them: one row an item."""
    tables = city.tables
    sessions = sessions_of(tables, range(tables.test_period, tables.test_period + 1))
    sessions = sessions.head(_SESSIONS)
    asked = {}
    for row in sessions.iter_rows(named=True):
        request = recommend(
            row["user_id"],
            place={"latitude": row["latitude"], "longitude": row["longitude"]},
            page_size=_ITEMS,
        )
        request.request_time.FromMilliseconds(row["time"])
        asked[clients.ranker.Recommend(request, timeout=5).request_id] = row["session_id"]
    files = Path(mesh.info.folder) / "decisions" / "*" / "*.parquet"

    def logged() -> pl.DataFrame:
        return pl.read_parquet(files).filter(pl.col("request_id").is_in(list(asked)))

    assert wait_for(lambda: glob(str(files)) and logged()["request_id"].n_unique() == len(asked))
    served = logged().with_columns(
        session_id=pl.col("request_id").replace_strict(asked, return_dtype=pl.Int64)
    )
    return tables, sessions, served


def served_matrix(served, column):
    return np.array(served[column].to_list())


@pytest.mark.parametrize("kind", ["ints", "floats"])
def test_user_and_item_features(replayed, kind):
    tables, _, served = replayed
    builder = FeatureBuilder(tables)
    assert served["item_id"].n_unique() > 100
    assert served["user_id"].n_unique() > 50
    for rows, ids, of in (
        (builder.users(tables.test_period), look_up(builder.user_rows, served["user_id"]), "user"),
        (builder.items(tables.test_period), look_up(builder.item_rows, served["item_id"]), "item"),
    ):
        rebuilt = getattr(rows, kind)[ids]
        assert len(np.unique(rebuilt, axis=0)) > 20, "they tell users and items apart"
        np.testing.assert_array_equal(served_matrix(served, f"{of}_{kind}"), rebuilt)


@pytest.mark.parametrize("kind", ["ints", "floats"])
def test_context_features(replayed, kind):
    tables, sessions, served = replayed
    rows = pl.DataFrame({"id": sessions["session_id"]}).with_row_index("row")
    rebuilt = getattr(session_context(sessions, tables), kind)[look_up(rows, served["session_id"])]
    np.testing.assert_array_equal(served_matrix(served, f"context_{kind}"), rebuilt)
