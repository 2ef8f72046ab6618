"""Ads: how well thousands are drilled down, what that costs, and how budgets are kept:
`make bench-ads`.

A city of 4,000 ads is trained once. For each held-out session each method keeps 200 of them all,
wherever they deliver to; the table says how many of the 10 that the user would most likely open (by
the simulator's truth) are among them. The day of pacing is simulated minute by minute with the code
that serves, over the 160 ads of the usual city and far more visits than their budgets pay for.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import grpc
import numpy as np
import polars as pl
from floor import EVENING, PLACE, console, prepared
from load import drive
from numpy.typing import NDArray
from rich.table import Table

from madang.common.v1 import place_pb2
from madang.ranker.v1 import pacing_pb2, ranker_pb2, ranker_pb2_grpc
from madang_candidate.campaigns import PacedAds
from madang_candidate.index import top
from madang_cli.mesh.mesh import LocalMesh
from madang_cli.show import steps
from madang_cli.workspace import DataSet, DataSource, Workspace, load
from madang_pipelines.city.simulate import CitySize
from madang_pipelines.evaluation import Lists
from madang_pipelines.publish import campaign_upserts, publish, saved_campaigns
from madang_pipelines.training import Recipe
from madang_ranker.campaigns.pacing import BATCH_KEY, Pacer
from madang_ranker.campaigns.spend import spend_name
from madang_runtime.changelog.base import Count
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.changelog.memory import MemoryChangeLog

HOME = Path("run/bench-ads")
CITY = CitySize(shops=4000, ads=4000)
SESSIONS, KEPT, BEST = 1000, 200, 10
VISITS, SLOTS, DAY = 30_000, 5, 20_000
Rows = NDArray[np.int64]


def big() -> tuple[Workspace, DataSet]:
    """The city of 4,000 ads, trained once."""
    HOME.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(HOME)
    with steps(console) as report:
        data = load(DataSource(city=CITY), lambda share: report("data", share))
        if not workspace.source():
            workspace.train(DataSource(city=CITY), data, Recipe(), report)
    return workspace, data


def drilled(workspace: Workspace, data: DataSet) -> Table:
    """How many of the best ads each method keeps."""
    assert data.truth
    lists = Lists(data.tables, workspace.registry, SESSIONS)
    index, networks = lists.bundle.index, lists.bundle.ads
    assert networks
    clicks = data.tables.frames["actions"].filter(pl.col("period") < data.tables.test_period)
    counts = dict(clicks.group_by("item_id").len().iter_rows())
    popular = np.array([counts.get(i, 0) for i in index.ids], np.float32)
    rng = np.random.default_rng(7)
    kept: dict[str, list[float]] = {}
    ads = np.flatnonzero(index.kinds == place_pb2.ITEM_KIND_AD)
    for s in range(len(lists.sessions)):
        query = lists.query(s, ads)
        truth, _ = data.truth.probabilities(
            lists.user_rows[s : s + 1],
            ads,
            query.context.ints[0, 0],
            query.context.floats[0].astype(np.float64),
        )
        best = ads[np.argsort(-truth)[:BEST]]
        near, _ = index.ads.search(networks.query(query.user, query.context), ads, KEPT)
        chosen = {
            "by chance": rng.permutation(ads)[:KEPT],
            "most clicked": ads[top(popular[ads], KEPT)],
            "two towers": ads[top(index.vectors(ads) @ query.user_vector, KEPT)],
            "ad networks": near,
        }
        for name, rows in chosen.items():
            kept.setdefault(name, []).append(float(np.isin(best, rows).mean()))
    lists.close()
    table = Table(title=f"{KEPT} of {len(ads):,} ads, {len(lists.sessions):,} sessions")
    table.add_column("by")
    table.add_column(f"of the best {BEST}")
    for name, shares in kept.items():
        half = 1.96 * np.std(shares) / np.sqrt(len(shares))
        table.add_row(name, f"{np.mean(shares):.3f} ± {half:.3f}")
    return table


def served(workspace: Workspace) -> None:
    """The surface of ads through the whole mesh."""
    with LocalMesh(HOME, "bench-ads", sampling_ratio=0.1) as mesh:
        publish(workspace.features, mesh.info.gateway)
        mesh.wait_serving()
        with grpc.insecure_channel(mesh.info.gateway) as channel:
            stub = ranker_pb2_grpc.RankerServiceStub(channel)
            users = count()

            def call() -> None:
                request = ranker_pb2.RecommendRequest(
                    user_id=f"u{next(users) % CITY.users:05d}",
                    place=PLACE,
                    request_time=EVENING,
                    surface="ads",
                    page_size=20,
                )
                answer = stub.Recommend(request, timeout=10)
                assert answer.items
                assert not answer.serving_info.degraded

            drive(lambda: stub.Recommend(_warm(), timeout=10), callers=1, seconds=30)  # rates rise
            for callers in (1, 4):
                measured = drive(call, callers=callers, seconds=8)
                console.print(
                    f"surface ads, {callers} caller(s): {measured.rate:.0f}/s, "
                    f"p50 {measured.quantile(0.5):.1f} ms, p99 {measured.quantile(0.99):.1f} ms"
                )


def _warm() -> ranker_pb2.RecommendRequest:
    return ranker_pb2.RecommendRequest(user_id="u00001", place=PLACE, surface="ads")


@dataclass(frozen=True)
class Paced:
    """What one day spent.

    Attributes:
        spent: of each campaign's budget, shape [campaigns, hours of the day].
        clicks: in all.
    """

    spent: NDArray[np.float64]
    clicks: int


def a_day(workspace: Workspace, data: DataSet, paced: bool) -> Paced:
    """Simulate a day; unpaced, an ad is shown to everyone until its budget is spent."""
    assert data.truth
    lists = Lists(data.tables, workspace.registry, 3000)
    index, networks, rng = lists.bundle.index, lists.bundle.ads, np.random.default_rng(7)
    assert networks
    frame = saved_campaigns(workspace.features)
    made = {c.item_id: c for c in campaign_upserts(frame)}
    log, table = MemoryChangeLog(), MemoryCompactedLog()
    pacer = Pacer(log, table, lambda: made, [1.0] * 22 + [0.0] * 2, 0, 60, lambda: 0.0)
    budgets = np.array([made[i].daily_budget_micros for i in frame["item_id"]], np.float64)
    hours = lists.context.ints[:, 0]
    of_hour = [np.flatnonzero(hours == h) for h in range(24)]
    share = np.bincount(hours, minlength=24) / len(hours)
    spent, clicks = np.zeros((len(budgets), 24)), 0
    for minute in range(1440):
        now = DAY * 86_400 + minute * 60
        pacer.make(now)
        batch = pacing_pb2.PacingBatch.FromString(table.changes(0, 9).changed[BATCH_KEY] or b"")
        if not paced:
            left = np.frombuffer(batch.spent_micros, "<i8") < [
                made[i].daily_budget_micros for i in batch.item_ids
            ]
            batch.rates = left.astype("<f4").tobytes()
        ads = PacedAds(made, batch, index)
        hour = minute // 60
        visits = rng.poisson(VISITS * share[hour] / 60) if len(of_hour[hour]) else 0
        for s in rng.choice(of_hour[hour], visits).tolist() if visits else ():
            query = lists.query(s, lists.allowed(s))
            user = f"{lists.sessions['user_id'][s]}-{rng.integers(1000)}"
            near = query.allowed[index.kinds[query.allowed] == place_pb2.ITEM_KIND_AD]
            allowed = ads.shown_to(user, hour, near)
            shown = index.ads.search(networks.query(query.user, query.context), allowed, SLOTS)[0]
            if not len(shown):
                continue
            p, _ = data.truth.probabilities(
                lists.user_rows[s : s + 1],
                shown,
                query.context.ints[0, 0],
                query.context.floats[0].astype(np.float64),
            )
            for row in shown[rng.random(len(shown)) < p].tolist():
                item_id, clicks = index.ids[row], clicks + 1
                log.append([(f"{clicks}", b"")])
                (entry,) = log.take("spend", "c", 1, 0.0)
                cost = Count(spend_name(DAY), item_id, made[item_id].bid_micros)
                log.count("spend", {entry.position: [cost]}, 1e6)
        if minute % 60 == 59:
            counters = log.counters(spend_name(DAY))
            spent[:, hour] = [counters.get(i, 0) for i in frame["item_id"]] / budgets
    lists.close()
    return Paced(spent, clicks)


def paced_table(days: dict[str, Paced]) -> Table:
    """How budgets lasted."""
    table = Table(title=f"A day of {VISITS:,} visits, {SLOTS} ads each")
    columns: dict[str, Callable[[Paced], str]] = {
        "clicks": lambda d: f"{d.clicks:,}",
        "of all budgets": lambda d: f"{np.minimum(d.spent[:, -1], 1).mean():.3f}",
        "spent out by 12:00": lambda d: f"{(d.spent[:, 11] >= 1).mean():.2f}",
        "by 18:00": lambda d: f"{(d.spent[:, 17] >= 1).mean():.2f}",
        "by 24:00": lambda d: f"{(d.spent[:, -1] >= 1).mean():.2f}",
        "over budget, mean": lambda d: f"{np.maximum(d.spent[:, -1] - 1, 0).mean():.3f}",
    }
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for name, day in days.items():
        table.add_row(name, *(cell(day) for cell in columns.values()))
    return table


def main() -> None:
    """Measure and print."""
    workspace, data = big()
    console.print(drilled(workspace, data))
    served(workspace)
    usual = prepared()
    source = usual.source()
    assert source
    city = load(source, lambda _: None)
    console.print(
        paced_table({n: a_day(usual, city, n == "paced") for n in ("as it comes", "paced")})
    )
    console.print(f"{os.cpu_count()} cores")


if __name__ == "__main__":
    main()
