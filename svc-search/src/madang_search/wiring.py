"""Builds the service's objects."""

import contextlib
from collections.abc import Callable, Mapping

from madang.feature.v1 import feature_store_pb2, feature_store_pb2_grpc
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
from madang_search.bundle import SearchBundle, Tuning
from madang_search.editing import DOCUMENTS, INTENTS, SearchEditor
from madang_search.exact import ExactDocuments, ExactIndex
from madang_search.finder import SearchFinder
from madang_search.index import DocumentIndex
from madang_search.intents import IntentKeeper
from madang_search.keywords.model import KeywordModel
from madang_search.keywords.recommending import KeywordRecommender, keyword_vectors
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
_LOGGED_AT_ONCE = 5000
_RECORDED_AT_ONCE, _RECORD_SECONDS, _RECORD_TIMEOUT = 500, 0.02, 2.0
OpenIndex = Callable[[NearestSearcher, Follower], DocumentIndex]


def wire(host: ServiceHost, settings: SearchSettings) -> None:
    """Register SearchService on the host."""
    analyzer = Analyzer()
    weights = {
        TITLE: settings.title_weight,
        BODY: settings.body_weight,
        GRAMS: settings.grams_weight,
    }
    intents, vocabulary = IntentKeeper(), Vocabulary()
    open_index, apply_documents = (
        _exact(analyzer, weights)
        if settings.index == "exact"
        else _milvus(host, settings, analyzer, weights)
    )

    def load(files: ModelFiles) -> SearchBundle:
        small = settings.precision == "int8"
        encoder = Encoder(files, small=small, threads=settings.onnx_threads)
        tuned = tuning(settings, encoder)
        nearest = NearestSearcher(encoder, host.metrics)
        # Last, when nothing can fail any more: what is attached takes the place of an older one.
        index = open_index(nearest, followed)
        intents.attach(encoder)
        with contextlib.suppress(MadangError):  # there are no keywords yet
            keyword_vectors(encoder, keywords.current())
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

    def load_keywords(files: ModelFiles) -> KeywordModel:
        loaded = KeywordModel(files, settings.onnx_threads)
        with contextlib.suppress(MadangError):  # there is no encoder yet
            keyword_vectors(model.current().encoder, loaded)
        return loaded

    keywords = HotModel(
        host,
        registry,
        settings.keywords_model,
        settings.model_alias,
        load_keywords,
        required=False,
    )
    channel = open_channel(settings.gateway, settings.max_message_bytes)
    host.closing.callback(channel.close)
    store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    timeout = settings.feature_timeout_seconds
    recommender = KeywordRecommender(
        keywords.current,
        model.current,
        lambda: lexicon.lexicon.book,
        Remote(store.LookupFeatures, "features", timeout, host.tracer),
    )
    record = Remote(store.RecordActions, "record_actions", _RECORD_TIMEOUT, host.tracer)
    notes = [_action_writer(host, record), *_query_log(host, settings)]
    finder = SearchFinder(
        model.current,
        analyzer,
        lexicon,
        intents,
        followed_intents,
        Clock(settings.utc_offset_hours),
        lambda searched: [note(searched) for note in notes],
    )
    editor = SearchEditor(document_log, intent_log, analyzer, lambda: model.current().encoder)
    servicer = SearchServicer(finder, editor, recommender, host.stages)
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
    followed.start()
    followed_intents.start()
    lexicon.start()


def _exact(analyzer: Analyzer, weights: dict[str, float]) -> tuple[OpenIndex, Apply]:
    """Documents in memory."""
    documents = ExactDocuments(analyzer, weights)

    def opened(nearest: NearestSearcher, log: Follower) -> DocumentIndex:
        documents.attach(nearest.encoder)
        return ExactIndex(documents, nearest, log)

    return opened, documents.apply


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
        settings.dense_weight,
        given(settings.near_similarity, "near"),
        given(settings.nearest_similarity, "nearest"),
        given(settings.intent_threshold, "intent_threshold"),
    )
