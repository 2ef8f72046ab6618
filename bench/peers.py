"""`make bench-peers`: what others would run, beside us, in one run.

Feast over the same Valkey, MLServer and Ray Serve with the same DCN, a sentence-transformers
endpoint and Milvus Lite with the same encoder. Servers are on one core and callers on another; the
sides of a comparison take turns. Each peer has an environment of its own, made in `run/peers` on
the first run.
"""

import contextlib
import http.client
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
import psutil
from floor import CLIENT_CORE, HOME, SERVER_CORE, pin, prepared, rank_requests, raw_call
from load import Load, drive
from rich.console import Console
from rich.progress import track
from rich.table import Table
from search import documents, english, fill
from search_peers import compared, minilm

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2 as f
from madang.feature.v1 import feature_store_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh, listens, wait_for
from madang_cli.mesh.processes import ManagedProcess, free_ports
from madang_pipelines.publish import publish
from madang_pipelines.training import RANKER
from madang_runtime.columns import block
from madang_runtime.models.registry import ModelFiles

ROUNDS, SECONDS, CALLERS = 5, 3.0, 4
PEERS = Path("run/peers")
SIDES = Path(__file__).parent / "peer_sides"
console = Console()
Call = Callable[[], object]


def python_of(peer: str) -> str:
    """The interpreter of a peer's environment, which is made if it is not there."""
    folder, wanted = PEERS / peer, SIDES / f"requirements-{peer}.txt"
    python, done = folder / "bin" / "python", folder / wanted.name
    if not done.exists() or done.read_text() != wanted.read_text():
        console.print(f"installing {peer} into {folder} …")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(wanted)], check=True)
        done.write_text(wanted.read_text())
    return str(python)


@contextlib.contextmanager
def side(peer: str, *arguments: str, kind: str = "") -> Iterator[tuple[int, bytes]]:
    """A peer's server with all its processes on the servers' core: its port, and a request."""
    folder = PEERS / f"{peer}{kind}-run"
    folder.mkdir(parents=True, exist_ok=True)
    port = free_ports(3)[0]
    command = [python_of(peer), str(SIDES / f"{peer}_side.py"), *([kind] if kind else [])]
    command += [str(port), *arguments, str(folder.resolve())]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SIDES)}
    server = ManagedProcess(peer, command, folder / "log", environment)
    server.start()
    try:
        server.wait_until(lambda: listens(f"127.0.0.1:{port}"), 120)
        request = folder / "request.bin"
        server.wait_until(request.exists, 30)
        yield port, request.read_bytes()
    finally:
        server.stop()


def pin_all(pid: int) -> None:
    """A process and all that it started, on the servers' core."""
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            pin(one.pid, SERVER_CORE)


def posted(port: int, path: str, body: bytes) -> Call:
    """A call over HTTP, on a connection that each thread keeps."""
    local = threading.local()

    def call() -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        local.connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = local.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {content[:200]!r}")

    return call


def taken_in_turn(sides: Mapping[str, Call], what: str) -> Table:
    """The rate and latencies of each side, and its rate beside ours in each round."""
    runs: dict[str, list[Load]] = {name: [] for name in sides}
    for _ in track(range(ROUNDS), what):
        for name, call in sides.items():
            runs[name].append(drive(call, callers=CALLERS, seconds=SECONDS))
    ours = next(iter(runs.values()))
    table = Table(what, "a second", "p50 ms", "p99 ms", "ours is faster by")
    for name, loads in runs.items():
        ratios = [own.rate / other.rate for own, other in zip(ours, loads, strict=True)]
        table.add_row(
            name,
            f"{statistics.median(load.rate for load in loads):,.0f}",
            f"{statistics.median(load.quantile(0.5) for load in loads):.1f}",
            f"{statistics.median(load.quantile(0.99) for load in loads):.1f}",
            ""
            if loads is ours
            else f"{statistics.median(ratios):.3g} ({min(ratios):.3g}–{max(ratios):.3g})",
        )
    return table


