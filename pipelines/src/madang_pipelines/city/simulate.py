"""Simulates the city: who lives there, what is sold, and what happens in four weeks.

The same seed gives the same tables. Latent values (`Truth`) decide what users do and never reach a
table; they are returned beside the tables so that a model can be compared with an oracle.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from madang_pipelines.city.campaigns import CampaignWorld
from madang_pipelines.city.deliveries import DeliveryTruth, deliver
from madang_pipelines.city.names import CATEGORIES, DISTRICTS, NAMES
from madang_pipelines.city.searches import searches
from madang_pipelines.city.truth import Floats, Ints, Truth, kilometres
from madang_pipelines.tables import Tables
from madang_runtime.models.context import Clock

START_MS = 1_772_982_000_000  # Monday 9 March 2026, 00:00 in Seoul
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
SEOUL = Clock(utc_offset_hours=9)
_TASTE = 8
_SHOWN = 15
_CAMPAIGNS, _REACH = 24, 0.5
# The first days only build features, the last are held out.
_PERIOD_OF_DAY = np.repeat([0, 1, 2, 3, 4], [12, 5, 4, 4, 3])
DAYS = len(_PERIOD_OF_DAY)
_HOUR_SHARE = np.array(
    [2, 1, 0.5, 0.3, 0.2, 0.3, 0.6, 1.5, 2.5, 3, 3.5, 7, 9, 6, 4, 3.5, 4, 6, 9, 10, 8, 6, 5, 3.5]
)


@dataclass(frozen=True)
class CitySize:
    """How big the city is."""

    users: int = 6000
    shops: int = 1800
    ads: int = 160
    visits_a_day: float = 0.45
    seed: int = 7


@dataclass
class City:
    """The tables and the truth behind them; users, items and orders are in the tables' order."""

    tables: Tables
    truth: Truth
    deliveries: DeliveryTruth
    outreach: CampaignWorld


def simulate(size: CitySize, progress: Callable[[float], None] = lambda _: None) -> City:
    """Run the city. `progress` is called with the share done."""
    rng = np.random.default_rng(size.seed)
    users, user_latent = _users(rng, size)
    items, item_latent = _items(rng, size)
    truth = Truth(
        **user_latent,
        **item_latent,
        hour_demand=_hour_demand(),
        past_orders=np.zeros((len(users), len(items)), np.uint8),
    )
    days = []
    market = _Market(users, items, truth, size)
    for day in range(DAYS):
        days.append(market.run_day(rng, day))
        progress((day + 1) / DAYS)
    sessions, impressions, actions = (pl.concat(frames) for frames in zip(*days, strict=True))
    orders, deliveries = deliver(sessions, impressions, items, START_MS, size.seed)
    outreach = CampaignWorld(users, truth, size.seed)
    campaigns, sends, _ = outreach.run(_CAMPAIGNS, _REACH, int(_PERIOD_OF_DAY[-1]))
    frames = {
        "campaigns": campaigns,
        "sends": sends,
        "users": users,
        "items": items,
        "orders": orders,
        "searches": searches(items, actions, size.seed),
        "sessions": sessions,
        "impressions": impressions,
        "actions": actions,
    }
    tables = Tables("simulated city", frames, SEOUL, int(_PERIOD_OF_DAY[-1]) + 1)
    return City(tables, truth, deliveries, outreach)


def _users(rng: np.random.Generator, size: CitySize) -> tuple[pl.DataFrame, dict[str, Any]]:
    n = size.users
    district, places = _scatter(rng, n, 0.016)
    age, gender = rng.integers(1, 7, n), rng.integers(1, 3, n)
    tastes_of_group = rng.normal(0, 0.45, (7, 3, _TASTE))
    frame = pl.DataFrame(
        {
            "user_id": [f"u{i:05d}" for i in range(n)],
            "age_band": age,
            "gender": gender,
            "home_district": district,
            "latitude": places[:, 0],
            "longitude": places[:, 1],
        }
    )
    return frame, {
        "user_taste": tastes_of_group[age, gender] + rng.normal(0, 0.65, (n, _TASTE)),
        "price_pull": rng.gamma(4, 0.35, n),
        "distance_pull": rng.gamma(4, 0.09, n),
    }


