"""`make quality-targeting`: how good look-alikes and uplift are, on a bank's calls and in the city.

Writes docs/results/targeting.md and its plot.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import rankdata

from madang.targeting.v1 import targeting_pb2 as pb
from madang_pipelines.city.campaigns import CHANNELS, GROUPS, CampaignWorld
from madang_pipelines.city.simulate import City, CitySize, simulate
from madang_pipelines.sources.bank import load_bank
from madang_pipelines.targeting.features import (
    layout_of,
    recipients,
    send_inputs,
    user_columns,
)
from madang_pipelines.targeting.training import train_targeting
from madang_runtime.models.registry import ModelRegistry
from madang_targeting.audience import Audiences
from madang_targeting.lookalike import train_response
from madang_targeting.maker import SegmentMaker
from madang_targeting.members import Members
from madang_targeting.model import NAME, TargetingModel
from madang_targeting.results import Event
from madang_targeting.stores.memory import MemoryResultStore, MemorySegmentStore
from madang_targeting.trees import TreeTraining
from madang_targeting.uplift import qini, qini_curve, train_uplift
from madang_targeting.work import Work

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RESULTS = Path(__file__).parents[1] / "docs" / "results"
_SEEDS = (0, 1, 2)
_CAMPAIGNS, _TESTED = 24, 6
_BEST = 0.2
_SIZE = 600
_BY_HAND = "by hand: who ordered most of it"
_ALIKE = "OR look-alikes of who responded to it"
_LEARNED = f"the same, after a sample of {_SIZE // 2}"
_ORDER = ("everybody", _BY_HAND, "preference groups", _ALIKE, _LEARNED, "oracle")


@dataclass(frozen=True)
class Fit:
    """How well probabilities fit outcomes.

    Attributes:
        auc: area under the ROC curve.
        lift: rate among the best tenth, beside the mean.
        error: mean |P - rate| over twenty equal groups (expected calibration error).
        groups: mean P and rate of each group.
    """

    auc: float
    lift: float
    error: float
    groups: Floats


def judge(probability: Floats, outcome: Bools) -> Fit:
    """Judge probabilities of rows that were not learned from."""
    ranks, hits = rankdata(probability), outcome.sum()
    auc = (ranks[outcome].sum() - hits * (hits + 1) / 2) / (hits * (~outcome).sum())
    order = np.argsort(-probability, kind="stable")
    best = order[: len(order) // 10]
    groups = np.array(
        [[probability[g].mean(), outcome[g].mean()] for g in np.array_split(order, 20)]
    )
    error = np.abs(groups[:, 0] - groups[:, 1]).mean()
    return Fit(float(auc), float(outcome[best].mean() / outcome.mean()), float(error), groups)


def bank(path: Path) -> list[Fit]:
    """Five-fold cross-validation, a seed each; calibration is learned from other folds too."""
    inputs, success, codes = load_bank(path)
    found = []
    for seed in track(_SEEDS, "bank", transient=True):
        model = train_response(inputs, success, TreeTraining(seed=seed), codes)
        found.append(judge(model.fair, success))
    return found


def city_uplift(
    city: City,
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, Floats], list[float]]:
    """Of each way to choose: Qini and true orders gained by telling the best fifth, a seed each;
    the Qini curves of the last seed; and the share of sends that keep users away, a seed each."""
    found: dict[str, list[tuple[float, float]]] = {}
    curves: dict[str, Floats] = {}
    harmed = []
    layout = layout_of(city.tables)
    period, quick = city.tables.test_period, TreeTraining(rounds=60, learning_rate=0.1)
    users = {period: user_columns(city.tables, layout, period, quick)}
    for seed in track(_SEEDS, "uplift", transient=True):
        world = CampaignWorld(city.tables.frames["users"], city.truth, seed)
        campaigns, sends, truth = world.run(_CAMPAIGNS, 0.5, city.tables.test_period)
        harmed.append(float((truth.uplift < 0).mean()))
        inputs = send_inputs(recipients(users, layout, campaigns, sends), layout)
        last = campaigns["campaign_id"].to_list()[-_TESTED:]
        test = sends["campaign_id"].is_in(last).to_numpy()
        told, ordered = sends["told"].to_numpy(), sends["ordered"].to_numpy()
        training = TreeTraining(least_in_leaf=300, seed=seed)
        uplift = train_uplift(inputs[~test], told[~test], ordered[~test], training)
        response = train_response(inputs[~test & told], ordered[~test & told], training)
        ways = {
            "by chance": np.random.default_rng(seed).random(int(test.sum())),
            "response model": response(inputs[test]),
            "uplift model": uplift(inputs[test]),
            "oracle": truth.uplift[test],
        }
        for name, score in ways.items():
            best = np.argsort(-score)[: int(_BEST * len(score))]
            gained = float(truth.uplift[test][best].mean())
            found.setdefault(name, []).append((qini(score, told[test], ordered[test]), gained))
            curves[name] = np.stack(qini_curve(score, told[test], ordered[test]))
    return found, curves, harmed


@dataclass
class Told:
    """How segments of 600 did, by the simulator's truth, a campaign each.

    Attributes:
        rates: of clicks and orders, by the way to choose and the campaign.
        held: whether the rates that came were within what had been foretold.
    """

    rates: dict[str, dict[str, tuple[float, float]]]
    held: dict[str, list[bool]]


def city_segments(city: City) -> Told:
    """Segments for campaigns that no model has seen, on models of those before."""
    told = Told({}, {})
    for seed in track(_SEEDS, "segments", transient=True):
        world = CampaignWorld(city.tables.frames["users"], city.truth, seed)
        campaigns, sends, _ = world.run(_CAMPAIGNS, 0.5, city.tables.test_period)
        before = campaigns.head(_CAMPAIGNS - _TESTED)
        frames = {
            **city.tables.frames,
            "campaigns": before,
            "sends": sends.join(before.select("campaign_id"), "campaign_id", maintain_order="left"),
        }
        with tempfile.TemporaryDirectory() as folder:
            registry = ModelRegistry(f"file://{folder}")
            version = train_targeting(replace(city.tables, frames=frames), registry)
            assert version
            audiences = Audiences(registry, Path(folder))
            model = TargetingModel(registry.load(NAME, version), audiences.get)
            for campaign in campaigns.tail(_TESTED).iter_rows(named=True):
                _tell(told, world, model, audiences, campaign, city)
    return told


def _tell(
    told: Told,
    world: CampaignWorld,
    model: TargetingModel,
    audiences: Audiences,
    campaign: dict[str, str],
    city: City,
) -> None:
    """Make the segments of one campaign in every way."""
    results = MemoryResultStore()
    maker = SegmentMaker(MemorySegmentStore(), results, audiences.get)
    ids = city.tables.frames["users"]["user_id"].to_list()
    row = {user: i for i, user in enumerate(ids)}
    group, channel = GROUPS.index(campaign["group"]), CHANNELS.index(campaign["channel"])
    truth = world.truth(np.arange(len(ids)), group, channel)
    same = [c for c, b in model.campaigns.items() if b.group == campaign["group"]]

    def make(**given: object) -> tuple[pb.SegmentResult, NDArray[np.int64]]:
        spec = pb.SegmentSpec(
            **{  # type: ignore[arg-type]
                "groups": [campaign["group"]],
                "channel": campaign["channel"],
                "goal": pb.OUTCOME_CLICK,
                "size": _SIZE,
                **given,
            }
        )
        made = maker.make("s", spec, model, Work(threads=2))
        parts = (made.members.main, made.members.sample)
        found = Members.any_of([Members.unpack(part) for part in parts]).rows()
        return made.result, np.array([row[u] for u in model.audience.ids(found)])

    def note(way: str, users: NDArray[np.int64], result: pb.SegmentResult | None = None) -> None:
        rates = float(truth.click[users].mean()), float(truth.order_told[users].mean())
        told.rates.setdefault(way, {})[f"{world.seed} {campaign['campaign_id']}"] = rates
        if result:
            came, _ = world.send(users, np.ones(len(users), np.bool_), group, channel)
            for outcome, rate in (
                ("clicked", result.expected.click_rate),
                ("ordered", result.expected.order_rate),
            ):
                share = float(came[outcome].to_numpy().mean())
                told.held.setdefault(way, []).append(rate.low <= share <= rate.high)

    ordered = city.tables.frames["actions"].filter(
        (pl.col("type") == "order") & (pl.col("period") < city.tables.test_period)
    )
    items = city.tables.frames["items"].select("item_id", group="category_name")
    fans = (
        ordered.join(items, "item_id")
        .filter(pl.col("group") == campaign["group"])
        .group_by("user_id")
        .len()
        .sort("len", "user_id", descending=[True, False])
        .head(_SIZE)
    )
    note("everybody", np.arange(len(ids)))
    note(_BY_HAND, np.array([row[u] for u in fans["user_id"]]))
    result, users = make()
    note("preference groups", users, result)
    if same:
        result, users = make(reference_campaign_ids=same)
        note(_ALIKE, users, result)
    _, sample = make(size=5 * _SIZE)
    sample = np.random.default_rng(0).permutation(sample)[: _SIZE // 2]
    came, _ = world.send(sample, np.ones(len(sample), np.bool_), group, channel)
    for event, who in ((Event.SENT, came), (Event.CLICK, came.filter("clicked"))):
        results.append("now", event, who["user_id"].to_list())
    if came["clicked"].sum() >= 20:
        result, users = make(
            reference_campaign_ids=[*same, "now"], exclude_told_campaign_ids=["now"]
        )
        note(_LEARNED, users, result)
    note("oracle", np.argsort(-truth.click)[:_SIZE])


def plot(fit: Fit, curves: dict[str, Floats], path: Path) -> None:
    """Calibration on the bank's calls, and Qini curves in the city."""
    matplotlib.rcParams["svg.hashsalt"] = "madang"  # the same plot is the same file
    figure = Figure(figsize=(8, 3.4))
    left, right = figure.subplots(1, 2)
    top = fit.groups.max() * 1.05
    left.plot([0, top], [0, top], color="black", linewidth=0.8)
    left.plot(fit.groups[:, 0], fit.groups[:, 1], "o", color="#7c4dff", markersize=4)
    left.set(title="bank: is P right?", xlabel="mean P of a twentieth", ylabel="share")
    for name, (shares, gained) in curves.items():
        style = {"uplift model": ("#7c4dff", 2.0), "oracle": ("black", 0.8)}
        colour, width = style.get(name, ("#999", 1.2))
        dashed = "--" if name == "by chance" else "-"
        step = max(len(shares) // 400, 1)
        right.plot(
            shares[::step], gained[::step], dashed, color=colour, linewidth=width, label=name
        )
    right.set(title="city: orders gained", xlabel="share of users told", ylabel="a user of all")
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})


