"""`make bench-search`: svc-search with 50,000 documents on a core of its own, what batching of an
encoder gains, and MiniLM served by others."""

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from floor import pin
from load import Load, drive
from rich.console import Console
from rich.progress import track
from rich.table import Table
from search_peers import compared, minilm

from madang.search.v1 import search_pb2 as pb
from madang.search.v1 import search_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh
from madang_gateway.services import SERVICES
from madang_pipelines.city.names import CATEGORIES, DISTRICTS, NAMES
from madang_pipelines.city.simulate import CitySize, simulate
from madang_pipelines.search.training import train_encoder
from madang_runtime.metrics import Metrics
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder
from madang_search.nearest import NearestSearcher

HOME = Path("run/bench-search")
DOCUMENTS = 50_000
_AT_ONCE = 250
_SECONDS = 4.0
_BOTH, _WORDS, _MEANING = (
    pb.SEARCH_METHOD_UNSPECIFIED,
    pb.SEARCH_METHOD_LEXICAL,
    pb.SEARCH_METHOD_DENSE,
)


def documents(n: int) -> list[pb.Document]:
    """Shops with menus, each a little different."""
    drawn = random.Random(0)
    made = []
    for number in range(n):
        kind, name = drawn.choice(CATEGORIES), drawn.choice(NAMES)
        menu = drawn.sample(drawn.choice(CATEGORIES).menu, 2) + drawn.sample(kind.menu, 2)
        made.append(
            pb.Document(
                document_id=f"d{number}",
                title=f"{name[0]} {kind.korean} {number}호점",
                body="\n".join([name[1], kind.english, *menu, drawn.choice(DISTRICTS)[0]]),
                category=kind.korean,
                popularity=drawn.random() ** 4 * 100,
            )
        )
    return made


def queries() -> list[str]:
    """What people of the city type."""
    return [q for kind in CATEGORIES for q in (kind.korean, *kind.asked, *kind.menu)]


def english() -> list[str]:
    """Queries for an encoder that reads no Hangul."""
    return [f"{name} {kind.english} near me" for _, name in NAMES for kind in CATEGORIES]


def fill(search: Any, made: list[pb.Document]) -> tuple[float, float]:
    """Put the documents in; how many a second, and seconds until the last is found."""
    started, token = time.perf_counter(), ""
    for at in track(range(0, len(made), _AT_ONCE), "documents"):
        request = pb.UpsertDocumentsRequest(documents=made[at : at + _AT_ONCE])
        token = search.UpsertDocuments(request, timeout=10).freshness_token
    written = time.perf_counter()
    while True:
        try:
            search.Search(pb.SearchRequest(query="?", freshness_token=token), timeout=10)
            break
        except grpc.RpcError:
            time.sleep(0.1)
    return len(made) / (written - started), time.perf_counter() - written


def served(mesh: LocalMesh) -> list[tuple[str, int, Load]]:
    """Each call with 1 and with 32 callers, through the gateway."""
    asked = random.Random(1).choices(queries(), k=4096)
    pid = mesh.processes()["search"]
    with grpc.insecure_channel(mesh.info.gateway) as channel:
        search = search_pb2_grpc.SearchServiceStub(channel)
        typed = [query[: 1 + at % 4] for at, query in enumerate(asked)]
        turn = iter(range(10**9))

        def call(rpc: Any, make: Callable[[str], Any], texts: list[str]) -> Callable[[], object]:
            requests = [make(text) for text in texts]
            return lambda: rpc(requests[next(turn) % len(requests)], timeout=10)

        def by(method: Any) -> Callable[[str], pb.SearchRequest]:
            return lambda text: pb.SearchRequest(query=text, page_size=10, method=method)

        calls = {
            "Search, both": call(search.Search, by(_BOTH), asked),
            "Search, words": call(search.Search, by(_WORDS), asked),
            "Search, meaning": call(search.Search, by(_MEANING), asked),
            "MatchIntents": call(
                search.MatchIntents, lambda text: pb.MatchIntentsRequest(query=text), asked
            ),
            "Suggest": call(search.Suggest, lambda text: pb.SuggestRequest(prefix=text), typed),
        }
        return [
            (name, callers, drive(made, callers=callers, seconds=_SECONDS, server_pid=pid))
            for name, made in calls.items()
            for callers in (1, 32)
        ]


