"""What a bandit costs against the number of its arms: `make bench-bandit`.

Every arm has counts in every one of 12 segments, which is the worst case. A batch is what the
consumer makes every few minutes. svc-ranker makes all draws when it comes; svc-candidate makes the
bounds with the first request after it, or after a change of items. A request filters 300
deliverable arms and merges the choice into a list of 300.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from madang.ranker.v1 import bandit_pb2
from madang_candidate.ann import AnnIndex, build_ann
from madang_candidate.arms import ArmFilter
from madang_candidate.cells import delivery_cells
from madang_candidate.index import ItemIndex, TrainedItems
from madang_ranker.bandit.batches import Counts, make_batch
from madang_ranker.bandit.draws import BatchDraws
from madang_ranker.bandit.layer import BanditLayer
from madang_ranker.bandit.policy import BanditPolicy
from madang_ranker.proposed import Proposed
from madang_ranker.reasons import Reasons
from madang_runtime.changelog.table import LogTable

ARMS, SEGMENTS, CANDIDATES, REQUESTS = (1_000, 3_000, 10_000, 30_000, 100_000), 12, 300, 300
POLICY = BanditPolicy()


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def counted(rng: np.random.Generator, arms: int) -> tuple[list[tuple[str, str]], Counts]:
    """Counts of every arm in every segment."""
    pairs = [(f"cohort={s}" if s else "all", f"i{a}") for s in range(SEGMENTS) for a in range(arms)]
    impressions = rng.geometric(0.01, len(pairs))
    rewards = rng.binomial(impressions, rng.beta(1, 60, len(pairs)))
    return pairs, np.stack([impressions, rewards], axis=1).astype(np.uint32)


def index_of(arms: int) -> ItemIndex:
    """Items that go everywhere."""
    vectors = np.eye(8, dtype=np.float32)[np.arange(arms) % 8]
    columns = {
        "ids": np.array([f"i{a}".encode() for a in range(arms)]),
        "codes": np.arange(1, arms + 1),
        "kinds": np.ones(arms, np.uint8),
        "vectors": vectors,
        "open_hours": np.full(arms, 2**24 - 1, np.uint32),
        **delivery_cells(np.zeros((arms, 2)), np.zeros(arms), 8),
    }
    return ItemIndex(TrainedItems(columns, 8, AnnIndex(build_ann(vectors[:1]))), arms)


def proposed(rows: np.ndarray, tried: np.ndarray) -> Proposed:
    """A list of candidates, of which some passed the filter."""
    ranks = np.zeros((len(rows), 1), np.uint16)
    ranks[np.isin(rows, tried), 0] = 1
    scores = np.zeros((len(rows), 1), np.float32)
    ids = [f"i{row}" for row in rows.tolist()]
    return Proposed(ids, b"\1" * len(ids), scores[:, 0], Reasons(["explore"], ranks, scores))


def main() -> None:
    """Print the table."""
    rng, table = np.random.default_rng(7), Table(title="A surface's bandit, 12 segments, M = 64")
    for column in ("arms", "batch s", "MB", "draws s", "MB", "bounds ms", "filter µs", "merge µs"):
        table.add_column(column, justify="right")
    for arms in ARMS:
        pairs, counts = counted(rng, arms)
        batch = make_batch(POLICY, pairs, counts)
        making = timed(partial(make_batch, POLICY, pairs, counts))
        batch.surface, batch.batch_id, batch.seed = "home", "home-1", 7
        payload = batch.SerializeToString()
        drawing = timed(partial(BatchDraws, batch))
        draws = BatchDraws(batch)
        memory = sum(s.rates.nbytes for s in draws._segments.values())
        batches = LogTable(bandit_pb2.BanditBatch.FromString)
        batches.apply({"home": payload}, False)
        index, found = index_of(arms), ArmFilter(batches)
        started = time.perf_counter()
        arms_of = found.arms("home", index)
        assert arms_of
        arms_of.propose(["all"], np.arange(9))
        bounds = time.perf_counter() - started
        layer = BanditLayer({"home": draws}.get)
        filters, merges = [], []
        for request in range(REQUESTS):
            allowed = np.sort(rng.choice(arms, CANDIDATES, replace=False))
            started = time.perf_counter()
            rows, _ = arms_of.propose(["all"], allowed)
            filters.append(time.perf_counter() - started)
            items, order = proposed(allowed, rows), rng.permutation(CANDIDATES)
            started = time.perf_counter()
            layer.merge("home", POLICY, f"u{request}", 0, items, order)
            merges.append(time.perf_counter() - started)
        table.add_row(
            f"{arms:,}",
            f"{making:.2f}",
            f"{len(payload) / 1e6:.1f}",
            f"{drawing:.2f}",
            f"{memory / 1e6:.0f}",
            f"{bounds * 1e3:.0f}",
            f"{median(filters) * 1e6:.0f}",
            f"{median(merges) * 1e6:.0f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
