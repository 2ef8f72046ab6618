"""What people see: tables of quality, data and feeds."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h3
import polars as pl
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from madang.common.v1 import place_pb2
from madang.ranker.v1 import ranker_pb2
from madang.targeting.v1 import targeting_pb2
from madang_pipelines import ope
from madang_pipelines.eta.scores import EtaScores
from madang_pipelines.results import Result
from madang_pipelines.sources.decision_log import Explorations
from madang_pipelines.sources.open_bandit import Campaign
from madang_pipelines.tables import Rejected, Tables

_MARKS = {place_pb2.ITEM_KIND_AD: "[yellow]ad[/] "}


@contextmanager
def steps(console: Console) -> Iterator[Callable[[str, float], None]]:
    """Progress bars, one a step, made when the step is first named."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<26}"),
        BarColumn(32),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def report(step: str, share: float) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=1.0)
            progress.update(tasks[step], completed=share)

        yield report


def headings(console: Console) -> Callable[[str], None]:
    """Rules across the screen, numbered."""
    numbers = itertools.count(1)
    return lambda text: console.rule(f"[bold]{next(numbers)} · {text}")


def print_data(tables: Tables, console: Console) -> None:
    """Sizes, and what was set aside."""
    frames = tables.frames
    sizes = ", ".join(f"{len(frame):,} {name}" for name, frame in frames.items())
    console.print(f"[bold]{tables.name}[/]: {sizes}")
    print_rejected(tables.quality, console)


def print_rejected(quality: Sequence[Rejected], console: Console) -> None:
    """What was set aside of each file, by reason, with the first line of each."""
    for q in quality:
        first: dict[str, int] = {}
        for line, why in q.rows:
            first.setdefault(why, line)
        why = "; ".join(
            f"{count:,} {reason}, first in line {first[reason]:,}"
            for reason, count in q.reasons().items()
        )
        aside = f"{len(q.rows):,} set aside ({why})" if q.rows else "none set aside"
        console.print(f"  {q.source}: {q.read:,} lines read, {aside}", style="dim", markup=False)


def print_quality(results: list[Result], title: str, console: Console) -> None:
    """Means with 95 % intervals."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("list of 10")
    for metric in results[0].metrics:
        table.add_column(metric, justify="right")
    for result in results:
        style = "bold magenta" if result.name == "ours" else ""
        cells = [f"{mean:.3f} ± {half:.3f}" for mean, half in result.metrics.values()]
        table.add_row(Text(result.name, style), *(Text(c, style) for c in cells))
    console.print(table)


class Catalogue:
    """Names of items, for people."""

    def __init__(self, data: Path) -> None:
        items = pl.read_parquet(data / "items.parquet")
        self._items = {row["item_id"]: row for row in items.iter_rows(named=True)}

    def add_twin(self, item_id: str, of: str, prefix: str) -> None:
        """Know an item by the name of another."""
        twin = self._items[of]
        names = {name: f"{prefix} {twin[name]}" for name in ("name", "name_en")}
        self._items[item_id] = {**twin, **names}

    def name(self, item_id: str) -> str:
        """Korean and English name."""
        item = self._items[item_id]
        both = (item["name"], item["name_en"])
        return both[0] if both[0] == both[1] else " · ".join(both)

    def of_codes(self, codes: list[float]) -> list[str]:
        """Ids of item codes: an item's code is its row plus 1."""
        ids = list(self._items)
        return [ids[int(code) - 1] for code in codes if 0 < code <= len(ids)]

    def category(self, item_id: str) -> str:
        """The category's name."""
        return str(self._items[item_id]["category_name"])

    def bid(self, item_id: str) -> float:
        """What an ad pays for a click."""
        return float(self._items[item_id]["bid"])

    def daily_budget(self, item_id: str) -> float:
        """The most that an ad pays a day."""
        return float(self._items[item_id]["daily_budget"])

    def kilometres(self, item_id: str, place: place_pb2.Place) -> float:
        """How far an item is from a place."""
        item = self._items[item_id]
        here = (place.latitude, place.longitude)
        there = (item["latitude"], item["longitude"])
        return float(h3.great_circle_distance(here, there, unit="km"))


def _because(item: ranker_pb2.RecommendedItem, shown: int) -> str:
    """The best reasons, and how many more there are; or the bandit, where it put the item."""
    if item.explored:
        return "bandit"
    best = ", ".join(f"{r.source} #{r.rank}" for r in item.reasons[:shown])
    more = len(item.reasons) - shown
    return f"{best} +{more}" if more > 0 else best


