"""`make quality-eta`: how good arrivals are, on real courier orders and in the simulated city.

Writes docs/results/eta.md and its plot.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import lightgbm
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from madang_eta.train import StageTraining
from madang_pipelines.city.simulate import CitySize, simulate
from madang_pipelines.eta.evaluation import (
    TREES,
    arrival_pmf,
    constant,
    distance_line,
    evaluate_city,
    log_normal,
    tree_mean,
)
from madang_pipelines.eta.scores import INTERVALS, EtaScores, paired, score
from madang_pipelines.eta.training import EtaPlan, Examples, fit, make_examples
from madang_pipelines.sources.sendy import FILES, NUMBERS, PATTERNS, load_sendy, split
from madang_runtime.models.context import Clock

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
RESULTS = Path(__file__).parents[1] / "docs" / "results"
SENDY = EtaPlan(
    "courier",
    stages=("delivery",),
    patterns=PATTERNS,
    horizons=("all",),
    live={},
    numbers=NUMBERS,
    clock=Clock(0),
    training=StageTraining(epochs=20, weight_decay=0.3, dropout=0.5, members=8),
)
_SEEDS = (0, 1, 2)
_LEVELS = np.array([0.01, *np.arange(0.025, 0.98, 0.025), 0.99])


def tree_quantiles(examples: Examples, learn: Rows, test: Rows, width: int) -> Floats:
    """LightGBM's quantile regression: a model a level, sorted."""
    x, y = examples.inputs, examples.minutes[:, 0]
    found = []
    for level in track(_LEVELS, "LightGBM quantiles", transient=True):
        trees = {**TREES, "objective": "quantile", "alpha": level, "seed": 1}
        model = lightgbm.train(trees, lightgbm.Dataset(x[learn], y[learn]), 300)
        found.append(np.asarray(model.predict(x[test])))
    minutes = np.sort(np.array(found), axis=0)
    ends = np.arange(1, width + 1)
    last = minutes[-1] * 1.5 + 5
    below = np.stack(
        [
            np.interp(ends, [0, *row, end], [0, *_LEVELS, 1])
            for row, end in zip(minutes.T, last, strict=True)
        ]
    )
    below[:, -1] = 1
    return np.diff(below, axis=1, prepend=0)


def sendy(folder: Path, console: Console) -> tuple[list[EtaScores], list[float], int, int]:
    """Scores of all on the test split, ours by its first seed; and the CRPS of each seed."""
    frame, rejected = load_sendy(folder)
    console.print(f"{len(frame):,} orders; {rejected.reasons() or 'none'} set aside")
    learning, folds = split(frame["order_id"])
    examples = make_examples(frame, SENDY, learning, folds)
    learn, test = np.flatnonzero(learning), np.flatnonzero(~learning)
    minutes = examples.minutes[test, 0]
    ours = []
    for seed in track(_SEEDS, "ours", transient=True):
        plan = replace(SENDY, training=replace(SENDY.training, seed=seed))
        ours.append(arrival_pmf(fit(examples, plan), examples.inputs[test]))
    width = 240
    found = {
        "constant": constant(examples.minutes[learn, 0], len(test), width),
        "log-normal": log_normal(examples, learn, test, width),
        "distance line + errors": distance_line(examples, learn, test, width),
        "LightGBM mean + errors": tree_mean(examples, learn, test, folds, width),
        "LightGBM quantiles": tree_quantiles(examples, learn, test, width),
        "ours": ours[0],
    }
    seeds = [float(score("ours", pmf, minutes).crps.mean()) for pmf in ours]
    scores = [score(name, pmf, minutes) for name, pmf in found.items()]
    return scores, seeds, len(learn), len(test)


