"""What every index of documents must do."""

import contextlib
import uuid
from copy import copy

import numpy as np
import pytest

from madang.common.v1 import place_pb2
from madang.search.v1 import document_record_pb2
from madang.search.v1 import search_pb2 as pb
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.changelog.follower import Follower
from madang_runtime.metrics import Metrics
from madang_search.documents import Columns, RowKeeper, Wanted
from madang_search.exact import ExactDocuments, ExactIndex
from madang_search.index import Found, Query, rank
from madang_search.lexical import BODY, GRAMS, TITLE
from madang_search.milvus.collection import collection_name
from madang_search.milvus.feeding import CollectionFeed
from madang_search.milvus.index import MilvusIndex
from madang_search.milvus.progress import FeedRecord
from madang_search.nearest import NearestSearcher, best
from madang_search.records import RecordReader, text_of

HERE = {"latitude": 37.5, "longitude": 127.0}
BOTH, WORDS, MEANING = (
    pb.SEARCH_METHOD_UNSPECIFIED,
    pb.SEARCH_METHOD_LEXICAL,
    pb.SEARCH_METHOD_DENSE,
)
SHOPS = [
    pb.Document(document_id="chicken", title="골목 치킨", body="후라이드\n치즈볼", category="치킨"),
    pb.Document(document_id="stew", title="할매 한식", body="김치찌개\n된장찌개", category="한식"),
    pb.Document(document_id="cafe", title="Moonlight Coffee", body="latte", category="카페"),
    pb.Document(document_id="late", title="새벽 치킨", category="치킨", open_hours=1 << 3),
    pb.Document(
        document_id="near",
        title="우리 피자",
        category="피자",
        place=HERE,
        delivery_radius_km=3,
        popularity=9,
    ),
]


class NoStages:
    """Times nothing."""

    def stage(self, name):
        return contextlib.nullcontext()


WEIGHTS = {TITLE: 1.5, BODY: 1.0, GRAMS: 0.3}


class Log:
    """A log that another one may take the place of."""

    def __init__(self):
        self.begin_anew()

    def begin_anew(self):
        self.inner = MemoryCompactedLog()

    def write(self, changes):
        return self.inner.write(changes)

    def changes(self, after, limit):
        return self.inner.changes(after, limit)


class Shelf:
    """An index, and how to change it by what the log says."""

    def __init__(self, analyzer, encoder):
        self.analyzer, self.encoder = analyzer, encoder
        self.log = Log()

    def put(self, *documents):
        vectors = self.encoder.encode([text_of(d) for d in documents])
        records = {
            d.document_id: document_record_pb2.DocumentRecord(
                document=d,
                encoder_version=self.encoder.version,
                vector=vector.astype("<f2").tobytes(),
            ).SerializeToString()
            for d, vector in zip(documents, vectors, strict=True)
        }
        self.log.write(records)
        self.follow()

    def delete(self, *ids):
        self.log.write(dict.fromkeys(ids))
        self.follow()

    def search(self, text, method=BOTH, near=0.3, index=None, depth=100, **wanted):
        terms = [term.text for term in self.analyzer.terms(text)]
        query = Query(text, terms)
        found = (index or self.index).search(query, Wanted(**wanted), method, depth, NoStages())
        ranked = rank(found, method, 0.3, near)
        return ids_of(found, ranked.order)


class ExactShelf(Shelf):
    """In memory."""

    def __init__(self, analyzer, encoder):
        super().__init__(analyzer, encoder)
        self.documents = ExactDocuments(analyzer, WEIGHTS)
        self.index = self.serving(encoder)
        self.followed = Follower(self.log, "documents", self.documents.apply, Metrics())

    def serving(self, encoder):
        self.documents.attach(encoder)
        return ExactIndex(self.documents, NearestSearcher(encoder, Metrics()), None)

    def follow(self):
        self.followed.renew()


class MilvusShelf(Shelf):
    """In a server of Milvus Lite."""

    def __init__(self, analyzer, encoder, milvus):
        super().__init__(analyzer, encoder)
        self.milvus, self.feeds, self.progress = milvus, {}, MemoryCompactedLog()
        self.index = self.serving(encoder)
        self.follow()

    def serving(self, encoder):
        name = collection_name(f"{encoder.version} {uuid.uuid4()}", self.analyzer.version)
        collection = self.milvus.collection(name, "Strong")
        self.feeds[name] = CollectionFeed(
            collection,
            encoder,
            RecordReader(self.analyzer),
            self.log,
            self.progress,
            FeedRecord(),
        )
        return MilvusIndex(collection, WEIGHTS, NearestSearcher(encoder, Metrics()), None)

    def follow(self):
        for feed in self.feeds.values():
            while feed.step():
                pass

    def close(self):
        for name in self.feeds:
            self.milvus.collection(name).drop()


