"""`make bench-targeting`: a segment of ten million users, from the call to the last member, through
the gateway; sets of segments combined; messages recorded within caps."""

import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1 import targeting_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_targeting.audience import AUDIENCE, USERS
from madang_targeting.lookalike import train_response
from madang_targeting.members import Members
from madang_targeting.model import NAME, OUTCOMES, Layout, Simulator, pack
from madang_targeting.trees import TreeTraining

PEOPLE, SEGMENTS, WANTED = 10_000_000, 100, 300_000
RECIPIENTS, SENT_AT_ONCE = 60_000, 5000
LAYOUT = Layout(
    about=[f"f{i}" for i in range(16)], by_group=["likes"], groups=list("abcd"), channels=["push"]
)


def people(rng: np.random.Generator, n: int) -> pl.DataFrame:
    """Users whose columns are drawn by chance."""
    columns = LAYOUT.columns()
    return pl.DataFrame(rng.normal(size=(n, len(columns))).astype(np.float32), schema=columns)


def make_audience(path: Path, rng: np.random.Generator, progress: Progress) -> None:
    """Write users as Parquet, a million at a time."""
    task = progress.add_task("users", total=PEOPLE)
    folder = path.with_suffix("")
    folder.mkdir()
    for part in range(PEOPLE // 1_000_000):
        ids = pl.Series("user_id", [f"u{part:02}{i:06}" for i in range(1_000_000)])
        people(rng, 1_000_000).with_columns(ids).write_parquet(folder / f"{part:02}.parquet")
        progress.advance(task, 1_000_000)
    pl.scan_parquet(folder / "*.parquet").sink_parquet(path)


def register(registry: ModelRegistry, users: Path, rng: np.random.Generator) -> int:
    """A model that was trained on one campaign; returns the number of its trees."""
    sent = people(rng, RECIPIENTS)
    likes, first, second = (sent[c].to_numpy() for c in ("likes.a", "f0", "f1"))
    odds = {"clicked": -3 + likes + 0.5 * first, "ordered": -3.5 + likes + 0.5 * first * second}
    did = {o: rng.random(RECIPIENTS) < 1 / (1 + np.exp(-x)) for o, x in odds.items()}
    inputs = sent.select(LAYOUT.of_group("a")).to_numpy()
    models = {o: train_response(inputs, did[o], TreeTraining(threads=2)) for o in OUTCOMES.values()}
    recipients = sent.select(pl.lit("before").alias("campaign_id"), pl.all()).with_columns(
        pl.Series(o, did[o]) for o in OUTCOMES.values()
    )
    files, parameters = pack(
        LAYOUT,
        {"push": {o: Simulator(m.trees, m.calibration) for o, m in models.items()}},
        dict.fromkeys(OUTCOMES.values(), 0.2),
        pl.DataFrame({"campaign_id": "before", "group": "a", "channel": "push"}).to_arrow(),
        recipients.to_arrow(),
    )
    version = registry.register(AUDIENCE, {USERS: users})
    made = registry.register(NAME, files, parameters=parameters | {"audience": version})
    registry.set_alias(NAME, CHAMPION, made)
    return sum(m.trees.num_trees() for m in models.values())


class Memory:
    """The most memory that a process holds while the block runs, in MB."""

    def __init__(self, pid: int) -> None:
        self._process, self._stop = psutil.Process(pid), threading.Event()
        self.before = self.peak = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _now(self) -> int:
        return int(self._process.memory_info().rss >> 20)

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.peak = max(self.peak, self._now())

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def make_segment(
    stub: targeting_pb2_grpc.TargetingServiceStub, name: str, progress: Progress
) -> pb.Segment:
    """Ask for a segment and wait until it is made."""
    spec = pb.SegmentSpec(
        reference_campaign_ids=["before"],
        channel="push",
        goal=pb.OUTCOME_CLICK,
        size=WANTED,
        held_out_share=0.1,
    )
    stub.CreateSegment(pb.CreateSegmentRequest(segment_id=name, spec=spec), timeout=5)
    task = progress.add_task("segment", total=1.0)
    while True:
        found = stub.GetSegment(pb.GetSegmentRequest(segment_id=name), timeout=5).segment
        if found.operation.HasField("end_time"):
            progress.update(task, completed=1.0)
            return found
        progress.update(task, description=found.operation.stage or "segment")
        progress.update(task, completed=found.operation.progress)
        time.sleep(0.5)


def listed(stub: targeting_pb2_grpc.TargetingServiceStub, name: str) -> list[str]:
    """All members."""
    stream = stub.ListMembers(pb.ListMembersRequest(segment_id=name), timeout=120)
    return [user for message in stream for user in message.user_ids]


def record(stub: targeting_pb2_grpc.TargetingServiceStub, users: list[str], senders: int) -> float:
    """Messages to users, recorded by several senders at once; users a second."""
    parts = [users[at : at + SENT_AT_ONCE] for at in range(0, len(users), SENT_AT_ONCE)]
    campaign = uuid.uuid4().hex

    def send(part: list[str]) -> None:
        request = pb.RecordSendsRequest(campaign_id=campaign, channel="push", user_ids=part)
        stub.RecordSends(request, timeout=10)

    with ThreadPoolExecutor(senders) as pool:
        return len(users) / seconds(lambda: list(pool.map(send, parts)))


def sets(rng: np.random.Generator, table: Table) -> None:
    """Segments combined."""
    draws = [rng.integers(0, PEOPLE, int(rng.uniform(1e4, 1e6))) for _ in range(SEGMENTS)]
    segments = [Members.of_rows(rows) for rows in draws]

    def milliseconds(work: Callable[[], object]) -> str:
        return f"{1000 * float(np.median([seconds(work) for _ in range(5)])):.1f} ms"

    table.add_row(
        f"any of {SEGMENTS} segments, {sum(map(len, segments)):,} members",
        milliseconds(lambda: Members.any_of(segments)),
    )
    table.add_row(f"all of {SEGMENTS}", milliseconds(lambda: Members.all_of(segments)))
    table.add_row(
        "one without the other 99", milliseconds(lambda: segments[0].without(segments[1:]))
    )


def main() -> None:
    """Measure and print."""
    rng, console = np.random.default_rng(0), Console()
    os.environ["MADANG_TARGETING_WORK_THREADS"] = "2"
    table = Table("what", "measured", title=f"{PEOPLE:,} users, {len(LAYOUT.columns())} columns")
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        users = Path(folder) / "users.parquet"
        make_audience(users, rng, progress)
        trees = register(ModelRegistry(f"file://{folder}/models"), users, rng)
        with LocalMesh(Path(folder), "bench", sampling_ratio=0.1) as mesh:
            mesh.wait_ready("targeting")
            pid = mesh.processes()["targeting"]
            with grpc.insecure_channel(mesh.info.gateway) as channel:
                stub = targeting_pb2_grpc.TargetingServiceStub(channel)
                with Memory(pid) as memory:
                    segment = make_segment(stub, "all", progress)
                operation, result = segment.operation, segment.result
                took = operation.end_time.ToMilliseconds() - operation.create_time.ToMilliseconds()
                table.add_row(
                    f"a segment of {result.size:,}: learned from {result.learned_from:,}, all "
                    f"scored by a look-alike model and {trees} trees of preference groups",
                    f"{took / 1000:.0f} s",
                )
                table.add_row(
                    "memory of the service, before and at its peak",
                    f"{memory.before}, {memory.peak} MB",
                )
                table.add_row(
                    "expected clicks of its members, of everybody",
                    f"{result.expected.click_rate.expected:.3f}, "
                    f"{result.everybody.click_rate.expected:.3f}",
                )
                told = result.main_size
                rates = [told / seconds(lambda: listed(stub, "all")) for _ in range(5)]
                table.add_row(
                    "members streamed through the gateway (median of 5)",
                    f"{np.median(rates):,.0f} ids/s",
                )
                members = listed(stub, "all")[:100_000]
                for senders in (1, 8):
                    table.add_row(
                        f"messages recorded, {SENT_AT_ONCE:,} a call, {senders} at once",
                        f"{record(stub, members, senders):,.0f} users/s",
                    )
    sets(rng, table)
    console.print(table)


if __name__ == "__main__":
    main()
