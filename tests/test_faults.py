"""Under a steady loop of Recommend, parts die and come back; models change while they serve."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import redis
from calls import Clients, degraded, recommend, refused

from madang.candidate.v1 import candidate_pb2 as c
from madang.feature.v1 import feature_store_pb2 as f
from madang_cli.mesh.mesh import LocalMesh, healthy, wait_for
from madang_cli.mesh.processes import ManagedProcess, ProcessFailedError, free_port
from madang_pipelines.training import RANKER, TOWER
from madang_runtime.models.manifest import FeatureRef
from madang_runtime.models.registry import ModelRegistry


class Loop:
    """Calls Recommend without pause and notes every answer."""

    def __init__(self, clients) -> None:
        self._clients = clients
        self._stop = threading.Event()
        self.errors: list[str] = []
        self.seen: Counter[frozenset[str]] = Counter()
        self.versions: set[str] = set()
        self.last: frozenset[str] = frozenset({"nothing yet"})
        self.shortest = 99
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._clients.ranker.Recommend(recommend(page_size=10), timeout=3)
            except Exception as error:
                self.errors.append(str(error))
                continue
            self.last = frozenset(degraded(answer))
            self.seen[self.last] += 1
            self.shortest = min(self.shortest, len(answer.items))
            self.versions.add(answer.serving_info.models[0].version)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def until(self, *components: str) -> bool:
        """Wait for an answer in which exactly these are degraded."""
        return wait_for(lambda: self.last == frozenset(components), 20)


def test_answers_degrade_by_name_and_recover_by_themselves(own_mesh, own_clients):
    with Loop(own_clients) as loop:
        assert loop.until()
        own_mesh.kill("candidate")
        assert loop.until("candidate"), loop.last
        own_mesh.start("candidate")
        assert loop.until(), loop.last

        own_mesh.kill("store")
        assert loop.until("featurestore"), loop.last
        own_mesh.start("store")
        assert loop.until(), loop.last

        own_mesh.kill("candidate")
        own_mesh.kill("store")
        assert loop.until("candidate", "featurestore"), loop.last
        own_mesh.start("store")
        own_mesh.start("candidate")
        assert loop.until(), loop.last

        own_mesh.kill("featurestore")
        assert loop.until("featurestore"), loop.last
        own_mesh.start("featurestore")
        assert loop.until(), loop.last
    assert not loop.errors
    assert loop.shortest == 10, "a full page at all times"


def test_quality_is_shed_before_calls_are_refused(own_mesh, own_clients):
    """Forty callers at eight threads: pages stay full, of fewer candidates."""
    shed, stop = threading.Event(), time.monotonic() + 20
    sizes, refusals = set(), set()

    def call(_):
        with grpc.insecure_channel(own_mesh.info.gateway) as channel:
            ranker = Clients(channel).ranker
            while not shed.is_set() and time.monotonic() < stop:
                try:
                    answer = ranker.Recommend(recommend(page_size=10), timeout=5)
                except grpc.RpcError as error:
                    refusals.add(error.code())
                    time.sleep(0.2)
                else:
                    sizes.add(len(answer.items))
                    if "ranker" in degraded(answer):
                        shed.set()

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(call, range(40)))
    assert shed.is_set()
    assert sizes == {10}
    assert refusals <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert degraded(own_clients.ranker.Recommend(recommend(), timeout=5)) == set()


def test_what_was_written_survives_the_store(own_mesh, own_clients):
    clicks = [
        {"event_id": f"e{n}", "user_id": "u", "type": 2, "item_id": "s00001"} for n in range(3)
    ]
    own_clients.features.RecordActions(f.RecordActionsRequest(actions=clicks), timeout=5)
    time.sleep(1.2)  # the append-only file is synced every second
    own_mesh.kill("store")
    own_mesh.start("store")
    own_mesh.wait_ready("store")
    lookup = f.LookupFeaturesRequest(
        lookups=[{"view": "item_profile", "entity_ids": ["s00001"]}],
        recent_actions={"user_ids": ["u"], "limit": 9},
    )
    answer = own_clients.features.LookupFeatures(lookup, timeout=5)
    assert set(answer.rows[0].blocks[0].statuses) <= {1, 2}
    assert len(answer.recent_actions[0].actions) == 3
    again = own_clients.features.RecordActions(f.RecordActionsRequest(actions=clicks), timeout=5)
    assert (again.recorded, again.duplicates) == (0, 3)


def test_errors_that_are_bugs_are_not_degraded(own_mesh, own_clients):
    """A view that lost its definition is no outage: the caller must hear of it."""
    host, _, port = own_mesh.info.store.partition(":")
    store = redis.Redis(host, int(port))
    store.delete("fs:views")
    store.incr("fs:epoch")
    assert refused(own_clients.ranker.Recommend, recommend()) == (
        "NOT_FOUND FEATURE_VIEW_NOT_FOUND"
    )


@pytest.fixture
def registry(workspace):
    """The registry; its aliases are as before when the test ends."""
    registry: ModelRegistry = workspace.registry
    before = {name: registry.resolve(name) for name in (RANKER, TOWER)}
    yield registry
    for name, version in before.items():
        registry.set_alias(name, "champion", version)


def copy(registry, name, **changes):
    """Register the champion again as a new version."""
    model = registry.load(name, registry.resolve(name))
    given = {"features": model.manifest.features, "parameters": model.manifest.parameters}
    return registry.register(name, changes.pop("files", model.files), **{**given, **changes})


def test_a_new_champion_is_swapped_in_without_a_failed_request(own_mesh, own_clients, registry):
    with Loop(own_clients) as loop:
        assert loop.until()
        version = copy(registry, RANKER)
        registry.set_alias(RANKER, "champion", version)
        assert wait_for(lambda: version in loop.versions)
        tower = copy(registry, TOWER)
        registry.set_alias(TOWER, "champion", tower)

        def tower_serves():
            info = own_clients.candidate.GetIndexInfo(c.GetIndexInfoRequest(), timeout=5)
            return info.model.version == tower

        assert wait_for(tower_serves)
        time.sleep(0.5)
    assert not loop.errors
    assert set(loop.seen) == {frozenset()}


def test_bad_champions_are_not_served(own_mesh, own_clients, registry, workspace):
    good = registry.resolve(RANKER)
    model = registry.load(RANKER, good)
    half = copy(registry, RANKER)
    (workspace.home / "models" / RANKER / half / "model.onnx").write_bytes(b"half")
    nonsense = copy(registry, RANKER, files={**model.files, "model.onnx": b"no onnx"})
    other = [*model.manifest.features, FeatureRef(view="user_profile", name="x", dtype="INT64")]
    mistrained = copy(registry, RANKER, features=other)
    for version in (half, nonsense, mistrained):
        registry.set_alias(RANKER, "champion", version)
        time.sleep(2.5)
        answer = own_clients.ranker.Recommend(recommend(), timeout=5)
        assert answer.serving_info.models[0].version == good


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("unknown alias", "FAILED_PRECONDITION MODEL_NOT_FOUND"),
        ("mistrained", "FAILED_PRECONDITION FEATURE_FINGERPRINT_MISMATCH"),
        ("half-written", "FAILED_PRECONDITION MODEL_CORRUPT"),
    ],
)
def test_a_service_without_a_good_model_says_why(own_mesh, registry, workspace, tmp_path, bad, why):
    version = registry.resolve(RANKER)
    settings = {"model_alias": "bad"}
    if bad == "mistrained":
        features = [FeatureRef(view="user_profile", name="user_code", dtype="FLOAT32")]
        version = copy(registry, RANKER, features=features)
    if bad == "half-written":
        version = copy(registry, RANKER)
        (workspace.home / "models" / RANKER / version / "fallback.npz").unlink()
    if bad != "unknown alias":
        registry.set_alias(RANKER, "bad", version)
    address = f"127.0.0.1:{free_port()}"
    command, environment = own_mesh.service_command("ranker", address, **settings)
    process = ManagedProcess("ranker", command, tmp_path / "log", environment)
    process.start()
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(20)
            assert refused(Clients(channel).ranker.Recommend, recommend()) == why
            assert not healthy(address)
    finally:
        process.stop()
        alias = workspace.home / "models" / RANKER / "aliases" / "bad"
        alias.unlink(missing_ok=True)


def test_a_second_mesh_of_the_same_name_is_refused(workspace, mesh):
    with (
        pytest.raises(ProcessFailedError, match="already runs"),
        LocalMesh(workspace.home, "shared"),
    ):
        pass
    assert (workspace.home / "mesh" / "shared" / "mesh.json").exists()
