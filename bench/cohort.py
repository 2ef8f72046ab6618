"""Batch serving for many users: `make bench-cohort` (USERS=10000000).

Writes the segments of 10 million users into the feature store through the gateway, then shows
random ones of them the surface "quick": a request reads the user's segments and last actions in one
round trip, and takes the cohort's list from memory. The store's memory is what Valkey says.
"""

import os
import time
from collections.abc import Iterator

import grpc
import numpy as np
import redis
from floor import EVENING, HOME, PLACE, prepared
from load import Load, drive
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from madang.feature.v1 import feature_store_pb2 as f
from madang.feature.v1 import feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh
from madang_pipelines.publish import publish
from madang_runtime.columns import block

USERS = int(os.environ.get("USERS", "10000000"))
AT_ONCE, A_STREAM, COHORTS, SECONDS = 10_000, 200_000, 16, 10.0
console = Console()


def user_id(user: int) -> str:
    """The id of the n-th user."""
    return f"user-{user:08d}"


def rows(first: int, last: int) -> Iterator[f.StreamWriteFeaturesRequest]:
    """The rows of some users: one in three is warm and has a cohort."""
    for start in range(first, last, AT_ONCE):
        user = np.arange(start, min(start + AT_ONCE, last))
        warm = user % 3 == 0
        values = np.stack([np.where(warm, user % COHORTS, 0), 10 + user % 60], axis=1)
        statuses = np.stack([np.where(warm, 1, 2), np.ones_like(user)], axis=1).astype(np.uint8)
        yield f.StreamWriteFeaturesRequest(
            write=f.WriteFeaturesRequest(
                view="user_segments",
                entity_ids=[user_id(u) for u in user.tolist()],
                blocks=[block(["cohort", "demographic"], values, statuses=statuses.tobytes())],
            )
        )


def fill(mesh: LocalMesh) -> float:
    """Write the rows; returns how many a second."""
    started = time.perf_counter()
    with Progress(console=console) as progress, grpc.insecure_channel(mesh.info.gateway) as channel:
        store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
        for first in progress.track(range(0, USERS, A_STREAM), description="users"):
            last = min(first + A_STREAM, USERS)
            while True:  # Valkey pauses when its table of keys doubles
                try:
                    answer = store.StreamWriteFeatures(rows(first, last), timeout=120)
                except grpc.RpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                    time.sleep(0.5)
                else:
                    assert answer.rows_written == last - first
                    break
    return USERS / (time.perf_counter() - started)


def ask(mesh: LocalMesh, surface: str, callers: int) -> Load:
    """Recommend to random users; none may be degraded."""
    users = iter(np.random.default_rng(callers).integers(0, USERS, 10**6).tolist())
    with grpc.insecure_channel(mesh.info.gateway) as channel:
        ranker = ranker_pb2_grpc.RankerServiceStub(channel)

        def call() -> None:
            request = ranker_pb2.RecommendRequest(
                user_id=user_id(next(users)),
                place=PLACE,
                request_time=EVENING,
                page_size=20,
                surface=surface,
            )
            answer = ranker.Recommend(request, timeout=10)
            assert answer.items
            assert not answer.serving_info.degraded

        return drive(call, callers=callers, seconds=SECONDS)


def main() -> None:
    """Measure and print."""
    workspace = prepared()
    with LocalMesh(HOME, "cohort", sampling_ratio=0.0) as mesh:
        publish(workspace.features, mesh.info.gateway)
        mesh.wait_serving()
        store = redis.Redis.from_url(f"redis://{mesh.info.store}")
        before = int(store.info("memory")["used_memory"])
        store.config_set("appendfsync", "no")  # loading is not what is measured
        store.config_set("auto-aof-rewrite-percentage", 0)
        rate = fill(mesh)
        store.config_set("appendfsync", "always")
        used = int(store.info("memory")["used_memory"]) - before
        loads = {s: {n: ask(mesh, s, n) for n in (1, 4)} for s in ("quick", "home")}
    console.print(
        f"{USERS:,} users: {used / 2**30:.2f} GiB in the store, {used / USERS:.0f} bytes each; "
        f"written at {rate:,.0f} rows/s"
    )
    table = Table("surface", "callers", "requests/s", "p50 ms", "p99 ms")
    for surface, runs in loads.items():
        for callers, load in runs.items():
            cells = load.rate, load.quantile(0.5), load.quantile(0.99)
            table.add_row(surface, str(callers), *(f"{cell:.1f}" for cell in cells))
    console.print(table)


if __name__ == "__main__":
    main()