def ids_of(found, at=None):
    at = np.arange(len(found.lexical)) if at is None else at
    return [document.document_id for document in found.documents(at)]


@pytest.fixture(params=["exact", "milvus"])
def empty_shelf(request, analyzer, encoder):
    if request.param == "exact":
        yield ExactShelf(analyzer, encoder)
    else:
        shelf = MilvusShelf(analyzer, encoder, request.getfixturevalue("milvus"))
        yield shelf
        shelf.close()


@pytest.fixture
def shelf(empty_shelf):
    empty_shelf.put(*SHOPS)
    return empty_shelf


def test_words_find(shelf):
    assert shelf.search("김치찌개", WORDS) == ["stew"]
    assert set(shelf.search("치킨", WORDS)) == {"chicken", "late"}
    assert shelf.search("찌개", WORDS) == ["stew"]  # by pairs of syllables
    assert shelf.search("coffees", WORDS) == ["cafe"]  # by stem
    assert shelf.search("우동", WORDS) == []
    assert shelf.search("?!", WORDS) == []


def test_meaning_finds_without_a_word(shelf):
    assert shelf.search("아메리카노 커피", MEANING)[0] == "cafe"
    assert shelf.search("kimchi jjigae", MEANING, near=-1)[0] == "stew"
    assert len(shelf.search("아메리카노", MEANING, near=-1)) == len(SHOPS)
    assert shelf.search("아메리카노", MEANING, near=0.99) == []


def test_both_put_words_and_meaning_together(shelf):
    found = shelf.search("치킨 커피", BOTH)
    assert {"chicken", "late", "cafe"} <= {*found}
    assert found[0] in ("chicken", "late")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, {"chicken", "stew", "cafe", "late", "near"}),
        ({"categories": ["치킨"]}, {"chicken", "late"}),
        ({"categories": ["치킨", "카페"]}, {"chicken", "late", "cafe"}),
        ({"categories": ["없다"]}, set()),
        ({"hour": 3}, {"chicken", "stew", "cafe", "late", "near"}),
        ({"hour": 4}, {"chicken", "stew", "cafe", "near"}),
        ({"place": place_pb2.Place(latitude=37.52, longitude=127.0)}, {"near"}),
        ({"place": place_pb2.Place(latitude=37.53, longitude=127.0)}, set()),
        ({"categories": ["치킨"], "hour": 5}, {"chicken"}),
    ],
)
def test_only_what_is_wanted_is_found(shelf, wanted, found):
    everywhere = {"chicken", "stew", "cafe", "late"} if "place" in wanted else set()
    assert {*shelf.search("치킨", MEANING, near=-1, **wanted)} == found | everywhere
    assert {*shelf.search("치킨", WORDS, **wanted)} <= found | everywhere


def test_a_narrow_filter_loses_no_match_behind_many_better_ones(shelf):
    shelf.put(
        *(pb.Document(document_id=f"c{i}", title="치킨 치킨", category="치킨") for i in range(400)),
        pb.Document(document_id="rare", title="아주 긴 이름의 어느 동네 치킨 집", category="희귀"),
    )
    assert shelf.search("치킨", WORDS, categories=["희귀"]) == ["rare"]


def test_a_document_is_replaced(shelf):
    shelf.put(pb.Document(document_id="chicken", title="골목 우동", category="일식"))
    assert shelf.search("우동", WORDS) == ["chicken"]
    assert shelf.search("치킨", WORDS) == ["late"]
    assert shelf.search("치킨", MEANING, near=-1, categories=["치킨"]) == ["late"]
    assert shelf.index.size == len(SHOPS)


def test_a_document_is_deleted(shelf):
    shelf.delete("late", "unknown")
    assert shelf.search("치킨", WORDS) == ["chicken"]
    assert "late" not in shelf.search("치킨", MEANING, near=-1)
    assert shelf.index.size == len(SHOPS) - 1
    shelf.put(SHOPS[3])
    assert {*shelf.search("치킨", WORDS)} == {"chicken", "late"}


