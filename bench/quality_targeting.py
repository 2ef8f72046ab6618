"""`make quality-targeting`: how good look-alikes and uplift are, on a bank's calls and in the city.

Writes docs/results/targeting.md and its plot.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import rankdata

from madang_pipelines.city.campaigns import run_campaigns
from madang_pipelines.city.simulate import CitySize, simulate
from madang_pipelines.sources.bank import load_bank
from madang_pipelines.targeting.features import send_inputs
from madang_targeting.lookalike import train_response
from madang_targeting.trees import TreeTraining
from madang_targeting.uplift import qini, qini_curve, train_uplift

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RESULTS = Path(__file__).parents[1] / "docs" / "results"
_SEEDS = (0, 1, 2)
_CAMPAIGNS, _TESTED = 24, 6
_BEST = 0.2


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


def city_uplift() -> tuple[dict[str, list[tuple[float, float]]], dict[str, Floats], list[float]]:
    """Of each way to choose: Qini and true orders gained by telling the best fifth, a seed each;
    the Qini curves of the last seed; and the share of sends that keep users away, a seed each."""
    city = simulate(CitySize())
    found: dict[str, list[tuple[float, float]]] = {}
    curves: dict[str, Floats] = {}
    harmed = []
    for seed in track(_SEEDS, "uplift", transient=True):
        campaigns, sends, truth = run_campaigns(
            city.tables.frames["users"], city.truth, _CAMPAIGNS, 0.5, seed
        )
        harmed.append(float((truth.uplift < 0).mean()))
        inputs = send_inputs(city.tables, campaigns, sends)
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


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="folder at or above that of the bank's zip file")
    path = sorted(parser.parse_args().data.rglob("bank-additional.zip"))[0]
    started = time.monotonic()
    fits = bank(path)
    found, curves, harmed = city_uplift()
    rows = [
        f"| {name} | {spread([q * 1e4 for q, _ in values], 1)} | "
        f"{spread([100 * g for _, g in values], 2)} |"
        for name, values in found.items()
    ]
    RESULTS.mkdir(exist_ok=True)
    plot(fits[0], curves, RESULTS / "targeting.svg")
    text = f"""# Targeting

Made by `make quality-targeting DATA=…` in {(time.monotonic() - started) / 60:.0f} min on two
cores. Seeds {", ".join(map(str, _SEEDS))}; means, and ranges in brackets.

## A bank's calls

Who subscribes after a call: 41,188 calls, without their length, which nobody knows before.
Five-fold cross-validation; how many trees, and the calibration, are found without the fold that is
judged.

| | |
|---|---|
| AUC | {spread([f.auc for f in fits], 4)} |
| lift of the best tenth | {spread([f.lift for f in fits], 2)} |
| calibration error, 20 equal groups | {spread([f.error for f in fits], 4)} |

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
