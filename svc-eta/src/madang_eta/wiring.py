"""Builds the service's objects."""

from madang.eta.v1 import eta_pb2_grpc
from madang.feature.v1 import feature_store_pb2_grpc
from madang_eta.buffers import BUFFERS, BufferDesk, TimeBuffers
from madang_eta.kinds import load_kinds
from madang_eta.predictor import ArrivalPredictor
from madang_eta.resolving import Resolver
from madang_eta.servicer import EtaServicer
from madang_eta.serving import hot_models, or_none, services_of
from madang_eta.settings import EtaSettings
from madang_eta.shadow import ShadowComparer, ShadowMetrics
from madang_runtime.changelog.follower import Follower
from madang_runtime.clients import Remote, open_channel
from madang_runtime.server import ServiceHost


def wire(host: ServiceHost, settings: EtaSettings) -> None:
    """Register EtaService on the host."""
    channel = open_channel(settings.gateway, settings.max_message_bytes)
    host.closing.callback(channel.close)
    store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    timeout = settings.feature_timeout_seconds
    look_up = Remote(store.LookupFeatures, "features", timeout, host.tracer)
    kinds = load_kinds(settings.services)
    models = hot_models(host, settings, store, timeout, settings.model_alias)
    shadows = (
        hot_models(host, settings, store, timeout, settings.shadow_alias, required=False)
        if settings.shadow_alias
        else {}
    )
    comparer = ShadowComparer(
        or_none(shadows), look_up, ShadowMetrics(host.metrics.registry), settings.shadow_share
    )
    host.closing.callback(comparer.close)
    buffers = TimeBuffers()
    follower = Follower(settings.open_table(BUFFERS), BUFFERS, buffers.apply, host.metrics)
    host.closing.callback(follower.close)
    log = settings.open_table(BUFFERS)
    host.closing.callback(log.close)
    predictor = ArrivalPredictor(
        Resolver(services_of(kinds, models)),
        look_up,
        buffers,
        follower,
        settings.list_seconds,
        comparer.watch,
    )
    servicer = EtaServicer(predictor, BufferDesk(log, buffers, follower, kinds), host.stages)
    host.register(eta_pb2_grpc.add_EtaServiceServicer_to_server, servicer)
    follower.start()
    comparer.start()
    for model in (*models.values(), *shadows.values()):
        model.start()
