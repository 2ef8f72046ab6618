"""How near each layer is to the floor below it, in one run: `make bench`.

Server and client have a core each. Every comparison runs its sides in turn, five times; the table
gives medians, and the spread of the five ratios.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import redis
from google.protobuf import timestamp_pb2
from load import Load, drive
from rich.console import Console
from rich.table import Table

from madang.common.v1 import place_pb2, tensor_pb2
from madang.feature.v1 import feature_store_pb2 as f
from madang.feature.v1 import feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang_cli.arrival import refreshed
from madang_cli.mesh.mesh import LocalMesh, healthy, wait_for
from madang_cli.mesh.otlp import OtlpReceiver
from madang_cli.mesh.processes import ManagedProcess, free_port
from madang_cli.show import steps
from madang_cli.workspace import DataSource, Workspace, load
from madang_pipelines.publish import publish
from madang_pipelines.training import RANKER, Recipe
from madang_ranker.scoring import ScoreRequest, batch_tensors
from madang_runtime.columns import block
from madang_runtime.models.inputs import InputRows, ViewInputs
from madang_runtime.models.manifest import FeatureRef
from madang_runtime.models.onnx_backend import OnnxBackend, Tensors

HOME = Path("run/bench")
ROUNDS, SECONDS, CALLERS = 5, 3.0, 4
SAMPLING = 0.1  # the default of the services
SERVER_CORE, CLIENT_CORE = 0, (os.cpu_count() or 1) - 1
PLACE = place_pb2.Place(latitude=37.4959, longitude=127.0664)
EVENING = timestamp_pb2.Timestamp(seconds=1_775_300_400)
console = Console()


@dataclass(frozen=True)
class Comparison:
    """The sides of one comparison, and what is wanted of ours against the floor."""

    name: str
    floor: str
    ours: str
    ratios: list[float]
    wanted: str
    plain: str = "–"

    @classmethod
    def of_rates(cls, name: str, floor: str, runs: list[list[Load]], wanted: str) -> "Comparison":
        """From runs of the floor, a plain service and ours."""
        rates = [[side.rate for side in run] for run in runs]
        floors, plains, ours = (middle(list(side)) for side in zip(*rates, strict=True))
        return cls(
            name,
            f"{floor} {floors:,.0f}/s",
            f"{ours:,.0f}/s",
            [run[2] / run[0] for run in rates],
            wanted,
            f"{plains:,.0f}/s ({middle([run[1] / run[0] for run in rates]):.2f})",
        )


def pin(pid: int, core: int) -> None:
    """Keep a process and all its threads on one core."""
    for thread in psutil.Process(pid).threads():
        os.sched_setaffinity(thread.id, {core})


def in_turn(*sides: Callable[[], Load]) -> list[list[Load]]:
    """Run the sides in turn."""
    return [[side() for side in sides] for _ in range(ROUNDS)]


def by_callers(call: Callable[[], object]) -> Callable[[], Load]:
    """Load by all callers."""
    return partial(drive, call, callers=CALLERS, seconds=SECONDS)


def on_servers_core(call: Callable[[], object]) -> Callable[[], Load]:
    """Load by this process, moved to the server's core: it does what our server does."""

    def run() -> Load:
        os.sched_setaffinity(0, {SERVER_CORE})
        try:
            return drive(call, callers=1, seconds=SECONDS)
        finally:
            os.sched_setaffinity(0, {CLIENT_CORE})

    return run


def middle(values: list[float]) -> float:
    return statistics.median(values)


