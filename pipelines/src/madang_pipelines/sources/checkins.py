"""Check-ins in time order: four files of lines `user value value …` and two of item facts.

`train.txt` and `test.txt` hold items, `time_train.txt` and `time_test.txt` the unix seconds beside
them, `location.txt` lines of `item latitude longitude`, `cat.txt` lines of `item category`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from madang_pipelines.tables import Rejected, Tables
from madang_pipelines.visits import tables_of_visits

FILES = ("train.txt", "time_train.txt", "test.txt", "time_test.txt", "location.txt", "cat.txt")


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
    quality += [train_quality, test_quality]
    tables = tables_of_visits("check-ins", train, test, items, quality, seed=seed)
    progress(1.0)
    return tables


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
