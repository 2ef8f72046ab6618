"""Builds the service's objects."""

import contextlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from madang.feature.v1 import feature_store_pb2, feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2_grpc
from madang.search.v1 import search_pb2_grpc
from madang_runtime.archive import ParquetArchive
from madang_runtime.background import BackgroundWriter
from madang_runtime.changelog.follower import Apply, Follower
from madang_runtime.clients import Remote, open_channel
from madang_runtime.dependency import Dependency
from madang_runtime.errors import MadangError
from madang_runtime.models.context import Clock
from madang_runtime.models.hot import HotModel
from madang_runtime.models.registry import ModelFiles, ModelRegistry
from madang_runtime.server import ServiceHost
from madang_runtime.text.encoder import Encoder
from madang_search.analysis import Analyzer
from madang_search.answering import Answerer
from madang_search.blocks.queries import QueryBook
from madang_search.blocks.searching import BlockSearcher
from madang_search.blocks.users import Users
from madang_search.bundle import SearchBundle, Tuning
from madang_search.editing import DOCUMENTS, INTENTS, SearchEditor
from madang_search.exact import ExactDocuments, ExactIndex
from madang_search.finder import SearchFinder
from madang_search.index import DocumentIndex
from madang_search.intents import IntentKeeper
from madang_search.keywords.model import KeywordModel
from madang_search.keywords.recommending import KeywordRecommender
from madang_search.known import Known, known_vectors
from madang_search.lexical import BODY, GRAMS, TITLE
from madang_search.lexicon import LexiconKeeper
from madang_search.nearest import NearestSearcher
from madang_search.query_log import Searched, search_frame
from madang_search.servicer import SearchServicer
from madang_search.settings import SearchSettings
from madang_search.vocabulary import Vocabulary

Note = Callable[[Searched], object]
RecordActions = Dependency[
    feature_store_pb2.RecordActionsRequest, feature_store_pb2.RecordActionsResponse
]
_LOGGED_AT_ONCE, _LOGGED_WAITING = 1000, 4000  # some 17 kB each, with 20 hits
_RECORDED_AT_ONCE, _RECORD_SECONDS, _RECORD_TIMEOUT = 500, 0.02, 2.0
Version = TypeVar("Version", bound=Known)
OpenIndex = Callable[[NearestSearcher, Follower], DocumentIndex]


def wire(host: ServiceHost, settings: SearchSettings) -> None:
    """Register SearchService on the host."""
    analyzer = Analyzer()
    intents, vocabulary = IntentKeeper(), Vocabulary()
    open_index, apply_documents = _documents(host, settings, analyzer)

    def load(files: ModelFiles) -> SearchBundle:
        small = settings.precision == "int8"
        encoder = Encoder(files, small=small, threads=settings.onnx_threads)
        tuned = tuning(settings, encoder)
        nearest = NearestSearcher(encoder, host.metrics)
        # Last, when nothing can fail any more: what is attached takes the place of an older one.
        index = open_index(nearest, followed)
        intents.attach(encoder)
        for version in (keywords, queries):
            with contextlib.suppress(MadangError):  # there is none yet
                known_vectors(encoder, version.current())
        return SearchBundle(encoder, nearest, index, tuned)

    def apply(changed: Mapping[str, bytes | None], anew: bool) -> None:
        apply_documents(changed, anew)
        vocabulary.apply(changed, anew)

    document_log, intent_log = settings.open_table(DOCUMENTS), settings.open_table(INTENTS)
    # A replica that starts while the log is away would answer as if there were no documents.
    host.set_ready(DOCUMENTS, False)
    followed = Follower(
        settings.open_table(DOCUMENTS),
        DOCUMENTS,
        apply,
        host.metrics,
        seen=lambda: host.set_ready(DOCUMENTS, True),
    )
    followed_intents = Follower(settings.open_table(INTENTS), INTENTS, intents.apply, host.metrics)
    lexicon = LexiconKeeper(vocabulary)
    registry = ModelRegistry(settings.model_registry)
    model = HotModel(host, registry, settings.model, settings.model_alias, load)
    keywords = _known(
        host,
        settings,
        settings.keywords_model,
        lambda files: KeywordModel(files, settings.onnx_threads),
        model,
    )
    queries = _known(host, settings, settings.queries_model, QueryBook, model)
    channel = open_channel(settings.gateway, settings.max_message_bytes)
    host.closing.callback(channel.close)
    store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    timeout = settings.feature_timeout_seconds
    features = Remote(store.LookupFeatures, "features", timeout, host.tracer)
    recommender = KeywordRecommender(
        keywords.current, model.current, lambda: lexicon.lexicon.book, features
    )
    ranker = ranker_pb2_grpc.RankerServiceStub(channel)
    rank = Remote(ranker.Rank, "rank", settings.ranker_timeout_seconds, host.tracer)
    record = Remote(store.RecordActions, "record_actions", _RECORD_TIMEOUT, host.tracer)
    note = _notes(host, settings, record)
    answerer = Answerer(model.current, analyzer, lexicon, Clock(settings.utc_offset_hours))
    finder = SearchFinder(model.current, answerer, lexicon, intents, followed_intents, note)
    blocks = BlockSearcher(answerer, finder, queries.current, Users(features, rank), note)
    editor = SearchEditor(document_log, intent_log, analyzer, lambda: model.current().encoder)
    servicer = SearchServicer(finder, editor, recommender, blocks, host.stages)
    host.register(search_pb2_grpc.add_SearchServiceServicer_to_server, servicer)
    for close in (
        document_log.close,
        intent_log.close,
        followed.close,
        followed_intents.close,
        lexicon.close,
    ):
        host.closing.callback(close)
    # First the model: documents bring vectors with them, of use only while they are read.
    model.start()
    keywords.start()
    queries.start()
    followed.start()
    followed_intents.start()
    lexicon.start()


