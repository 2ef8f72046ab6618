"""How fast feedback is taken and applied, and how late it is seen: `make bench-loop`.

Two callers send batches without pause while the mesh serves; then single clicks are followed until
the next feed shows them.
"""

import itertools
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from floor import EVENING, HOME, PLACE, prepared
from rich.console import Console
from rich.table import Table

from madang.feature.v1 import feature_store_pb2 as f
from madang.feature.v1 import feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh
from madang_cli.workspace import Workspace
from madang_pipelines.publish import publish
from madang_ranker.feedback import GROUP, LOG
from madang_runtime.changelog.redis import RedisChangeLog

BATCH, CALLERS, SECONDS, FOLLOWED = 100, 2, 10.0, 200
console = Console()


def clicks(user: str, items: list[str]) -> ranker_pb2.RecordFeedbackRequest:
    """One click an item."""
    return ranker_pb2.RecordFeedbackRequest(
        events=[
            ranker_pb2.FeedbackEvent(
                event_id=uuid.uuid4().hex,
                type=ranker_pb2.FEEDBACK_TYPE_CLICK,
                user_id=user,
                item_id=item,
            )
            for item in items
        ]
    )


def throughput(mesh: LocalMesh, ranker: ranker_pb2_grpc.RankerServiceStub) -> tuple[float, float]:
    """Events a second that were accepted, and that were applied until none was left."""
    log = RedisChangeLog(f"redis://{mesh.info.store}", LOG, 5.0)
    stop = threading.Event()

    def send(caller: int) -> int:
        sent = 0
        for n in itertools.count():
            if stop.is_set():
                return sent
            users = f"load-{caller}-{n}"
            sent += ranker.RecordFeedback(
                clicks(users, [f"s{i:05d}" for i in range(BATCH)])
            ).accepted
        raise AssertionError("the count never ends")

    with ThreadPoolExecutor(CALLERS) as pool:
        started = time.perf_counter()
        running = [pool.submit(send, caller) for caller in range(CALLERS)]
        time.sleep(SECONDS)
        stop.set()
        accepted = sum(r.result() for r in running)
        taken = time.perf_counter() - started
    while log.behind(GROUP):
        time.sleep(0.02)
    applied = time.perf_counter() - started
    log.close()
    return accepted / taken, accepted / applied


def lags(
    ranker: ranker_pb2_grpc.RankerServiceStub,
    store: feature_store_pb2_grpc.FeatureStoreServiceStub,
) -> tuple[list[float], list[float]]:
    """Milliseconds from the answer of RecordFeedback until a click is among the user's last
    actions, and until a feed has candidates because of it."""
    stored, shown = [], []
    for _ in range(FOLLOWED):
        user = uuid.uuid4().hex
        recent = f.RecentActionsLookup(user_ids=[user])
        feed = ranker_pb2.RecommendRequest(
            user_id=user, place=PLACE, request_time=EVENING, page_size=100
        )
        clicked = ranker.Recommend(feed).items[50].item_id
        ranker.RecordFeedback(clicks(user, [clicked]))
        started = time.perf_counter()
        while (
            not store.LookupFeatures(f.LookupFeaturesRequest(recent_actions=recent))
            .recent_actions[0]
            .actions
        ):
            pass
        stored.append((time.perf_counter() - started) * 1000)
        while not any(
            s.source == "reactive" for i in ranker.Recommend(feed).items for s in i.reasons
        ):
            pass
        shown.append((time.perf_counter() - started) * 1000)
    return stored, shown


def main() -> None:
    """Measure and print."""
    workspace: Workspace = prepared()
    with LocalMesh(HOME, "bench", sampling_ratio=0.1) as mesh:
        publish(workspace.features, mesh.info.gateway)
        mesh.wait_serving()
        with grpc.insecure_channel(mesh.info.gateway) as channel:
            ranker = ranker_pb2_grpc.RankerServiceStub(channel)
            store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
            idle = lags(ranker, store)
            accepted, applied = throughput(mesh, ranker)
    table = Table(
        "what", "measured", title="The loop, every event synced to disk before the answer"
    )
    table.add_row(f"accepted, {CALLERS} callers, {BATCH} a call", f"{accepted:,.0f} events/s")
    table.add_row("accepted and applied by one consumer", f"{applied:,.0f} events/s")
    for name, found in zip(("among the last actions", "in the next feed"), idle, strict=True):
        p50, p99 = np.quantile(found, [0.5, 0.99])
        table.add_row(f"click {name}, {FOLLOWED} clicks", f"p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    console.print(table)


if __name__ == "__main__":
    main()