def spread(values: list[float], digits: int) -> str:
    """The mean and the range."""
    low, high = min(values), max(values)
    return f"{np.mean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _mean(rates: Iterable[tuple[float, float]]) -> str:
    """Clicks and orders of a hundred."""
    found = list(rates)
    return ", ".join(f"{100 * m:.1f}" for m in np.mean(found, axis=0)) if found else ""


def _share(held: list[bool] | None) -> str:
    return f"{sum(held)} of {len(held)}" if held else ""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="folder at or above that of the bank's zip file")
    path = sorted(parser.parse_args().data.rglob("bank-additional.zip"))[0]
    started = time.monotonic()
    fits = bank(path)
    city = simulate(CitySize())
    told = city_segments(city)
    found, curves, harmed = city_uplift(city)
    rows = [
        f"| {name} | {spread([q * 1e4 for q, _ in values], 1)} | "
        f"{spread([100 * g for _, g in values], 2)} |"
        for name, values in found.items()
    ]
    RESULTS.mkdir(exist_ok=True)
    plot(fits[0], curves, RESULTS / "targeting.svg")
    known = told.rates[_ALIKE].keys()
    segments = [
        f"| {way} | {_mean(by_campaign.values())} | "
        f"{_mean(r for c, r in by_campaign.items() if c in known)} | {_share(told.held.get(way))} |"
        for way, by_campaign in sorted(told.rates.items(), key=lambda way: _ORDER.index(way[0]))
    ]
    text = f"""# Targeting

Made by `make quality-targeting DATA=…` in {(time.monotonic() - started) / 60:.0f} min on two cores.
Seeds {", ".join(map(str, _SEEDS))}; means, and ranges in brackets.

## A bank's calls

Who subscribes after a call: 41,188 calls, without their length, which nobody knows before.
Five-fold cross-validation; the calibration is found without the fold that is judged, how many trees
is the median of what each fold's training part found.

| | |
|---|---|
| AUC | {spread([f.auc for f in fits], 4)} |
| lift of the best tenth | {spread([f.lift for f in fits], 2)} |
| calibration error, 20 equal groups | {spread([f.error for f in fits], 4)} |

## Segments in the simulated city

{len(_SEEDS) * _TESTED} campaigns that no model has seen, on models of the {_CAMPAIGNS - _TESTED}
before them, a segment of {_SIZE} of 6,000 users for each: rates of
clicks and of orders by the simulator's truth. The models know the channel and the group that a
campaign is about. {len(known)} of the campaigns are about what a campaign before was about, so that
there are responders to be like. After a sample of {_SIZE // 2}, drawn from the best half of the
users, its responders are learned from too, and who was in it is left out. Foretold: how often the
rate that came was within the interval for nine in ten.

| whom to tell | clicks, orders | where responders are known | foretold |
|---|---:|---:|---:|
{chr(10).join(segments)}

## Uplift in the simulated city

{_CAMPAIGNS} campaigns to half of 6,000 users each, three in ten held out; the last {_TESTED} are
judged, the others learned from. Of all sends {spread([100 * h for h in harmed], 0)} in 100 make an
order less likely, by the simulator's truth; so are the orders gained, when the best fifth is told.
Qini is the area between the curve and chance, × 10⁴.

| whom to tell | Qini | orders gained, of 100 told |
|---|---:|---:|
{chr(10).join(rows)}

The response model picks who orders anyway, so that telling them gains less than telling anybody.

![calibration and Qini curves](targeting.svg)
"""
    (RESULTS / "targeting.md").write_text(text, encoding="utf-8")
    Console().print(text)


if __name__ == "__main__":
    main()
