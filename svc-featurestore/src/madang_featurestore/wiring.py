"""Builds the service's objects."""

from madang.feature.v1 import feature_store_pb2_grpc
from madang_featurestore.catalog import ViewCatalog
from madang_featurestore.features import FeatureStore
from madang_featurestore.servicer import FeatureStoreServicer
from madang_featurestore.settings import FeatureStoreSettings
from madang_featurestore.stores.base import RowStore
from madang_featurestore.stores.memory import MemoryStore
from madang_featurestore.stores.redis import RedisStore
from madang_featurestore.stores.traced import TracedStore
from madang_runtime.server import ServiceHost
from madang_runtime.urls import with_password


def wire(host: ServiceHost, settings: FeatureStoreSettings) -> None:
    """Register FeatureStoreService on the host."""
    store = _open_store(host, settings)
    host.closing.callback(store.close)
    catalog = ViewCatalog(store)
    servicer = FeatureStoreServicer(FeatureStore(store, catalog), catalog, host.stages)
    host.register(feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server, servicer)


def _open_store(host: ServiceHost, settings: FeatureStoreSettings) -> RowStore:
    system, _, _ = settings.store_url.partition(":")
    if system == "memory":
        return TracedStore(MemoryStore(), host.tracer, system)
    url = with_password(settings.store_url, settings.store_password)
    store = RedisStore(url, settings.store_timeout_seconds)
    return TracedStore(store, host.tracer, "redis")