def batching(registry: ModelRegistry, other: ModelRegistry) -> Table:
    """In process, on one core: queries a second, one by one and 32 at once."""
    drawn = random.Random(2)
    table = Table("in process, one core", "one by one", "32 at once", "gain")

    def add(what: str, alone: float, together: float) -> None:
        table.add_row(what, f"{alone:,.0f}", f"{together:,.0f}", f"{together / alone:.2f}")

    for name, held, texts in (("MiniLM", other, english()), ("ours", registry, queries())):
        asked = drawn.choices(texts, k=512)
        files = held.load(ENCODER, held.resolve(ENCODER))
        for precision in ("fp32", "int8"):
            encoder = Encoder(files, small=precision == "int8", threads=1)
            alone = rate(encoder.encode, [[text] for text in asked])
            blocks = [asked[at : at + 32] for at in range(0, len(asked), 32)]
            add(f"encode, {name}, {precision}", alone, 32 * rate(encoder.encode, blocks))
    rng = np.random.default_rng(0)
    for rows in (1_000, 50_000, 100_000):
        vectors = rng.normal(size=(rows, encoder.dimension)).astype(np.float32)
        allowed = np.ones(rows, bool)
        search = partial(
            NearestSearcher(encoder, Metrics()), matrix=vectors, allowed=allowed, k=100
        )
        add(f"encode and search {rows:,}", rate(search, asked[:256]), threaded(search, asked))
    return table


def rate(call: Callable[[Any], object], inputs: list[Any]) -> float:
    """Calls a second, one after the other."""
    call(inputs[0])
    started = time.perf_counter()
    for one in inputs:
        call(one)
    return len(inputs) / (time.perf_counter() - started)


def threaded(call: Callable[[Any], object], inputs: list[Any]) -> float:
    """Calls a second of 32 threads."""

    def run(own: list[Any]) -> None:
        for one in own:
            call(one)

    started = time.perf_counter()
    threads = [threading.Thread(target=run, args=(inputs[at::32],)) for at in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(inputs) / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    console = Console()
    registry = ModelRegistry(f"file://{HOME.resolve()}/models")
    if not registry.has_alias(ENCODER):
        console.print("training the encoder …")
        train_encoder(simulate(CitySize()).tables, registry)
    other = minilm(HOME / "minilm")
    others = [name for name in SERVICES if name not in ("featurestore", "search")]
    with LocalMesh(HOME, "bench-search", without=others) as mesh:
        mesh.wait_ready("search")
        pid = mesh.processes()["search"]
        with grpc.insecure_channel(mesh.info.gateway) as channel:
            search = search_pb2_grpc.SearchServiceStub(channel)
            written, behind = fill(search, documents(DOCUMENTS))
            time.sleep(10)  # the lexicon
        pin(pid, 0)
        pin(mesh.processes()["gateway"], 1)
        pin(psutil.Process().pid, 1)
        table = Table(
            f"{DOCUMENTS:,} documents", "callers", "a second", "shed", "p50 ms", "p99 ms", "CPU ms"
        )
        for name, callers, load in served(mesh):
            table.add_row(
                name,
                str(callers),
                f"{load.rate:,.0f}",
                f"{load.shed:,}",
                f"{load.quantile(0.5):.1f}",
                f"{load.quantile(0.99):.1f}",
                f"{load.server_cpu * 1000:.2f}",
            )
        memory = psutil.Process(pid).memory_info().rss / 2**20
    console.print(
        f"UpsertDocuments: {written:,.0f} documents a second, the last found {behind:.1f} s after "
        f"it was written; {memory:,.0f} MB."
    )
    console.print(table)
    console.print(batching(registry, other))
    console.print(compared(HOME / "minilm", documents(2_000), english(), fill))


if __name__ == "__main__":
    main()
