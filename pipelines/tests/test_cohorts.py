"""Cohorts are groups of taste, and keep their numbers."""

import numpy as np
import polars as pl
import pytest

from madang_candidate.tower import TowerBundle
from madang_pipelines.cohorts import _renumbered, segment_names, user_segments
from madang_pipelines.features import FeatureBuilder
from madang_pipelines.publish import with_gone
from madang_pipelines.segment_lists import segment_lists
from madang_pipelines.training import TOWER


@pytest.fixture(scope="module")
def segments(city, workspace):
    """The segments of the small city, and how to make them again."""
    registry, builder = workspace.registry, FeatureBuilder(city.tables)
    files = registry.load(TOWER, registry.resolve(TOWER))
    bundle = TowerBundle(files, threads=1, exact_below=0)
    users = builder.users(city.tables.test_period)
    return lambda before=None: user_segments(city.tables, bundle, users, before)


def test_who_ordered_little_has_no_cohort_but_a_demographic(city, segments):
    found = segments()
    tables = city.tables
    past = tables.frames["actions"].filter(
        (pl.col("type") == "order") & (pl.col("period") < tables.test_period)
    )
    orders = dict(past.group_by("user_id").len().iter_rows())
    for user, cohort, demographic in found.iter_rows():
        assert (cohort is not None) == (orders.get(user, 0) >= 3)
        assert demographic is not None
    assert 2 <= found["cohort"].n_unique() <= 17


def test_numbers_stay_when_clusters_come_in_another_order(segments):
    before = segments()
    cohorts = sorted(before["cohort"].drop_nulls().unique().to_list())
    turned = dict(zip(cohorts, cohorts[1:] + cohorts[:1], strict=True))
    earlier = before.with_columns(pl.col("cohort").replace_strict(turned))
    assert segments(earlier)["cohort"].to_list() == earlier["cohort"].to_list()


def test_a_new_cluster_has_a_number_of_its_own():
    users = pl.Series([f"u{i}" for i in range(9)])
    before = pl.DataFrame({"entity_id": users, "cohort": [4, 4, 4, 7, 7, 7, None, None, 4]})
    now = np.array([1, 1, 1, 0, 0, 0, 2, 2, -1])
    assert _renumbered(now, users, before, 3).tolist() == [4, 4, 4, 7, 7, 7, 0, 0, -1]


def test_lists_follow_taste_and_demographics_their_cohorts(city, segments):
    found = segments()
    lists = segment_lists(city.tables, found)
    everywhere = {segment: items for segment, area, items, _ in lists.iter_rows() if area == 0}
    names = {
        name
        for row in found.select("cohort", "demographic").iter_rows(named=True)
        for name in segment_names(row)
    }
    assert {"all"} < set(everywhere) <= names
    assert all(len(items) == len(set(items)) <= 100 for items in everywhere.values())
    for scores in lists["scores"].to_list():
        assert (np.diff(scores) <= 0).all()
    cohorts = [items for segment, items in everywhere.items() if segment.startswith("cohort=")]
    assert len({tuple(items) for items in cohorts}) == len(cohorts)


def test_lists_that_are_gone_are_saved_empty(tmp_path):
    schema = {
        "segment": pl.String(),
        "area": pl.UInt64(),
        "item_ids": pl.List(pl.String()),
        "scores": pl.List(pl.Float32()),
    }

    def saved(*segments):
        rows = [(segment, 0, ["i"], [1.0]) for segment in segments]
        lists = pl.DataFrame(rows, schema, orient="row")
        with_gone(lists, tmp_path / "lists").write_parquet(tmp_path / "lists")
        return {s: items for s, _, items, _ in pl.read_parquet(tmp_path / "lists").iter_rows()}

    assert saved("a", "b") == {"a": ["i"], "b": ["i"]}
    assert saved("a") == {"a": ["i"], "b": []}
    assert saved("b") == {"a": [], "b": ["i"]}
