"""Orders as columns, their patterns, and what models read of them."""

import h3
import numpy as np
import pytest
from pydantic import ValidationError

from madang_eta.kinds import load_kinds
from madang_eta.layout import Layout
from madang_eta.orders import Coded, Orders, Points
from madang_eta.patterns import check_pattern, keys
from madang_eta.shops import Shops
from madang_runtime.models.context import Clock
from madang_runtime.models.manifest import FeatureRef

SHOP, HOME = (37.4959, 127.0664), (37.5056, 127.1144)
FRIDAY_20H = 1_775_300_400_000 - 24 * 3_600_000  # 3 April 2026, 20:00 in Seoul


def orders(n=3, **ids):
    return Orders(
        time_ms=FRIDAY_20H + 3_600_000 * np.arange(n),
        origin=Points.of(np.array([SHOP] * n)),
        place=Points.of(np.array([SHOP, HOME, HOME][:n])),
        distance_km=np.array([np.nan, np.nan, 9.0][:n]),
        ids={name: Coded.of(values) for name, values in ids.items()},
    )


def layout(**fields):
    given = {
        "stages": 2,
        "line": ((3.0, 0.0), (2.0, 4.0)),
        "typical": (1.0, 2.0),
        "patterns": ("shop", "place8+hour"),
        "horizons": ("all", "week"),
        "live": (FeatureRef(view="eta_area", name="rain", dtype="FLOAT32"),),
        "numbers": ("floor",),
        "clock": Clock(9),
        **fields,
    }
    return Layout(**given)


def named(pattern, given):
    found = keys(pattern, "standard", given, layout().local_hours(given))
    return [found.values[c] for c in found.codes]


def test_patterns_are_keys_of_shop_cell_and_hour():
    given = orders(shop=["s1", "s1", "s2"], category=["a", "", "b"])
    assert named("shop", given) == ["standard/shop/s1"] * 2 + ["standard/shop/s2"]
    assert named("category", given) == ["standard/category/a", "", "standard/category/b"]
    cells = [h3.latlng_to_cell(*SHOP, 8)] + [h3.latlng_to_cell(*HOME, 8)] * 2
    assert named("place8", given) == [f"standard/place8/{cell}" for cell in cells]
    hours = [20, 21, 22]
    wanted = [f"standard/place8+hour/{c}+{h}" for c, h in zip(cells, hours, strict=True)]
    assert named("place8+hour", given) == wanted
    assert named("slot", given) == ["standard/slot/6", "standard/slot/7", "standard/slot/7"]
    assert named("courier", given) == ["", "", ""]


def test_keys_are_distinct_however_many_points_share_a_cell():
    near = np.array(SHOP) + np.random.default_rng(0).normal(0, 1e-4, (50, 2))
    cells = Points.of(near).cells(6)
    assert len(cells.values) == len(set(cells.values)) < 3
    assert Points.of(np.array([[np.nan, np.nan]])).cells(6).values == [""]


@pytest.mark.parametrize("pattern", ["", "moon", "place", "place13", "shop+", "origin8+x"])
def test_patterns_that_there_are_not_are_refused(pattern):
    with pytest.raises(ValueError, match="is none that there is"):
        check_pattern(pattern)
    with pytest.raises(ValidationError):
        layout(patterns=(pattern,))


def test_columns_are_named_and_hold_what_is_known():
    given, read = orders(), layout()
    width = sum(ref.dim for ref in read.pattern_features())
    means = np.full((3, 2, width), np.nan)
    means[0, 0, :] = np.arange(width)
    columns = read.columns(given, means, np.array([[1.0], [np.nan], [3.0]]))
    assert columns.shape == (3, len(read.names()))
    at = {name: columns[:, i] for i, name in enumerate(read.names())}
    assert at["hour"].tolist() == [20, 21, 22]
    assert at["peak"].tolist() == [0, 0, 0]
    away = h3.great_circle_distance(SHOP, HOME)
    assert at["km"].tolist() == pytest.approx([0, away, 9], rel=0.01)
    assert at["detour"][2] == pytest.approx(9 / away, rel=0.01)
    assert at["line[0]"].tolist() == [3, 3, 3]
    assert at["line[1]"][2] == pytest.approx(2 + 4 * 9)
    assert at["shop.all_ratio[1]"].tolist() == [5, 0, 0], "a key that nobody has seen is 0"
    assert at["place8+hour.week_seen"].tolist() == [0, 0, 0]
    assert np.isnan(at["eta_area.rain"]).tolist() == [False, True, False]
    assert np.isnan(at["floor"]).all()


