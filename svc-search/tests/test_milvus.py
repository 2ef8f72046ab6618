"""What keeps Milvus at the state of the documents' log."""

import threading
import time
import uuid

import h3
import numpy as np
import pytest

from madang.common.v1 import place_pb2
from madang.search.v1 import document_record_pb2
from madang.search.v1 import search_pb2 as pb
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.errors import MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.text import ENCODER
from madang_search.documents import unit
from madang_search.milvus.collection import collection_name
from madang_search.milvus.connecting import MilvusConnection
from madang_search.milvus.feeder import Feeder, feed_until
from madang_search.milvus.feeding import CollectionFeed
from madang_search.milvus.places import cells_of, cover
from madang_search.milvus.progress import FedLog, FeedProgress
from madang_search.records import RecordReader
from madang_search.settings import FeederSettings


class Store:
    """A log of documents, one of progress, and a feed between them that can be begun anew."""

    def __init__(self, analyzer, encoder, milvus):
        self.log, self.table = MemoryCompactedLog(), MemoryCompactedLog()
        self.progress = FeedProgress(self.table, Metrics())
        self.analyzer, self.encoder, self.milvus = analyzer, encoder, milvus
        self.collection = milvus.collection(f"fed_{uuid.uuid4().hex}", "Strong")
        self.fed = FedLog(self.progress, self.collection.name)

    def feed(self):
        self.progress.renew()
        before = self.progress.of(self.collection.name)
        reader = RecordReader(self.analyzer)
        return CollectionFeed(self.collection, self.encoder, reader, self.log, self.table, before)

    def put(self, *ids):
        return self.log.write(
            {
                one: document_record_pb2.DocumentRecord(
                    document=pb.Document(document_id=one, title=f"치킨 {one}")
                ).SerializeToString()
                for one in ids
            }
        )

    def there(self):
        return self.collection.count()


@pytest.fixture
def store(analyzer, encoder, milvus):
    made = Store(analyzer, encoder, milvus)
    yield made
    made.collection.drop()


def test_a_feed_goes_on_where_another_ended(store):
    store.put(*(f"d{i}" for i in range(700)))
    first = store.feed()
    assert first.step(), "there are more"
    assert 0 < store.there() < 700
    second = store.feed()  # the first one was killed
    assert not second.step()
    assert store.there() == 700
    store.log.write({"d1": None, "unknown": None})
    store.feed().step()
    assert store.there() == 699


def test_a_log_that_lost_writes_replaces_everything(store):
    store.put("a", "b", "c")
    store.feed().step()
    store.log = MemoryCompactedLog()
    last = store.put("b")
    again = store.feed()
    again.step()
    assert store.collection.read(["a", "b", "c"])[0] is None
    assert store.there() == 1
    store.progress.renew()
    record = store.progress.of(store.collection.name)
    assert (record.position, record.swept) == (last, True)


def test_a_collection_that_is_gone_is_filled_anew(store):
    store.put("a", "b")
    feed = store.feed()
    feed.step()
    store.collection.drop()
    store.put("c")
    with pytest.raises(MadangError):
        feed.step()
    feed.step()
    assert store.there() == 3


def test_a_reader_waits_for_what_it_asked_for(store):
    feed = store.feed()
    feed.step()
    position = store.put("a")
    late = threading.Timer(0.3, feed.step)
    late.start()
    store.fed.reach(position)
    assert store.fed.position == position
    assert store.fed.age < 5
    assert store.collection.read(["a"])[0].title == "치킨 a"
    late.join()
    with pytest.raises(MadangError) as refused:
        store.fed.reach(position + 1)
    assert refused.value.reason == reason.ERROR_REASON_NOT_FRESH_YET


