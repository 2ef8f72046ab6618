"""Builds the service's objects."""

from madang.targeting.v1 import targeting_pb2_grpc
from madang_runtime.models.hot import HotModel
from madang_runtime.models.registry import ModelFiles, ModelRegistry
from madang_runtime.server import ServiceHost
from madang_targeting.audience import Audiences
from madang_targeting.caps import load_caps
from madang_targeting.desk import SegmentDesk
from madang_targeting.estimator import Estimator
from madang_targeting.listing import MemberLister
from madang_targeting.maker import SegmentMaker
from madang_targeting.model import NAME, TargetingModel
from madang_targeting.outreach import Outreach
from madang_targeting.servicer import TargetingServicer
from madang_targeting.settings import TargetingSettings
from madang_targeting.stores.connection import Connection
from madang_targeting.stores.redis_caps import RedisCapStore
from madang_targeting.stores.redis_results import RedisResultStore
from madang_targeting.stores.redis_segments import RedisSegmentStore
from madang_targeting.worker import Worker, WorkMetrics

_DAY_SECONDS = 86_400


def wire(host: ServiceHost, settings: TargetingSettings) -> None:
    """Register TargetingService on the host."""
    connection = Connection(
        settings.log_store(), settings.log_timeout_seconds, synced=settings.log_synced
    )
    host.closing.callback(connection.close)
    segments = RedisSegmentStore(connection)
    results = RedisResultStore(connection, settings.results_days * _DAY_SECONDS)
    registry = ModelRegistry(settings.model_registry)
    audiences = Audiences(registry, settings.audience_folder)

    def load(files: ModelFiles) -> TargetingModel:
        return TargetingModel(files, audiences.get)

    # Caps and segments that there are need no model.
    model = HotModel(host, registry, NAME, settings.model_alias, load, required=False)
    maker = SegmentMaker(segments, results, audiences.get)
    outreach = Outreach(load_caps(settings.caps), RedisCapStore(connection), results)
    servicer = TargetingServicer(
        SegmentDesk(segments, maker, model.current),
        MemberLister(segments, audiences.get),
        Estimator(model.current, outreach, settings.work_threads),
        outreach,
        host.stages,
    )
    host.register(targeting_pb2_grpc.add_TargetingServiceServicer_to_server, servicer)
    model.start()
    if settings.work:
        worker = Worker(
            segments,
            maker,
            model.current,
            host.tracer,
            WorkMetrics(host.metrics.registry),
            lease_seconds=settings.lease_seconds,
            threads=settings.work_threads,
        )
        host.closing.callback(worker.close)
        worker.start()
