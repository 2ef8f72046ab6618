"""The models of all kinds of service, following their aliases."""

from collections.abc import Callable, Mapping

from madang.feature.v1 import feature_store_pb2_grpc
from madang_eta.kinds import Kind, load_kinds
from madang_eta.resolving import Service
from madang_eta.settings import EtaModelSettings
from madang_eta.stage_model import EtaModel
from madang_runtime.clients import Remote
from madang_runtime.errors import MadangError
from madang_runtime.models.hot import HotModel
from madang_runtime.models.registry import ModelFiles, ModelRegistry
from madang_runtime.models.store_check import check_store
from madang_runtime.server import ServiceHost


def hot_models(
    host: ServiceHost,
    settings: EtaModelSettings,
    store: feature_store_pb2_grpc.FeatureStoreServiceStub,
    timeout: float,
    alias: str,
    required: bool = True,
) -> dict[str, HotModel[EtaModel]]:
    """The model behind an alias of each kind of service; to be started."""
    get_view = Remote(store.GetFeatureView, "feature_view", timeout, host.tracer)

    def load(files: ModelFiles) -> EtaModel:
        check_store(files.manifest, get_view)
        return EtaModel(files, settings.onnx_threads)

    registry = ModelRegistry(settings.model_registry)
    return {
        name: HotModel(host, registry, kind.model, alias, load, required=required)
        for name, kind in load_kinds(settings.services).items()
    }


def services_of(
    kinds: Mapping[str, Kind], models: Mapping[str, HotModel[EtaModel]]
) -> dict[str, Service]:
    """Each kind with what gives its model."""
    return {name: Service(name, kind, models[name].current) for name, kind in kinds.items()}


def or_none(models: Mapping[str, HotModel[EtaModel]]) -> Callable[[str], EtaModel | None]:
    """The model of a kind of service, None when there is none."""

    def get(service: str) -> EtaModel | None:
        try:
            return models[service].current()
        except MadangError:
            return None

    return get