def table(scores: list[EtaScores]) -> str:
    """Markdown."""
    heads = [f"in {c:.0%} (width)" for c in INTERVALS]
    names = ["", "CRPS s", "MAE s", "RMSE s", *heads, "in 10 min window (it said)"]
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for s in scores:
        spans = [f"{c:.1%} ({w / 60:.1f} min)" for c, w in zip(s.coverage, s.width, strict=True)]
        window = f"{s.window[0]:.1%} ({s.window[1]:.1%})"
        cells = [f"{s.crps.mean():.1f}", f"{s.mae:.0f}", f"{s.rmse:.0f}", *spans, window]
        mark = "**" if s.name == "ours" else ""
        lines.append(f"| {mark}{s.name}{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(panels: dict[str, list[EtaScores]], path: Path) -> None:
    """Histograms of the probability integral transform: flat is right."""
    matplotlib.rcParams["svg.hashsalt"] = "madang"  # the same plot is the same file
    chosen = [(title, s) for title, scores in panels.items() for s in scores]
    figure = Figure(figsize=(3 * len(chosen), 2.6))
    axes = figure.subplots(1, len(chosen), sharey=True)
    for axis, (title, s) in zip(axes, chosen, strict=True):
        colour = "#7c4dff" if s.name == "ours" else "#bbb"
        axis.hist(s.pit, 20, range=(0, 1), density=True, color=colour)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_title(f"{title}: {s.name}", fontsize=9)
        axis.set_xlabel("share of the distribution below the arrival", fontsize=7)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="folder at or above that of Sendy's files")
    folder = next(
        p.parent
        for p in sorted(parser.parse_args().data.rglob(FILES[0]))
        if (p.parent / FILES[1]).exists()
    )
    console, started = Console(), time.monotonic()
    scores, seeds, learned, tested = sendy(folder, console)
    by_name = {s.name: s for s in scores}
    rival = min((s for s in scores if s.name != "ours"), key=lambda s: s.crps.mean())
    low, high = paired(by_name["ours"], rival)
    console.print(table(scores))
    city = simulate(CitySize())
    parts = []
    panels = {"couriers": [by_name["LightGBM quantiles"], by_name["ours"]]}
    for service in ("standard", "express"):
        plan = EtaPlan(service, clock=city.tables.clock)
        found, fitted = evaluate_city(city.tables, city.deliveries, plan)
        cross = fitted.correlations[np.triu_indices(3, 1)]
        parts.append(
            f"### {service}\n\n{table(found)}\n\nCorrelations of dispatch–pickup, "
            f"dispatch–delivery and pickup–delivery: {', '.join(f'{c:.2f}' for c in cross)}. "
            "Loadings on what they have in common: "
            f"{', '.join(f'{c:.2f}' for c in fitted.loadings)}.\n"
        )
        console.print(parts[-1])
        if service == "standard":
            panels["city"] = [s for s in found if s.name.startswith("ours")]
    RESULTS.mkdir(exist_ok=True)
    plot(panels, RESULTS / "eta-pit.svg")
    text = f"""# Arrivals

Made by `make quality-eta DATA=…` in {(time.monotonic() - started) / 60:.0f} min on two cores.
CRPS is the area between a distribution and what came true; MAE is of the median, RMSE of the mean.
All models read the same columns.

## Real courier orders, from pickup to arrival

Sendy's {learned + tested:,} orders: {learned:,} to learn from, {tested:,} to test, split by a hash
of the order's number. One stage.

{table(scores)}

Seeds {", ".join(map(str, _SEEDS))} of ours: CRPS {", ".join(f"{s:.1f}" for s in seeds)} s.
Ours less {rival.name}: {low:.1f} to {high:.1f} s (95 %, paired bootstrap over orders).

## The simulated city, from order to arrival

Three stages; the last three days were not learned from. The oracle knows all but chance.

{chr(10).join(parts)}
## Are probabilities right?

Flat is right. A U says that distributions are too sure, as stages are that are convolved as if they
were independent.

![PIT](eta-pit.svg)
"""
    (RESULTS / "eta.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