@contextmanager
def server(kind: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """A server of bench/servers.py on the server's core: its address and process id."""
    port = free_port()
    command = [sys.executable, "bench/servers.py", kind, str(port), *arguments]
    process = ManagedProcess(kind, command, HOME / f"{kind}.log")
    process.start()
    address = f"127.0.0.1:{port}"
    try:
        process.wait_until(lambda: _connects(address))
        pin(process.pid, SERVER_CORE)
        yield address, process.pid
    finally:
        process.stop()


def _connects(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(0.2)
        except grpc.FutureTimeoutError:
            return False
    return True


def raw_call(channel: grpc.Channel, method: str, request: Any) -> Callable[[], bytes]:
    """A call of bytes, so that the client's own work is small."""
    call: Callable[..., bytes] = channel.unary_unary(method)
    payload = request.SerializeToString()
    return lambda: call(payload, timeout=10)


def empty_rpc() -> list[Comparison]:
    """Our empty RPC against a bare handler of the same server style, in CPU a call."""
    receiver = OtlpReceiver(HOME / "bench-traces.jsonl")
    request = f.GetFeatureViewRequest(name="x")
    method = "/madang.feature.v1.FeatureStoreService/GetFeatureView"
    found = []
    for ratio in ("0.1", "1.0"):
        with (
            server("bare") as (bare, bare_pid),
            server("madang", receiver.address, ratio) as (
                ours,
                ours_pid,
            ),
            grpc.insecure_channel(bare) as a,
            grpc.insecure_channel(ours) as b,
        ):
            sides = [
                partial(
                    drive,
                    raw_call(channel, method, request),
                    callers=CALLERS,
                    seconds=SECONDS,
                    server_pid=pid,
                )
                for channel, pid in ((a, bare_pid), (b, ours_pid))
            ]
            runs = in_turn(*sides)
        floor, cost = ([r[i].server_cpu * 1e6 for r in runs] for i in (0, 1))
        rates = [middle([r[i].rate for r in runs]) for i in (0, 1)]
        found.append(
            Comparison(
                f"empty RPC, everything on, {float(ratio):.0%} of traces kept",
                f"bare handler {middle(floor):.0f} µs CPU ({rates[0]:,.0f}/s)",
                f"{middle(cost):.0f} µs CPU ({rates[1]:,.0f}/s)",
                [o / b for b, o in zip(floor, cost, strict=True)],
                "≤ 1.5",
            )
        )
    receiver.stop()
    return found


def lookup(mesh: LocalMesh) -> Comparison:
    """LookupFeatures 200 × 20 against a packed MGET of the same rows by redis-py."""
    ids = [f"entity-{i:06d}" for i in range(200)]
    with grpc.insecure_channel(mesh.info.services["featurestore"]) as channel:
        store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
        names = [f"f{i:02d}" for i in range(20)]
        features = [f.Feature(name=n, dtype=tensor_pb2.D_TYPE_FLOAT32) for n in names]
        view = f.FeatureView(name="bench", entity="thing", features=features)
        store.ApplyFeatureView(f.ApplyFeatureViewRequest(view=view))
        values = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
        blocks = [block(names, values)]
        store.WriteFeatures(f.WriteFeaturesRequest(view="bench", entity_ids=ids, blocks=blocks))
        request = f.LookupFeaturesRequest(lookups=[f.ViewLookup(view="bench", entity_ids=ids)])
        call = raw_call(channel, "/madang.feature.v1.FeatureStoreService/LookupFeatures", request)
        host, _, port = mesh.info.store.partition(":")
        client = redis.Redis(host, int(port))
        keys = [f"f:bench:{i}" for i in ids]
        pids = mesh.processes()
        pin(pids["store"], CLIENT_CORE)
        pin(pids["featurestore"], SERVER_CORE)

        names_file = HOME / "keys.txt"
        names_file.write_text("\n".join(keys))
        with (
            server("mget", mesh.info.store, str(names_file)) as (plain, _),
            grpc.insecure_channel(plain) as beside,
        ):
            runs = in_turn(
                on_servers_core(lambda: client.mget(keys)),
                by_callers(raw_call(beside, "/plain/Answer", request)),
                by_callers(call),
            )
    return Comparison.of_rates("LookupFeatures 200 × 20", "redis-py MGET", runs, "≥ 0.6")


def rank_requests(
    mesh: LocalMesh, features: list[FeatureRef]
) -> tuple[ranker_pb2.RankRequest, ranker_pb2.RankRequest, Tensors]:
    """Rank of 500 items by ids, the same with their rows given, and what the model gets for it."""
    rng = np.random.default_rng(0)
    ids = [f"s{i:05d}" for i in rng.permutation(1800)[:500]]
    user, item = (ViewInputs(v, features) for v in ("user_profile", "item_profile"))
    with grpc.insecure_channel(mesh.info.gateway) as gateway:
        store = feature_store_pb2_grpc.FeatureStoreServiceStub(gateway)
        answer = store.LookupFeatures(
            f.LookupFeaturesRequest(lookups=[user.lookup(["u00012"]), item.lookup(ids)])
        )
    context = InputRows(np.array([[20, 2, 77]]), np.array([[37.5, 127.07]], np.float32))
    score = ScoreRequest(user.pack(answer.rows[0], 1), context, item.pack(answer.rows[1], 500))
    tensors = batch_tensors([score], [500])
    for rows, view in zip(answer.rows, (user.view, item.view), strict=True):
        for b in rows.blocks:
            b.features[:] = [f"{view}.{name}" for name in b.features]
    by_id = ranker_pb2.RankRequest(
        user_id="u00012", place=PLACE, request_time=EVENING, item_ids=ids
    )
    with_rows = ranker_pb2.RankRequest(
        user_features=answer.rows[0].blocks, item_features=answer.rows[1].blocks
    )
    with_rows.MergeFrom(by_id)
    return by_id, with_rows, tensors


def rank(mesh: LocalMesh, workspace: Workspace) -> list[Comparison]:
    """Rank of 500 rows against the same ONNX session in this process, on the server's core."""
    model = workspace.registry.load(RANKER, workspace.registry.resolve(RANKER))
    session = OnnxBackend(model.files["model.onnx"])
    by_id, with_rows, tensors = rank_requests(mesh, model.manifest.features)
    pids = mesh.processes()
    for part in ("store", "featurestore", "gateway", "candidate"):
        pin(pids[part], CLIENT_CORE)
    pin(pids["ranker"], SERVER_CORE)

    (HOME / "dcn.onnx").write_bytes(model.files["model.onnx"])
    np.savez(HOME / "tensors.npz", **tensors)  # type: ignore[arg-type]
    with (
        grpc.insecure_channel(mesh.info.services["ranker"]) as channel,
        server("onnx", str(HOME / "dcn.onnx"), str(HOME / "tensors.npz")) as (plain, _),
        grpc.insecure_channel(plain) as beside,
    ):
        return [
            Comparison.of_rates(
                name,
                "ONNX session in process",
                in_turn(
                    on_servers_core(lambda: session.run(tensors)),
                    by_callers(raw_call(beside, "/plain/Answer", request)),
                    by_callers(raw_call(channel, "/madang.ranker.v1.RankerService/Rank", request)),
                ),
                "≥ 0.8",
            )
            for name, request in (
                ("Rank 500 ids, features looked up", by_id),
                ("Rank 500 rows, features given", with_rows),
            )
        ]


def recommend(mesh: LocalMesh) -> list[tuple[int, Load]]:
    """Recommend through the gateway, the whole mesh on all cores."""
    for pid in mesh.processes().values():
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, range(os.cpu_count() or 1))
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with grpc.insecure_channel(mesh.info.gateway) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        users = iter(int(u) for u in np.random.default_rng(0).integers(0, 6000, 10**6))

        def call() -> None:
            user = f"u{next(users):05d}"
            request = ranker_pb2.RecommendRequest(
                user_id=user, place=PLACE, request_time=EVENING, page_size=20
            )
            answer = stub.Recommend(request, timeout=10)
            assert not answer.serving_info.degraded

        return [(callers, drive(call, callers=callers, seconds=8)) for callers in (1, 4)]


def start_ups(mesh: LocalMesh, started: dict[str, float]) -> Table:
    """Memory and time to ready of each process."""
    table = Table("process", "ready after s", "memory MB", title="Processes")
    for part, pid in mesh.processes().items():
        memory = psutil.Process(pid).memory_info().rss / 2**20
        table.add_row(part, f"{started.get(part, 0):.1f}", f"{memory:.0f}")
    return table


def cold_start(mesh: LocalMesh, part: str) -> float:
    """Seconds from starting a service alone to SERVING."""
    mesh.kill(part)
    begun = time.perf_counter()
    mesh.start(part)
    assert wait_for(lambda: healthy(mesh.info.services[part]), 30)
    return time.perf_counter() - begun


def prepared() -> Workspace:
    """The workspace of the benches, trained once."""
    HOME.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(HOME)
    if not workspace.source():
        with steps(console) as report:
            data = load(DataSource(), lambda share: report("data", share))
            workspace.train(DataSource(), data, Recipe(), report)
    return workspace


def main() -> None:
    """Measure and print."""
    workspace = prepared()
    os.sched_setaffinity(0, {CLIENT_CORE})
    comparisons = empty_rpc()
    with LocalMesh(HOME, "bench", sampling_ratio=SAMPLING) as mesh:
        publish(workspace.features, mesh.info.gateway)
        mesh.wait_serving()
        wait_for(lambda: refreshed(mesh.info.metrics)[1] > 0, 120)  # else it takes a core
        comparisons += [lookup(mesh), *rank(mesh, workspace)]
        loads = recommend(mesh)
        started = {s: cold_start(mesh, s) for s in mesh.info.services}
        processes = start_ups(mesh, started)
    table = Table(title=f"The floor: medians of {ROUNDS} rounds in turn, {SECONDS:.0f} s a side")
    for column in ("what", "floor", "plain service", "ours", "ours / floor (spread)", "wanted"):
        table.add_column(column)
    for c in comparisons:
        spread = f"{middle(c.ratios):.2f} ({min(c.ratios):.2f}–{max(c.ratios):.2f})"
        table.add_row(c.name, c.floor, c.plain, c.ours, spread, c.wanted)
    console.print(table)
    for callers, measured in loads:
        console.print(
            f"Recommend, {callers} caller(s), 300 candidates: {measured.rate:.0f}/s, "
            f"p50 {measured.quantile(0.5):.1f} ms, p99 {measured.quantile(0.99):.1f} ms"
        )
    console.print(processes)
    console.print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"grpcio {grpc.__version__}"
    )


if __name__ == "__main__":
    main()
