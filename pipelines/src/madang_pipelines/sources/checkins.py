"""Check-ins in time order: four files of lines `user value value …` and two of item facts.

`train.txt` and `test.txt` hold items, `time_train.txt` and `time_test.txt` the unix seconds beside
them, `location.txt` lines of `item latitude longitude`, `cat.txt` lines of `item category`.
A check-in counts as an order. What was shown is not in such data: its impressions are the check-ins
alone, and `negatives` sets beside them what could have been shown.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.tables import Rejected, Tables
from madang_runtime.models.context import Clock

Ints = NDArray[np.int64]

FILES = ("train.txt", "time_train.txt", "test.txt", "time_test.txt", "location.txt", "cat.txt")
# Share of a user's history at which a period begins; the test file is the last period.
_PERIOD_STARTS = np.array([0.0, 0.6, 0.75, 0.88])
_TEST_PERIOD = len(_PERIOD_STARTS)
_MAX_SESSIONS = 90_000


class MissingFilesError(Exception):
    """The folder lacks files of the format."""


def load_checkins(
    folder: Path, seed: int = 7, progress: Callable[[float], None] = lambda _: None
) -> Tables:
    """Read the folder. `progress` is called with the share done.

    Raises:
        MissingFilesError: naming the files that are not there.
    """
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise MissingFilesError(f"{folder} lacks {', '.join(missing)}")
    items, quality = _items(folder)
    codes = {item: code for code, item in enumerate(items["item_id"].to_list())}
    train, train_quality = _visits(folder, "train.txt", "time_train.txt", codes)
    test, test_quality = _visits(folder, "test.txt", "time_test.txt", codes)
    progress(0.5)
    train = train.with_columns(period=_periods(train))
    test = test.with_columns(period=pl.lit(_TEST_PERIOD, pl.Int64())).filter(
        pl.col("user_id").is_in(train["user_id"].unique().to_list())
    )
    places = items.select("latitude", "longitude").to_numpy()
    sessions, impressions = _sessions(train, places, seed)
    held_out = _held_out(train, test, places, len(sessions))
    item_ids = items["item_id"]
    home = places[train.group_by("user_id", maintain_order=True).first()["item"].to_numpy()]
    users = train.select(pl.col("user_id").unique(maintain_order=True)).with_columns(
        age_band=0, gender=0, home_district=0, latitude=home[:, 0], longitude=home[:, 1]
    )
    actions = pl.concat([train, test]).with_columns(
        item_id=item_ids.gather(pl.concat([train, test])["item"]), type=pl.lit("order")
    )
    frames = {
        "users": users,
        "items": items,
        "sessions": pl.concat([sessions, held_out]),
        "impressions": impressions.with_columns(item_id=item_ids.gather(impressions["item"])),
        "actions": actions,
    }
    progress(1.0)
    return Tables(
        "check-ins",
        frames,
        Clock(None),
        _TEST_PERIOD + 1,
        real_impressions=False,
        quality=[*quality, train_quality, test_quality],
    )


def _items(folder: Path) -> tuple[pl.DataFrame, list[Rejected]]:
    located, quality = Rejected("location.txt"), Rejected("cat.txt")
    found: dict[int, tuple[float, float]] = {}
    for number, fields in _lines(folder / located.source, located):
        try:
            item, lat, lng = int(fields[0]), float(fields[1]), float(fields[2])
        except (ValueError, IndexError):
            located.reject(number, "not an item with two coordinates")
            continue
        if not (-90 <= lat <= 90 and -180 <= lng <= 180):
            located.reject(number, "off the map")
        elif item in found:
            located.reject(number, "item given twice")
        else:
            found[item] = lat, lng
    categories: dict[int, int] = {}
    for number, fields in _lines(folder / quality.source, quality):
        try:
            item, category = int(fields[0]), int(fields[1])
        except (ValueError, IndexError):
            quality.reject(number, "not an item with a category")
            continue
        if item not in found:
            quality.reject(number, "item without a location")
        else:
            categories.setdefault(item, category)
    ids = sorted(found)
    places = np.array([found[i] for i in ids]).reshape(-1, 2)
    frame = pl.DataFrame(
        {
            "item_id": [str(i) for i in ids],
            "kind": np.ones(len(ids), np.int64),
            "name": [f"place {i}" for i in ids],
            "name_en": [f"place {i}" for i in ids],
            "category": [categories.get(i, -1) + 1 for i in ids],
            "category_name": [f"category {categories.get(i, 'unknown')}" for i in ids],
            "district": np.zeros(len(ids), np.int64),
            "price": [None] * len(ids),
            "latitude": places[:, 0],
            "longitude": places[:, 1],
            "open_hours": np.full(len(ids), (1 << 24) - 1),
            "radius_km": np.zeros(len(ids)),
            "shop_id": [""] * len(ids),
            "bid": np.zeros(len(ids)),
            "daily_budget": np.zeros(len(ids)),
            "menu": [[]] * len(ids),
        },
        schema_overrides={"price": pl.Float64(), "menu": pl.List(pl.String())},
    )
    return frame, [located, quality]


def _visits(
    folder: Path, file: str, time_file: str, codes: dict[str, int]
) -> tuple[pl.DataFrame, Rejected]:
    """One row a check-in: user_id, item (its row in `items`), time (ms), in each user's order."""
    rejected, ignored = Rejected(file), Rejected(time_file)
    times = {f[0]: f[1:] for _, f in _lines(folder / time_file, ignored) if f}
    users: list[str] = []
    items: list[int] = []
    stamps: list[int] = []
    seen: set[str] = set()
    for number, fields in _lines(folder / file, rejected):
        user, visited = fields[0], fields[1:]
        when = times.get(user, [])
        if user in seen:
            rejected.reject(number, "user given twice")
            continue
        if len(when) != len(visited):
            rejected.reject(number, f"as many items as times in {time_file} are needed")
            continue
        seen.add(user)
        for item, time in zip(visited, when, strict=True):
            if item not in codes:
                rejected.reject(number, "item without a location")
            elif not time.isdigit():
                rejected.reject(number, "time is not in unix seconds")
            else:
                users.append(user)
                items.append(codes[item])
                stamps.append(int(time) * 1000)
    frame = pl.DataFrame(
        {"user_id": users, "item": items, "time": stamps},
        schema={"user_id": pl.String(), "item": pl.Int64(), "time": pl.Int64()},
    )
    return frame.sort("time", maintain_order=True), rejected