def test_without_an_offset_the_sun_says_the_hour():
    sun = layout(clock=Clock(None))
    assert sun.local_hours(orders()).tolist() == [
        Clock(None).local_hour(t, SHOP[1]) for t in orders().time_ms.tolist()
    ]


def test_shops_survive_packing_and_ads_are_their_shops():
    shops = Shops(
        ["s1", "s2", "a1"],
        ["s1", "s2", "s1"],
        np.array([SHOP, HOME, SHOP]),
        ["치킨", "", "치킨"],
        np.array([0, 0, 1]),
        np.array([7, 8, 7], np.uint64),
    )
    again = Shops.unpack(shops.pack())
    assert again.rows(["a1", "nobody", "s2"]).tolist() == [2, -1, 1]
    origin, ids = again.columns(np.array([2, 0, 1, 2]))
    assert origin.rows().tolist() == [list(SHOP), list(SHOP), list(HOME), list(SHOP)]
    assert [ids["shop"].values[c] for c in ids["shop"].codes] == ["s1", "s1", "s2", "s1"]
    assert [ids["category"].values[c] for c in ids["category"].codes] == [
        "치킨",
        "치킨",
        "",
        "치킨",
    ]
    assert again.pair_cells.tolist() == [7, 8, 7]


def test_kinds_come_from_yaml(tmp_path):
    assert list(load_kinds(None)) == ["standard", "express"]
    path = tmp_path / "services.yaml"
    path.write_text("freight: {model: eta-freight, window_minutes: 60, horizon_minutes: 600}")
    assert load_kinds(path)["freight"].window_minutes == 60
    for wrong in ("freight: {model: m, hit_rate: 1}", "freight: {}", "{}"):
        path.write_text(wrong)
        with pytest.raises(ValueError):  # noqa: PT011 (pydantic's and ours)
            load_kinds(path)


def test_numbers_are_read_by_name():
    given = Orders(
        np.array([FRIDAY_20H]),
        Points.of(np.array([SHOP])),
        Points.of(np.array([HOME])),
        np.array([np.nan]),
        numbers={"weight": np.array([70.0]), "floor": np.array([5.0])},
    )
    read = layout(numbers=("floor", "lift", "weight"), live=(), patterns=())
    width = sum(ref.dim for ref in read.pattern_features())
    columns = read.columns(given, np.empty((1, 0, width)), np.empty((1, 0)))
    assert columns[0, -3] == 5
    assert np.isnan(columns[0, -2])
    assert columns[0, -1] == 70


def test_zones_of_half_an_hour_and_the_antimeridian():
    read = layout(clock=Clock(5.5))
    quarter_past_ten = Orders(
        np.array([(10 * 60 + 15) * 60_000 - 19_800_000 + 86_400_000]),
        Points.of(np.array([[0.0, 179.95]])),
        Points.of(np.array([[0.0, -179.95]])),
        np.array([np.nan]),
    )
    means = np.zeros((1, 2, sum(ref.dim for ref in read.pattern_features())))
    columns = read.columns(quarter_past_ten, means, np.zeros((1, 1)))
    at = dict(zip(read.names(), columns[0].tolist(), strict=True))
    assert at["hour"] == pytest.approx(10.25)
    assert at["east_km"] == pytest.approx(11.12, abs=0.1)