def test_all_begin_anew(shelf):
    shelf.log.begin_anew()
    shelf.put(SHOPS[2])
    assert shelf.index.size == 1
    assert shelf.search("치킨", MEANING, near=-1) == ["cafe"]


def test_popular_ones(shelf):
    assert ids_of(shelf.index.popular(Wanted(), 2))[0] == "near"
    assert ids_of(shelf.index.popular(Wanted(hour=4, categories=["치킨"]), 9)) == ["chicken"]


def test_an_index_knows_words(shelf):
    knows = {
        word: shelf.index.knows(Query(word, [t.text for t in shelf.analyzer.terms(word)]))
        for word in ("치킨", "찌개", "coffee", "떡뽁이", "zzz", "")
    }
    assert [word for word, known in knows.items() if known] == ["치킨", "찌개", "coffee"]


def test_an_empty_index_finds_nothing(empty_shelf):
    shelf = empty_shelf
    for method in (BOTH, WORDS, MEANING):
        assert shelf.search("치킨", method, near=-1) == []
    assert ids_of(shelf.index.popular(Wanted(), 5)) == []
    assert shelf.index.size == 0


def test_many_documents_and_changes_agree_with_a_plain_list(empty_shelf):
    """Rows grow, rest and are reused while answers stay those of a plain scan."""
    shelf, kept = empty_shelf, {}
    rng = np.random.default_rng(0)
    words = ["치킨", "피자", "국밥", "우동", "커피", "떡볶이", "초밥", "버거"]
    for start in range(0, 2400, 600):
        fresh = [
            pb.Document(document_id=f"d{i % 1500}", title=" ".join(rng.choice(words, 3)))
            for i in range(start, start + 600)
        ]
        shelf.put(*fresh)
        kept |= {d.document_id: d for d in fresh}
        gone = rng.choice(sorted(kept), 50, replace=False).tolist()
        shelf.delete(*gone)
        for one in gone:
            kept.pop(one)
    assert shelf.index.size == len(kept)
    assert {*shelf.search("국밥", WORDS, depth=5000)} == {
        key for key, d in kept.items() if "국밥" in d.title
    }


def test_a_later_encoder_makes_its_own_vectors(shelf, encoder):
    later = copy(encoder)
    later.version = "later"
    index = shelf.serving(later)
    shelf.follow()
    for used in (index, shelf.index):
        assert shelf.search("커피", MEANING, index=used)[0] == "cafe"
    shelf.encoder = later
    shelf.put(pb.Document(document_id="new", title="커피 커피"))
    for used in (index, shelf.index):
        assert shelf.search("커피", MEANING, index=used)[0] == "new"


def test_rows_rest_before_they_are_used_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("madang_search.documents.time.monotonic", lambda: now[0])
    keeper = RowKeeper()
    assert [keeper.take(i) for i in "abc"] == [(0, None), (1, None), (2, None)]
    assert keeper.take("b") == (3, 1)
    now[0] = 59
    assert keeper.take("d") == (4, None)
    now[0] = 61
    assert keeper.take("e") == (1, None)
    assert keeper.release("unknown") is None


def test_columns_keep_their_rows_when_they_grow():
    columns = Columns(2)
    columns.put(1, SHOPS[4], 3)
    more = columns.grown()
    assert (len(more), more.documents[1], more.categories[1]) == (4, SHOPS[4], 3)
    assert more.nearest[1] == columns.nearest[1]


def test_ranks_fuse_by_share():
    found = Found(
        lambda at: [pb.Document(document_id="abcd"[i]) for i in at],
        np.array([4, 2, 0, 0], np.float32),
        np.array([0.0, 0.9, 0.8, 0.2], np.float32),
    )
    order, scores = rank(found, BOTH, 0.5, 0.5)
    assert order.tolist() == [1, 0, 2]  # "d" is not near enough
    assert scores == pytest.approx([0.7, 0.5, 0.4])
    assert rank(found, WORDS, 0.5, 0.5).order.tolist() == [0, 1]
    assert rank(found, MEANING, 0.5, 0.5).order.tolist() == [1, 2]


def test_the_best_of_equals_are_the_first():
    scores = np.array([1, 3, 2, 3, 2, 2], np.float32)
    assert best(scores, 4).tolist() == [1, 3, 2, 4]
    assert best(scores, 9).tolist() == [1, 3, 2, 4, 5, 0]
    assert best(scores[:0], 3).tolist() == []
