"""Opens the index `milvus` for versions of the encoder."""

from collections.abc import Callable, Mapping

from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.server import ServiceHost
from madang_search.analysis import Analyzer
from madang_search.milvus.collection import collection_name
from madang_search.milvus.connecting import MilvusConnection
from madang_search.milvus.index import MilvusIndex
from madang_search.milvus.progress import PROGRESS, FedLog, FeedProgress
from madang_search.nearest import NearestSearcher
from madang_search.settings import SearchSettings


def milvus_indexes(
    host: ServiceHost,
    settings: SearchSettings,
    analyzer: Analyzer,
    weights: Mapping[str, float],
) -> Callable[[NearestSearcher], MilvusIndex]:
    """What opens the index of an encoder once its collection holds all documents; until then it
    raises MadangError NOT_READY."""
    milvus = MilvusConnection(settings)
    progress = FeedProgress(settings.open_table(PROGRESS), host.metrics)
    host.closing.callback(milvus.close)
    host.closing.callback(progress.close)
    progress.start()

    def opened(nearest: NearestSearcher) -> MilvusIndex:
        name = collection_name(nearest.encoder.version, analyzer.version)
        if not progress.of(name).HasField("seen_time"):
            raise MadangError(
                Code.UNAVAILABLE,
                reason.ERROR_REASON_NOT_READY,
                f"Milvus does not have all documents in {name} yet",
            )
        collection = milvus.collection(name, settings.milvus_consistency)
        return MilvusIndex(collection, weights, nearest, FedLog(progress, name))

    return opened