def _lines(path: Path, rejected: Rejected) -> list[tuple[int, list[str]]]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        rejected.read += 1
        if fields := line.split():
            found.append((number, fields))
        else:
            rejected.reject(number, "empty line")
    return found


def _periods(train: pl.DataFrame) -> pl.Series:
    share = train.select(
        pl.int_range(pl.len()).over("user_id") / pl.len().over("user_id")
    ).to_series()
    return pl.Series(np.searchsorted(_PERIOD_STARTS, share.to_numpy(), side="right") - 1)


def _sessions(
    train: pl.DataFrame, places: NDArray[np.float64], seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A session for each check-in that features exist for, at the place of the one before."""
    rng = np.random.default_rng(seed)
    visits = train.with_row_index("row").sort("user_id", "row", maintain_order=True)
    item, period = visits["item"].to_numpy(), visits["period"].to_numpy()
    user, time = visits["user_id"].to_numpy(), visits["time"].to_numpy()
    _, first = np.unique(user, return_index=True)
    begins = np.repeat(first, np.diff([*first, len(user)]))
    usable = np.flatnonzero((period > 0) & (np.arange(len(user)) > begins))
    chosen = np.sort(rng.permutation(usable)[:_MAX_SESSIONS])
    came_from = places[item[chosen - 1]]
    sessions = pl.DataFrame(
        {
            "session_id": np.arange(len(chosen)),
            "user_id": user[chosen],
            "time": time[chosen],
            "latitude": came_from[:, 0],
            "longitude": came_from[:, 1],
            "period": period[chosen],
        }
    )
    impressions = pl.DataFrame(
        {
            "session_id": np.arange(len(chosen)),
            "item": item[chosen],
            "position": np.zeros(len(chosen), np.int64),
            "clicked": np.ones(len(chosen), bool),
            "ordered": np.ones(len(chosen), bool),
            "hidden": np.zeros(len(chosen), bool),
        }
    )
    return sessions, impressions


def _held_out(
    train: pl.DataFrame, test: pl.DataFrame, places: NDArray[np.float64], first_id: int
) -> pl.DataFrame:
    """One session a user: where the history ends, at the time of the next check-in."""
    last = train.group_by("user_id", maintain_order=True).last().select("user_id", "item")
    first = test.group_by("user_id", maintain_order=True).first().select("user_id", "time")
    both = first.join(last, "user_id", maintain_order="left")
    at = places[both["item"].to_numpy()]
    return pl.DataFrame(
        {
            "session_id": first_id + np.arange(len(both)),
            "user_id": both["user_id"],
            "time": both["time"],
            "latitude": at[:, 0],
            "longitude": at[:, 1],
            "period": np.full(len(both), _TEST_PERIOD),
        }
    )