def print_feed(
    answer: ranker_pb2.RecommendResponse,
    place: place_pb2.Place,
    catalogue: Catalogue,
    console: Console,
) -> None:
    """The feed with scores and reasons, and how it came about."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    narrow = console.width < 100
    table.add_column("#", justify="right", min_width=2)
    table.add_column("item", no_wrap=True, max_width=24 if narrow else None)
    for column in ("km", "click", "order", "score"):
        table.add_column(column, justify="right", min_width=5 if column != "km" else 3)
    arrives = any(item.HasField("arrival") for item in answer.items)
    if arrives:
        table.add_column("min", justify="right", no_wrap=True)
    table.add_column("because", no_wrap=True)
    for number, item in enumerate(answer.items, 1):
        window = item.arrival
        minutes = f"{window.start_minute}–{window.end_minute}"
        table.add_row(
            str(number),
            _MARKS.get(item.kind, "") + catalogue.name(item.item_id),
            f"{catalogue.kilometres(item.item_id, place):.1f}",
            f"{item.click_probability:.0%}",
            f"{item.conversion_probability:.0%}",
            f"{item.score:.2f}",
            *([minutes if item.HasField("arrival") else ""] * arrives),
            _because(item, 1 if narrow else 3),
        )
    console.print(table)
    info = answer.serving_info
    stages = "   ".join(f"{s.name} {s.elapsed.ToMicroseconds() / 1000:.1f} ms" for s in info.stages)
    console.print(f"[bold]stages[/]   {stages}")
    for model in info.models:
        console.print(f"[bold]model[/]    {model.name} {model.version}")
    degraded = "; ".join(f"{d.component} {d.cause}: {d.effect}" for d in info.degraded)
    console.print(f"[bold]degraded[/] {degraded or 'nothing'}")


def print_arrivals(scores: list[EtaScores], title: str, console: Console) -> None:
    """How good distributions of arrival are, by the orders of a held-out period."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("arrivals")
    for column in ("CRPS", "in 80 %", "in 90 %", "in window", "it said"):
        table.add_column(column, justify="right")
    for found in scores:
        style = "bold magenta" if found.name == "ours" else ""
        shares = (*found.coverage[1:], *found.window)
        cells = [f"{found.crps.mean():.0f} s", *(f"{share:.0%}" for share in shares)]
        table.add_row(Text(found.name, style), *(Text(c, style) for c in cells))
    console.print(table)


def print_moves(
    before: ranker_pb2.RecommendResponse,
    after: ranker_pb2.RecommendResponse,
    catalogue: Catalogue,
    console: Console,
    most: int = 5,
) -> list[str]:
    """The best of the items that rose between two pages; returns their ids."""
    ranks = {item.item_id: rank for rank, item in enumerate(before.items, 1)}
    absent = len(before.items) + 1
    rises = [
        (ranks.get(item.item_id, absent) - rank, rank, item)
        for rank, item in enumerate(after.items, 1)
    ]
    rises = [rise for rise in rises if rise[0] > 1][:most]  # one is the hidden item's place
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("was", justify="right")
    table.add_column("is", justify="right")
    table.add_column("item", no_wrap=True, max_width=29 if console.width < 100 else None)
    table.add_column("category", no_wrap=True, max_width=14)
    table.add_column("because", no_wrap=True)
    for _, rank, item in rises:
        table.add_row(
            str(ranks.get(item.item_id, "–")),
            str(rank),
            _MARKS.get(item.kind, "") + catalogue.name(item.item_id),
            catalogue.category(item.item_id),
            _because(item, 1 if console.width < 100 else 3),
        )
    console.print(table)
    return [item.item_id for _, _, item in rises]


def print_segment(result: targeting_pb2.SegmentResult, console: Console) -> None:
    """What is expected of a segment, beside everybody."""
    rate, everybody = result.expected.click_rate, result.everybody.click_rate
    console.print(
        f"  [bold magenta]{result.size:,} users[/], {result.by_lookalike:,} by look-alike and "
        f"{result.by_preference:,} by preference: {rate.expected:.0%} should open it\n"
        f"  ({rate.low:.0%}–{rate.high:.0%}), {everybody.expected:.0%} of everybody"
    )


