"""Builds the service's objects."""

from collections.abc import Callable

from madang.candidate.v1 import candidate_pb2, candidate_pb2_grpc
from madang.feature.v1 import feature_store_pb2, feature_store_pb2_grpc
from madang.ranker.v1 import bandit_pb2
from madang_candidate.arms import ArmFilter
from madang_candidate.campaigns import AdCampaigns
from madang_candidate.catalogue import Catalogue
from madang_candidate.content.model import ContentModel
from madang_candidate.editing import CAMPAIGNS, ITEMS, LISTS, CatalogueEditor
from madang_candidate.lists import SegmentLists
from madang_candidate.query import Source
from madang_candidate.retrieval import Retrieval
from madang_candidate.service import CandidateFinder
from madang_candidate.servicer import CandidateServicer
from madang_candidate.settings import CandidateSettings
from madang_candidate.sources.ads import AdSource
from madang_candidate.sources.again import AgainSource
from madang_candidate.sources.cohort import CohortSource
from madang_candidate.sources.explore import ExploreSource
from madang_candidate.sources.popular import PopularSource
from madang_candidate.sources.reactive import ReactiveSource
from madang_candidate.sources.two_tower import TwoTowerSource
from madang_candidate.tower import TowerBundle
from madang_runtime.changelog.follower import Follower
from madang_runtime.changelog.table import LogTable
from madang_runtime.clients import Remote, open_channel
from madang_runtime.models.hot import HotModel
from madang_runtime.models.registry import ModelFiles, ModelRegistry
from madang_runtime.models.store_check import check_store
from madang_runtime.segments import SegmentBy
from madang_runtime.server import ServiceHost
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder


def wire(host: ServiceHost, settings: CandidateSettings) -> None:
    """Register CandidateService on the host."""
    channel = open_channel(settings.gateway, settings.max_message_bytes)
    host.closing.callback(channel.close)
    store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    lookup = Remote(
        store.LookupFeatures,
        "user_features",
        settings.feature_timeout_seconds,
        host.tracer,
    )
    get_view = Remote(
        store.GetFeatureView, "feature_view", settings.feature_timeout_seconds, host.tracer
    )

    slow = settings.item_timeout_seconds
    write = Remote(store.WriteFeatures, "write_features", slow, host.tracer)
    item_rows = Remote(store.LookupFeatures, "item_features", slow, host.tracer)
    catalogue = Catalogue(item_rows)
    lists = LogTable(candidate_pb2.SegmentList.FromString)
    batches = LogTable(bandit_pb2.BanditBatch.FromString)
    campaigns = AdCampaigns(settings.pacing_stale_seconds)

    segment_by = SegmentBy(settings.segments)

    def load(files: ModelFiles) -> TowerBundle:
        check_store(files.manifest, get_view)
        if segment_by.view:
            get_view(feature_store_pb2.GetFeatureViewRequest(name=segment_by.view))
        bundle = TowerBundle(files, threads=settings.onnx_threads, exact_below=settings.exact_below)
        catalogue.attach(bundle)
        return bundle

    logs = item_log, list_log, campaign_log = [
        settings.open_table(name) for name in (ITEMS, LISTS, CAMPAIGNS)
    ]
    followers = {
        name: Follower(settings.open_table(name), name, apply, host.metrics)
        for name, apply in (
            (ITEMS, catalogue.apply),
            (LISTS, lists.apply),
            (CAMPAIGNS, campaigns.apply_campaigns),
            ("bandit", batches.apply),
            ("pacing", campaigns.apply_pacing),
        )
    }
    for follower in followers.values():
        host.closing.callback(follower.close)
    for log in logs:
        host.closing.callback(log.close)
    registry = ModelRegistry(settings.model_registry)

    def load_content(files: ModelFiles) -> ContentModel:
        encoder = registry.load(ENCODER, files.manifest.parameters[ENCODER])
        threads = settings.onnx_threads
        return ContentModel(files, Encoder(encoder, small=True, threads=threads), threads)

    content = HotModel(
        host,
        registry,
        settings.content_model,
        settings.model_alias,
        load_content,
        required=False,
    )
    sources = make_sources(settings, SegmentLists(lists), ArmFilter(batches), content.current)
    retrieval = Retrieval(sources, settings.rrf_k, settings.source_timeout_seconds)
    host.closing.callback(retrieval.close)
    model = HotModel(host, registry, settings.model, settings.model_alias, load)
    finder = CandidateFinder(
        model.current,
        lookup,
        retrieval,
        segment_by,
        catalogue,
        campaigns,
        followers[ITEMS],
        followers[LISTS],
        followers[CAMPAIGNS],
    )
    editor = CatalogueEditor(item_log, list_log, campaign_log, write)
    servicer = CandidateServicer(finder, editor, host.stages)
    host.register(candidate_pb2_grpc.add_CandidateServiceServicer_to_server, servicer)
    for follower in followers.values():
        follower.start()
    model.start()
    content.start()


def make_sources(
    settings: CandidateSettings,
    lists: SegmentLists,
    arms: ArmFilter,
    content: Callable[[], ContentModel],
) -> list[Source]:
    """The sources in the order in which answers list them."""
    return [
        TwoTowerSource(settings.weight_two_tower),
        ReactiveSource(settings.weight_reactive, settings.rrf_k, content),
        AgainSource(settings.weight_again),
        PopularSource(settings.weight_popular),
        CohortSource(settings.weight_cohort, lists),
        AdSource(settings.weight_ads),
        ExploreSource(settings.weight_explore, arms),
    ]