def features(mesh: LocalMesh) -> Table:
    """200 entities × 20 features."""
    ids = [f"entity-{i:06d}" for i in range(200)]
    names = [f"f{i:02d}" for i in range(20)]
    values = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    request = f.LookupFeaturesRequest(lookups=[f.ViewLookup(view="bench", entity_ids=ids)])
    method = "/madang.feature.v1.FeatureStoreService/LookupFeatures"
    with contextlib.ExitStack() as stack:
        address = mesh.info.services["featurestore"]
        channel = stack.enter_context(grpc.insecure_channel(address))
        store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
        view = f.FeatureView(
            name="bench",
            entity="thing",
            features=[f.Feature(name=n, dtype=tensor_pb2.D_TYPE_FLOAT32) for n in names],
        )
        store.ApplyFeatureView(f.ApplyFeatureViewRequest(view=view))
        written = f.WriteFeaturesRequest(
            view="bench", entity_ids=ids, blocks=[block(names, values)]
        )
        store.WriteFeatures(written)
        by_grpc, asked = stack.enter_context(side("feast", mesh.info.store, kind="grpc"))
        by_http, body = stack.enter_context(side("feast", mesh.info.store, kind="http"))
        beside = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{by_grpc}"))
        pid = mesh.processes()
        pin(pid["store"], CLIENT_CORE)
        pin(pid["featurestore"], SERVER_CORE)
        pin_children()
        feast = "/GrpcFeatureServer/GetOnlineFeatures"
        sides = {
            "svc-featurestore": raw_call(channel, method, request),
            "Feast, gRPC": raw_bytes(beside, feast, asked),
            "Feast, HTTP": posted(by_http, "/get-online-features", body),
        }
        return taken_in_turn(sides, "200 entities × 20 features")


def ranking(mesh: LocalMesh, model: ModelFiles) -> Table:
    """500 rows of the demo's DCN."""
    _, with_rows, tensors = rank_requests(mesh, model.manifest.features)
    folder = PEERS.resolve()
    (folder / "dcn.onnx").write_bytes(model.files["model.onnx"])
    np.savez(folder / "tensors.npz", **tensors)  # type: ignore[arg-type]
    files = str(folder / "dcn.onnx"), str(folder / "tensors.npz")
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(mesh.info.services["ranker"]))
        mlserver, asked = stack.enter_context(side("mlserver", *files))
        ray, packed = stack.enter_context(side("ray", *files))
        a = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{mlserver}"))
        b = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{ray}"))
        pin(mesh.processes()["ranker"], SERVER_CORE)
        wait_for((PEERS / "ray-run" / "ready").exists, 120)
        pin_children()
        sides = {
            "svc-ranker": raw_call(channel, "/madang.ranker.v1.RankerService/Rank", with_rows),
            "MLServer, gRPC": raw_bytes(a, "/inference.GRPCInferenceService/ModelInfer", asked),
            "Ray Serve, gRPC": raw_bytes(b, "/bench.Dcn/Infer", packed, (("application", "dcn"),)),
        }
        return taken_in_turn(sides, "500 rows of one DCN")


def raw_bytes(
    channel: grpc.Channel, method: str, payload: bytes, metadata: Sequence[tuple[str, str]] = ()
) -> Call:
    """A call of bytes that are given."""
    call: Callable[..., bytes] = channel.unary_unary(method)
    return lambda: call(payload, timeout=10, metadata=tuple(metadata))


def pin_children() -> None:
    """All peers that run, on the servers' core; the mesh stays where it is."""
    for child in psutil.Process().children():
        if str(SIDES) in " ".join(child.cmdline()):
            pin_all(child.pid)


def main() -> None:
    """Measure and print all, or what is named: features, ranking, search."""
    wanted = sys.argv[1:] or ["features", "ranking", "search"]
    workspace = prepared()
    registry = workspace.registry
    model = registry.load(RANKER, registry.resolve(RANKER))
    for peer in ("feast", "mlserver", "ray"):
        python_of(peer)
    pin(psutil.Process().pid, CLIENT_CORE)
    with LocalMesh(HOME, "peers", sampling_ratio=0.1, without=("search", "targeting")) as mesh:
        publish(workspace.features, mesh.info.gateway)
        mesh.wait_serving()
        for name, pid in mesh.processes().items():
            if name not in ("ranker", "featurestore"):
                pin(pid, CLIENT_CORE)
        if "features" in wanted:
            console.print(features(mesh))
        if "ranking" in wanted:
            console.print(ranking(mesh, model))
    if "search" not in wanted:
        return
    home = PEERS / "search"
    minilm(home)
    console.print(compared(home, documents(2_000), english(), fill))


if __name__ == "__main__":
    main()