def print_ads(
    answer: ranker_pb2.RecommendResponse, catalogue: Catalogue, console: Console, most: int = 5
) -> None:
    """The best ads of a page, by what speaks for and against them."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("#", justify="right", min_width=2)
    table.add_column("ad", no_wrap=True, max_width=29 if console.width < 100 else None)
    for column in ("click", "order", "hide", "bid", "score"):
        table.add_column(column, justify="right", min_width=5)
    for number, item in enumerate(answer.items[:most], 1):
        table.add_row(
            str(number),
            catalogue.name(item.item_id),
            f"{item.click_probability:.1%}",
            f"{item.conversion_probability:.1%}",
            f"{item.hide_probability:.1%}",
            f"{catalogue.bid(item.item_id):,.0f}",
            f"{item.score:.3f}",
        )
    console.print(table)


def print_why(
    answer: ranker_pb2.ExplainResponse, catalogue: Catalogue, console: Console, most: int = 6
) -> None:
    """Why an item was where it was."""
    console.print(
        f"[bold]{catalogue.name(answer.item_id)}[/] was #{answer.position} for {answer.user_id}"
    )
    terms = " + ".join(f"{t.weight:g} × {t.name} {t.value:.3f}" for t in answer.terms)
    terms = terms.replace("+ -", "- ")
    console.print(f"  score      {answer.score:.3f}" + (f" = {terms}" if terms else ""))
    found = ", ".join(f"{s.source} #{s.rank}" for s in answer.reasons)
    console.print(f"  found by   {found}")
    if answer.HasField("bandit"):
        draw = answer.bandit
        console.print(
            f"  bandit     {draw.rewards} of {draw.impressions} paid in {draw.segment}; drew "
            f"{draw.rate:.4f}, the best left of {draw.pool}"
        )
        console.print(
            f"  propensity {answer.propensity:.3g}, in ranking {draw.ranking} of {draw.rankings}"
        )
    else:
        console.print(f"  propensity {answer.propensity:.3g} (the score put it there)")
    if answer.unexplained:
        console.print(f"  features   {answer.unexplained}")
    for n, feature in enumerate(answer.features[:most]):
        worth = f"{feature.contribution:+.3f}"
        name = feature.feature.partition(".")[2]
        console.print(
            f"  {'features' if not n else '':<10} {worth} {name} = {_value(feature, catalogue)}",
            no_wrap=True,
            overflow="ellipsis",
        )


def _value(feature: ranker_pb2.FeatureContribution, catalogue: Catalogue) -> str:
    if feature.feature.endswith((".top_items", ".last_items")):
        names = [catalogue.name(i) for i in catalogue.of_codes(list(feature.values))]
        return ", ".join(names[:2]) + (" …" if len(names) > 2 else "") or "none"
    values = ", ".join(f"{value:.4g}" for value in feature.values[:5])
    return values + (" …" if len(feature.values) > 5 else "")


def print_off_policy(campaigns: list[Campaign], console: Console) -> None:
    """What each policy would have earned by the other's log, beside what it did earn."""
    title = "Clicks per 1,000 shown, 95 % intervals"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("campaign", "policy", "by log of"):
        table.add_column(column)
    for column in ("clicks", "rows", "seen", "IPS", "SNIPS", "DR"):
        table.add_column(column, justify="right", no_wrap=True)
    for campaign in campaigns:
        for q in campaign.quality:
            if q.rows:
                console.print(f"  {q.source}: {len(q.rows):,} rows set aside, {q.reasons()}")
        for policy, other in (("bts", "random"), ("random", "bts")):
            log = campaign.logs[other]
            found = ope.evaluate(log, campaign.policies[policy])
            seen = ope.on_policy(campaign.logs[policy].reward)
            table.add_row(
                campaign.name,
                policy,
                other,
                f"{log.reward.sum():.0f}",
                f"{found.effective_rows:,.0f}",
                *map(_per_1000, (seen, *found.estimates.values())),
            )
    console.print(table)
    console.print(
        "rows: how many of the policy's own rows the log is worth. "
        "An interval from few clicks is itself rough."
    )


def print_explorations(log: Explorations, surface: str, console: Console) -> None:
    """What a bandit earned where it explored, beside what others would have."""
    title = f"Explored positions of {surface}: rewards per 1,000 seen, 95 % intervals"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("policy")
    for column in ("rows", "support", "seen", "IPS", "SNIPS", "DR"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row("the bandit", f"{len(log):,}", "", _per_1000(log.logged()), "", "", "")
    for name, found in (("chance", log.uniform()), ("greedy", log.greedy())):
        cells = map(_per_1000, found.estimates.values())
        table.add_row(name, f"{found.effective_rows:,.0f}", f"{found.support:.2f}", "", *cells)
    console.print(table)
    console.print(
        "support: 1 where the bandit could have shown whatever the policy would; well below, the "
        "estimates leave out what it never drew."
    )


def _per_1000(estimate: ope.Estimate) -> str:
    return f"{estimate.value * 1000:.1f}±{estimate.half * 1000:.1f}"