def _items(rng: np.random.Generator, size: CitySize) -> tuple[pl.DataFrame, dict[str, Any]]:
    n = size.shops
    district, places = _scatter(rng, n, 0.014)
    category = rng.integers(0, len(CATEGORIES), n)
    prefix = rng.integers(0, len(NAMES), n)
    log_price = rng.normal(0, 0.28, n)
    taste = rng.normal(0, 0.75, (len(CATEGORIES), _TASTE))[category]
    taste += rng.normal(0, 0.4, (n, _TASTE))
    quality = rng.normal(0, 0.55, n)
    sold = [CATEGORIES[c] for c in category]
    price = np.array([c.price for c in sold]) * np.exp(log_price)
    shops = pl.DataFrame(
        {
            "item_id": [f"s{i:05d}" for i in range(n)],
            "kind": np.ones(n, np.int64),
            "name": [f"{NAMES[p][0]} {c.korean}" for p, c in zip(prefix, sold, strict=True)],
            "name_en": [f"{NAMES[p][1]} {c.english}" for p, c in zip(prefix, sold, strict=True)],
            "category": category + 1,
            "category_name": [c.korean for c in sold],
            "district": district,
            "price": np.round(price, -2),
            "latitude": places[:, 0],
            "longitude": places[:, 1],
            "open_hours": [_open_hours(rng, c.peaks) for c in sold],
            "radius_km": rng.uniform(2.0, 4.5, n),
            "shop_id": [""] * n,
            "bid": np.zeros(n),
            "daily_budget": np.zeros(n),
            "menu": [list(c.menu) for c in sold],
        }
    )
    payers = rng.choice(n, size.ads, replace=False)
    ads = shops[payers].with_columns(
        item_id=pl.Series([f"a{i:05d}" for i in range(size.ads)]),
        kind=pl.lit(2, pl.Int64),
        shop_id=pl.col("item_id"),
        bid=pl.Series(np.round(rng.gamma(4, 60, size.ads), -1)),
        daily_budget=pl.Series(np.round(rng.gamma(3, 900, size.ads), -2)),
    )
    of_shop = np.concatenate([np.arange(n), payers])
    return pl.concat([shops, ads]), {
        "item_taste": taste[of_shop],
        "item_quality": quality[of_shop],
        "item_category": category[of_shop],
        "item_log_price": log_price[of_shop],
        "is_ad": np.arange(len(of_shop)) >= n,
        "item_places": places[of_shop],
    }


def _scatter(rng: np.random.Generator, n: int, spread: float) -> tuple[Ints, Floats]:
    """Districts (codes from 1) by population, and points around their centres."""
    share = np.array([d[4] for d in DISTRICTS])
    district = rng.choice(len(DISTRICTS), n, p=share / share.sum())
    centres = np.array([d[2:4] for d in DISTRICTS])
    return district + 1, centres[district] + rng.normal(0, spread, (n, 2))


def _open_hours(rng: np.random.Generator, peaks: tuple[int, ...]) -> int:
    opens = (peaks[0] - rng.integers(2, 6)) % 24
    hours = rng.integers(10, 16)
    return sum(1 << int((opens + h) % 24) for h in range(hours))


def _hour_demand() -> Floats:
    hours = np.arange(24)
    demand = np.full((len(CATEGORIES), 24), -0.7)
    for c, category in enumerate(CATEGORIES):
        for peak in category.peaks:
            apart = np.minimum((hours - peak) % 24, (peak - hours) % 24)
            demand[c] += 1.5 * np.exp(-((apart / 2.2) ** 2))
    return demand


