"""`make bench-targeting`: ten million users scored out of core, and sets of them combined."""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from madang_targeting.lookalike import train_response
from madang_targeting.members import Members
from madang_targeting.scoring import Scored, score_audience, take
from madang_targeting.trees import TreeTraining

USERS, COLUMNS, SEGMENTS = 10_000_000, 20, 100
RECIPIENTS, WANTED = 60_000, 300_000


def make_audience(path: Path, rng: np.random.Generator, progress: Progress) -> None:
    """Write users as Parquet, a million at a time."""
    task = progress.add_task("users", total=USERS)
    folder = path.with_suffix("")
    folder.mkdir()
    for part in range(USERS // 1_000_000):
        values = rng.normal(size=(1_000_000, COLUMNS)).astype(np.float32)
        pl.DataFrame(values, schema=[f"f{i}" for i in range(COLUMNS)]).write_parquet(
            folder / f"{part:02}.parquet"
        )
        progress.advance(task, 1_000_000)
    pl.scan_parquet(folder / "*.parquet").sink_parquet(path)


def score(path: Path, rng: np.random.Generator, progress: Progress) -> tuple[Scored, float, int]:
    """Score everybody by two models, as a segment request does; seconds, and trees in all."""
    models = []
    for column in (0, 1):
        x = rng.normal(size=(RECIPIENTS, COLUMNS)).astype(np.float32)
        odds = -3 + x[:, column] + 0.5 * x[:, 2] + 0.3 * x[:, 3] * x[:, 4]
        responded = rng.random(RECIPIENTS) < 1 / (1 + np.exp(-odds))
        models.append(train_response(x, responded, TreeTraining(threads=2)))
    task = progress.add_task("scoring", total=1.0)
    started = time.perf_counter()
    scored = score_audience(
        str(path),
        [f"f{i}" for i in range(COLUMNS)],
        (models[0], models[1]),
        lambda share: progress.update(task, completed=share),
    )
    return scored, time.perf_counter() - started, sum(m.trees.num_trees() for m in models)


def milliseconds(work: "object", rounds: int = 5) -> float:
    """The median time of calls."""
    assert callable(work)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times) * 1000)


def main() -> None:
    """Measure and print."""
    rng, console = np.random.default_rng(0), Console()
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        path = Path(folder) / "users.parquet"
        make_audience(path, rng, progress)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        scored, seconds, trees = score(path, rng, progress)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        members, cut = take(scored, WANTED)
        taking = time.perf_counter() - started
    draws = [rng.integers(0, USERS, int(rng.uniform(1e4, 1e6))) for _ in range(SEGMENTS)]
    segments = [Members.of_rows(rows) for rows in draws]
    size = sum(map(len, segments))
    table = Table("what", "measured", title=f"{USERS:,} users, {COLUMNS} columns")
    table.add_row(f"scored by two models ({trees} trees)", f"{seconds:.0f} s")
    table.add_row(
        "memory of the process, before and at its peak", f"{before >> 10}, {peak >> 10} MB"
    )
    table.add_row(f"{WANTED:,} wanted: {len(members):,} taken by OR", f"{taking * 1000:.0f} ms")
    table.add_row(
        "expected response of them, of all", f"{cut.response / cut.size:.3f}, {mean(scored):.3f}"
    )
    table.add_row(
        f"any of {SEGMENTS} segments, {size:,} members",
        f"{milliseconds(lambda: Members.any_of(segments)):.1f} ms",
    )
    table.add_row(f"all of {SEGMENTS}", f"{milliseconds(lambda: Members.all_of(segments)):.1f} ms")
    table.add_row(
        "one without the other 99",
        f"{milliseconds(lambda: segments[0].without(segments[1:])):.1f} ms",
    )
    table.add_row(f"a segment of {len(members):,}, packed", f"{len(members.pack()) >> 10:,} kB")
    console.print(table)


def mean(scored: Scored) -> float:
    """Expected response of everybody."""
    return float(scored.histogram.response.sum() / scored.histogram.counts.sum())


if __name__ == "__main__":
    main()
