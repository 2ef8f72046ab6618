"""`make bench-eta`: one order, a page, the refresh of all lists, and what arrivals cost a feed."""

import time

import grpc
import numpy as np
from floor import HOME, console, prepared
from load import Load, drive
from rich.table import Table

from madang.common.v1 import place_pb2
from madang.eta.v1 import eta_pb2, eta_pb2_grpc
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang_cli.arrival import refreshed
from madang_cli.mesh.mesh import LocalMesh, wait_for
from madang_eta.stage_model import EtaModel
from madang_pipelines.publish import publish
from madang_runtime.models.registry import ModelRegistry

PLACE = place_pb2.Place(latitude=37.4667, longitude=126.9361)
ROUNDS, SECONDS = 3, 5.0


def totals_a_second(registry: ModelRegistry) -> tuple[float, float]:
    """Orders a second that one core makes distributions of: as they are, and as if independent."""
    model = EtaModel(registry.load("eta-standard", registry.resolve("eta-standard")))
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 1, (20_000, len(model.layout.names()))).astype(np.float32)
    found = []
    for loadings in (model.dependence.loadings, np.zeros(3)):
        model.dependence.loadings = loadings
        started = time.perf_counter()
        model.arrivals(inputs)
        found.append(len(inputs) / (time.perf_counter() - started))
    return found[0], found[1]


def measured(mesh: LocalMesh) -> dict[str, list[Load]]:
    """Each call in turn, some rounds of it."""
    with grpc.insecure_channel(mesh.info.gateway) as channel:
        eta = eta_pb2_grpc.EtaServiceStub(channel)
        ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        feed = ranker_pb2.RecommendRequest(user_id="u00020", place=PLACE)
        page = ranker.Recommend(feed)
        ids = [item.item_id for item in page.items]
        one = eta_pb2.PredictRequest(shop_id=ids[0], place=PLACE)
        listed = eta_pb2.PredictBatchRequest(shop_ids=ids, place=PLACE)
        online = eta_pb2.PredictBatchRequest(shop_ids=ids, place=PLACE, online=True)
        ads = ranker_pb2.RecommendRequest(user_id="u00020", place=PLACE, surface="quick")
        calls = {
            "Predict": lambda: eta.Predict(one),
            f"PredictBatch of {len(ids)}, from lists": lambda: eta.PredictBatch(listed),
            f"PredictBatch of {len(ids)}, computed": lambda: eta.PredictBatch(online),
            "Recommend, home (with arrivals)": lambda: ranker.Recommend(feed),
            "Recommend, quick (without)": lambda: ranker.Recommend(ads),
        }
        found: dict[str, list[Load]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                found[name].append(drive(call, callers=1, seconds=SECONDS))
    return found


def main() -> None:
    """Measure and print."""
    workspace = prepared()
    bound, free = totals_a_second(workspace.registry)
    with LocalMesh(HOME, "bench-eta", sampling_ratio=0.1) as mesh:
        publish(workspace.features, mesh.info.gateway)
        mesh.wait_serving()
        wait_for(lambda: refreshed(mesh.info.metrics)[1] > 0, 120)
        rows, seconds = refreshed(mesh.info.metrics)
        found = measured(mesh)
    table = Table("call, one caller", "p50 ms", "p99 ms", "a second", title="Arrivals")
    for name, rounds in found.items():
        p50, p99 = (np.median([r.quantile(q) for r in rounds]) for q in (0.5, 0.99))
        rate = np.median([r.rate for r in rounds])
        table.add_row(name, f"{p50:.1f}", f"{p99:.1f}", f"{rate:.0f}")
    console.print(table)
    console.print(
        f"Lists: {rows:,} pairs of shop and cell read, estimated and written in {seconds:.1f} s.\n"
        f"Distributions on one core: {bound:,.0f} orders a second with what stages have in common, "
        f"{free:,.0f} as if they were independent."
    )


if __name__ == "__main__":
    main()