def test_documents_come_back_as_they_were_put_in(store):
    whole = pb.Document(
        document_id='it\'s "one" \\ 가',
        title="골목 치킨",
        body="후라이드\n" + "치즈볼 " * 2000,
        category="치킨",
        place={"latitude": 37.5, "longitude": 127.0},
        delivery_radius_km=3.5,
        open_hours=0xABCDEF,
        popularity=1e12,
    )
    bare = pb.Document(document_id="bare", title="x")
    records = {
        d.document_id: document_record_pb2.DocumentRecord(document=d).SerializeToString()
        for d in (whole, bare)
    }
    store.log.write(records)
    store.feed().step()
    assert store.collection.read([whole.document_id, "none", "bare"]) == [whole, None, bare]
    assert store.collection.read([]) == []


def test_each_version_that_is_named_has_a_collection(workspace, analyzer, milvus, tmp_path):
    """A version that an alias names is fed; one that none names any more is dropped."""
    registry = ModelRegistry(f"file://{tmp_path}/models")
    trained = workspace.registry
    files = trained.load(ENCODER, trained.resolve(ENCODER))
    parameters = files.manifest.parameters
    first, second = (
        registry.register(ENCODER, files.files, parameters=parameters) for _ in range(2)
    )
    registry.set_alias(ENCODER, "champion", first)
    settings = FeederSettings(aliases=["champion", "canary"], keep_seconds=0.5)
    log, table = MemoryCompactedLog(), MemoryCompactedLog()
    progress = FeedProgress(table, Metrics())
    feeder = Feeder(settings, registry, analyzer, milvus, log, table, progress)
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(target=feed_until, args=(stop, feeder, 0.1, ready.set))
    thread.start()

    def fed(version):
        progress.renew()
        return progress.of(collection_name(version, analyzer.version)).HasField("seen_time")

    def until(met):
        for _ in range(200):
            if met():
                return True
            time.sleep(0.05)
        return False

    try:
        assert ready.wait(20)
        assert fed(first)
        assert not fed(second)
        registry.set_alias(ENCODER, "canary", second)
        assert until(lambda: fed(second))
        registry.set_alias(ENCODER, "champion", second)
        assert until(lambda: not fed(first))
        assert fed(second)
    finally:
        stop.set()
        thread.join()
        milvus.collection(collection_name(second, analyzer.version)).drop()


def test_a_server_that_is_away_is_told():
    away = MilvusConnection(
        FeederSettings(milvus_url="http://127.0.0.1:9", milvus_timeout_seconds=0.5)
    )
    with pytest.raises(MadangError) as refused:
        away.collection("x")
    assert refused.value.reason == reason.ERROR_REASON_STORE_UNAVAILABLE
    away.close()


def test_cells_cover_every_disc():
    rng = np.random.default_rng(0)
    for radius in (0.05, 0.5, 2.0, 5.0, 12.0, 30.0):
        for _ in range(60):
            latitude = float(np.degrees(np.arcsin(rng.uniform(-1, 1))))
            longitude = float(rng.uniform(-180, 180))
            document = pb.Document(
                place={"latitude": latitude, "longitude": longitude}, delivery_radius_km=radius
            )
            cells = cover(document)
            assert len(cells) <= 64, "the collection's field takes so many"
            centre = unit(latitude, longitude)
            aside = np.cross(centre, rng.normal(size=3))
            aside /= np.linalg.norm(aside)
            angle = 0.999 * radius / 6371.0088
            x, y, z = centre * np.cos(angle) + aside * np.sin(angle)
            rim = place_pb2.Place(
                latitude=float(np.degrees(np.arcsin(z))),
                longitude=float(np.degrees(np.arctan2(y, x))),
            )
            assert {*cells} & {*cells_of(rim)}
    far = place_pb2.Place(latitude=37.5, longitude=127.0)
    near = pb.Document(place={"latitude": 36.5, "longitude": 127.0}, delivery_radius_km=30)
    assert not {*cover(near)} & {*cells_of(far)}
    assert {*cover(pb.Document())} & {*cells_of(far)}, "what goes everywhere goes there"
    assert h3.is_valid_cell(h3.int_to_str(cover(near)[0]))