def _known(
    host: ServiceHost,
    settings: SearchSettings,
    name: str,
    load: Callable[[ModelFiles], Version],
    model: HotModel[SearchBundle],
) -> HotModel[Version]:
    """A model that there may be, which knows texts."""

    def loaded(files: ModelFiles) -> Version:
        version = load(files)
        with contextlib.suppress(MadangError):  # there is no encoder yet
            known_vectors(model.current().encoder, version)
        return version

    registry = ModelRegistry(settings.model_registry)
    return HotModel(host, registry, name, settings.model_alias, loaded, required=False)


def _documents(
    host: ServiceHost, settings: SearchSettings, analyzer: Analyzer
) -> tuple[OpenIndex, Apply]:
    """The index of documents that is set, and what it takes of their log."""
    weights = {
        TITLE: settings.title_weight,
        BODY: settings.body_weight,
        GRAMS: settings.grams_weight,
    }
    if settings.index == "exact":
        return _exact(analyzer, weights)
    return _milvus(host, settings, analyzer, weights)


def _exact(analyzer: Analyzer, weights: dict[str, float]) -> tuple[OpenIndex, Apply]:
    """Documents in memory."""
    documents = ExactDocuments(analyzer, weights)

    def opened(nearest: NearestSearcher, log: Follower) -> DocumentIndex:
        documents.attach(nearest.encoder)
        return ExactIndex(documents, nearest, log)

    return opened, documents.apply


def _notes(host: ServiceHost, settings: SearchSettings, record: RecordActions) -> Note:
    """Takes searches to where they are kept."""
    takers = [_action_writer(host, record), *_query_log(host, settings)]

    def note(searched: Searched) -> None:
        if any(map(str.isalnum, searched.request.query)):  # else nobody searches
            for take in takers:
                take(searched)

    return note


def _query_log(host: ServiceHost, settings: SearchSettings) -> list[Note]:
    """Takes searches to their log, if there is one."""
    if not settings.searches_url:
        return []
    writer = BackgroundWriter(
        "searches",
        ParquetArchive(settings.searches_url, search_frame).write,
        host.metrics,
        seconds=settings.searches_flush_seconds,
        most=_LOGGED_AT_ONCE,
        capacity=_LOGGED_WAITING,
    )
    host.closing.callback(writer.close)
    return [writer.put]


def _action_writer(host: ServiceHost, record: RecordActions) -> Note:
    """Takes searches of known users to the feature store, as what they did."""
    writer = BackgroundWriter[feature_store_pb2.Action](
        "actions",
        lambda actions: record(feature_store_pb2.RecordActionsRequest(actions=actions)),
        host.metrics,
        seconds=_RECORD_SECONDS,
        most=_RECORDED_AT_ONCE,
    )
    host.closing.callback(writer.close)

    def note(searched: Searched) -> None:
        if action := searched.action():
            writer.put(action)

    return note


def _milvus(
    host: ServiceHost, settings: SearchSettings, analyzer: Analyzer, weights: dict[str, float]
) -> tuple[OpenIndex, Apply]:
    """Documents in Milvus; what its client needs is only loaded where it is used."""
    from madang_search.milvus.wiring import milvus_indexes  # noqa: PLC0415

    opened = milvus_indexes(host, settings, analyzer, weights)
    return lambda nearest, _: opened(nearest), lambda _, __: None


def tuning(settings: SearchSettings, encoder: Encoder) -> Tuning:
    """What the settings say, else what the encoder's version does."""

    def given(setting: float, parameter: str) -> float:
        return setting or float(encoder.parameters[parameter])

    return Tuning(
        given(settings.dense_weight, "dense_weight"),
        given(settings.near_similarity, "near"),
        given(settings.nearest_similarity, "nearest"),
        given(settings.intent_threshold, "intent_threshold"),
    )
