"""Builds the service's objects."""

from functools import partial

from madang.candidate.v1 import candidate_pb2_grpc
from madang.eta.v1 import eta_pb2_grpc
from madang.feature.v1 import feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2_grpc
from madang_ranker.arrivals import add_arrivals
from madang_ranker.bandit.batches import TABLE
from madang_ranker.bandit.draws import parse_batch
from madang_ranker.bandit.layer import BanditLayer
from madang_ranker.decisions import DecisionLog
from madang_ranker.explain import Explainer
from madang_ranker.feed import Feed
from madang_ranker.feedback import LOG, FeedbackIntake
from madang_ranker.scoring import DcnScorer
from madang_ranker.servicer import RankerServicer
from madang_ranker.settings import RankerSettings
from madang_ranker.stores.decisions import RedisDecisionStore
from madang_ranker.stores.parquet import decision_frame
from madang_ranker.surfaces import load_surfaces
from madang_runtime.archive import ParquetArchive
from madang_runtime.changelog.follower import Follower
from madang_runtime.changelog.table import LogTable
from madang_runtime.clients import Remote, open_channel
from madang_runtime.models.hot import HotModel
from madang_runtime.models.registry import ModelFiles, ModelRegistry
from madang_runtime.models.store_check import check_store
from madang_runtime.server import ServiceHost


def wire(host: ServiceHost, settings: RankerSettings) -> None:
    """Register RankerService on the host."""
    channel = open_channel(settings.gateway, settings.max_message_bytes)
    host.closing.callback(channel.close)
    store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    candidates = candidate_pb2_grpc.CandidateServiceStub(channel)
    predict = eta_pb2_grpc.EtaServiceStub(channel).PredictBatch
    eta = Remote(predict, "arrivals", settings.eta_timeout_seconds, host.tracer)
    get_view = Remote(
        store.GetFeatureView, "feature_view", settings.feature_timeout_seconds, host.tracer
    )

    def load(files: ModelFiles) -> DcnScorer:
        check_store(files.manifest, get_view)
        return DcnScorer(
            files,
            host.metrics,
            threads=settings.onnx_threads,
            batch_rows=settings.batch_rows,
            batch_delay=settings.batch_delay_seconds,
        )

    model = HotModel(
        host, ModelRegistry(settings.model_registry), settings.model, settings.model_alias, load
    )
    kept = RedisDecisionStore(
        settings.explain_store(),
        settings.log_timeout_seconds,
        settings.explain_seconds,
    )
    url = settings.decisions_url
    archive = ParquetArchive(url, decision_frame).write if url else None
    decisions = DecisionLog(
        kept, archive, host.metrics, flush_seconds=settings.decisions_flush_seconds
    )
    host.closing.callback(decisions.close)
    draws = LogTable(parse_batch)
    batches = Follower(settings.open_table(TABLE), TABLE, draws.apply, host.metrics)
    host.closing.callback(batches.close)
    feed = Feed(
        model.current,
        Remote(candidates.Retrieve, "retrieve", settings.candidate_timeout_seconds, host.tracer),
        Remote(store.LookupFeatures, "features", settings.feature_timeout_seconds, host.tracer),
        load_surfaces(settings.surfaces),
        BanditLayer(draws.get),
        decisions.note,
        partial(add_arrivals, eta) if settings.arrivals else None,
    )
    feedback = settings.open_log(LOG)
    host.closing.callback(feedback.close)
    explainer = Explainer(decisions, model.current)
    servicer = RankerServicer(feed, FeedbackIntake(feedback), explainer, host.stages)
    host.register(ranker_pb2_grpc.add_RankerServiceServicer_to_server, servicer)
    batches.start()
    model.start()