class _Market:
    """Runs days: who comes, what they are shown, what they do."""

    def __init__(
        self, users: pl.DataFrame, items: pl.DataFrame, truth: Truth, size: CitySize
    ) -> None:
        self._truth = truth
        self._size = size
        self._user_ids = users["user_id"].to_numpy()
        self._item_ids = items["item_id"].to_numpy()
        self._homes = users.select("latitude", "longitude").to_numpy()
        self._radius = items["radius_km"].to_numpy()
        self._open = (items["open_hours"].to_numpy()[:, None] >> np.arange(24)) & 1
        self._bid = items["bid"].to_numpy()
        self._budget = items["daily_budget"].to_numpy()
        self._popularity = np.zeros(len(items))
        self._sessions = 0
        self._moods = np.random.default_rng([size.seed, 1])  # what users hide changes nothing else

    def run_day(
        self, rng: np.random.Generator, day: int
    ) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """One day's sessions, impressions and actions."""
        if day and _PERIOD_OF_DAY[day] == _PERIOD_OF_DAY[-1] != _PERIOD_OF_DAY[day - 1]:
            # The truth that is handed out stays as it is when the held-out period begins.
            self._truth = replace(self._truth, past_orders=self._truth.past_orders.copy())
        visitors = np.flatnonzero(rng.random(self._size.users) < self._size.visits_a_day)
        hours = rng.choice(24, len(visitors), p=_HOUR_SHARE / _HOUR_SHARE.sum())
        order = np.argsort(hours, kind="stable")
        visitors, hours = visitors[order], hours[order]
        times = START_MS + day * DAY_MS + hours * HOUR_MS + rng.integers(0, HOUR_MS, len(hours))
        places = self._homes[visitors] + rng.normal(0, 0.001, (len(visitors), 2))
        away = rng.random(len(visitors)) < 0.2  # ordering to an office or a friend
        places[away] = self._homes[rng.permutation(self._size.users)[: away.sum()]]
        spent = np.zeros(len(self._item_ids))
        shown, kept = [], []
        for i in range(len(visitors)):
            page = self._page(rng, places[i], int(hours[i]), spent)
            if len(page) == _SHOWN:
                shown.append(page)
                kept.append(i)
        return self._outcomes(
            rng,
            day,
            visitors[kept],
            hours[kept],
            times[kept],
            places[kept],
            np.array(shown, np.int64).reshape(-1, _SHOWN),
        )

    def _page(self, rng: np.random.Generator, place: Floats, hour: int, spent: Floats) -> Ints:
        """The logging policy: popular and near, with much chance, shuffled so that a position
        says nothing about an item. An ad pays for its expected clicks until its budget is gone."""
        distance = kilometres(place, self._truth.item_places)
        able = (distance <= self._radius) & (self._open[:, hour] > 0)
        able &= (spent < self._budget) | (self._budget == 0)
        items = np.flatnonzero(able)
        score = 0.5 * np.log1p(self._popularity[items]) - 0.25 * distance[items]
        score += rng.gumbel(0, 1, len(items))
        page = items[np.argpartition(-score, min(_SHOWN, len(items)) - 1)[:_SHOWN]]
        spent[page] += 0.1 * self._bid[page]
        return rng.permutation(page)

    def _outcomes(
        self,
        rng: np.random.Generator,
        day: int,
        users: Ints,
        hours: Ints,
        times: Ints,
        places: Floats,
        shown: Ints,
    ) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        click, order = self._truth.probabilities(
            users[:, None], shown, hours[:, None], places[:, None, :]
        )
        seen = 1 / np.log2(2 + np.arange(shown.shape[1]))
        draw = rng.random(shown.shape)
        clicked, ordered = draw < click * seen, draw < order * seen
        annoyance = self._truth.annoyance(users[:, None], shown)
        hidden = ~clicked & (self._moods.random(shown.shape) < annoyance * seen)
        np.add.at(
            self._truth.past_orders, (users.repeat(_SHOWN)[ordered.ravel()], shown[ordered]), 1
        )
        np.add.at(self._popularity, shown[clicked], 1)
        ids = self._sessions + np.arange(len(users))
        self._sessions += len(users)
        period = int(_PERIOD_OF_DAY[day])
        sessions = pl.DataFrame(
            {
                "session_id": ids,
                "user_id": self._user_ids[users],
                "time": times,
                "latitude": places[:, 0],
                "longitude": places[:, 1],
                "period": np.full(len(users), period),
            }
        )
        impressions = pl.DataFrame(
            {
                "session_id": ids.repeat(_SHOWN),
                "item_id": self._item_ids[shown.ravel()],
                "position": np.tile(np.arange(_SHOWN), len(users)),
                "clicked": clicked.ravel(),
                "ordered": ordered.ravel(),
                "hidden": hidden.ravel(),
            }
        )
        actions = pl.concat(
            [
                pl.DataFrame(
                    {
                        "user_id": self._user_ids[users.repeat(_SHOWN)[done.ravel()]],
                        "item_id": self._item_ids[shown[done]],
                        "type": np.full(int(done.sum()), kind),
                        "time": times.repeat(_SHOWN)[done.ravel()] + delay,
                        "period": np.full(int(done.sum()), period),
                    }
                )
                for done, kind, delay in ((clicked, "click", 20_000), (ordered, "order", 300_000))
            ]
        )
        return sessions, impressions, actions
