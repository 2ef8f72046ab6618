"""`python -m madang_search.milvus.feeder`: keeps Milvus at the state of the documents' log.

One process does it, for all versions of the encoder that serve: each has a collection of its own,
which is there before the version is served and goes some time after it was.
"""

import logging
import threading
import time
from collections.abc import Callable

from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.errors import MadangError
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.server import ServiceHost, run
from madang_runtime.text.encoder import Encoder
from madang_search.analysis import Analyzer
from madang_search.editing import DOCUMENTS
from madang_search.milvus.collection import collection_name
from madang_search.milvus.connecting import MilvusConnection
from madang_search.milvus.feeding import CollectionFeed
from madang_search.milvus.progress import PROGRESS, FeedProgress
from madang_search.records import RecordReader
from madang_search.settings import FeederSettings

log = logging.getLogger(__name__)

_LOOK_SECONDS, _RETRY_SECONDS = 0.05, 1.0


class Feeder:
    """Feeds the collections of all versions that aliases point at. One thread uses it.

    Args:
        settings: which aliases, and how long collections are kept.
        registry: of the encoder's versions.
        analyzer: finds terms.
        milvus: the server.
        documents, table: the log, and the one of progress.
        progress: what is in the latter.
    """

    def __init__(
        self,
        settings: FeederSettings,
        registry: ModelRegistry,
        analyzer: Analyzer,
        milvus: MilvusConnection,
        documents: CompactedLog,
        table: CompactedLog,
        progress: FeedProgress,
    ) -> None:
        self._settings, self._registry = settings, registry
        self._analyzer, self._reader = analyzer, RecordReader(analyzer)
        self._milvus = milvus
        self._documents, self._table, self._progress = documents, table, progress
        self._feeds: dict[str, CollectionFeed] = {}
        self._unnamed: dict[str, float] = {}  # since when, on the monotonic clock

    def follow(self) -> None:
        """Begin what aliases point at now, and end what they don't any more.

        Raises:
            MadangError: the registry's, STORE_UNAVAILABLE, NOT_FRESH_YET.
        """
        self._progress.renew()
        name, named = self._settings.model, set()
        for alias in self._settings.aliases:
            if not self._registry.has_alias(name, alias):
                continue
            version = self._registry.resolve(name, alias)
            kept_in = collection_name(version, self._analyzer.version)
            named.add(kept_in)
            if kept_in not in self._feeds:
                self._feeds[kept_in] = self._begun(kept_in, version)
                log.info("%s gets the documents of %s %s", kept_in, name, version)
        now = time.monotonic()
        unnamed = self._progress.collections() - named
        self._unnamed = {one: self._unnamed.get(one, now) for one in unnamed}
        for one, since in self._unnamed.items():
            if now - since >= self._settings.keep_seconds:
                self._feeds.pop(one, None)
                self._milvus.collection(one).drop()
                self._table.write({one: None})
                log.info("%s is dropped: no alias points at its version", one)

    def step(self) -> bool:
        """Take some changes into each collection. Returns: whether there are more.

        Raises:
            MadangError: STORE_UNAVAILABLE.
        """
        more = [feed.step() for feed in self._feeds.values()]
        return any(more)

    def _begun(self, kept_in: str, version: str) -> CollectionFeed:
        settings = self._settings
        encoder = Encoder(
            self._registry.load(settings.model, version),
            small=settings.precision == "int8",
            threads=settings.onnx_threads,
        )
        return CollectionFeed(
            self._milvus.collection(kept_in),
            encoder,
            self._reader,
            self._documents,
            self._table,
            self._progress.of(kept_in),
        )


def feed_until(
    stop: threading.Event, feeder: Feeder, every: float, ready: Callable[[], None]
) -> None:
    """Feed until told to stop, looking at aliases every so many seconds; whatever fails is tried
    again.

    Args:
        ready: called whenever all collections have all documents.
    """
    looked = -every
    while not stop.is_set():
        wait = _LOOK_SECONDS
        try:
            if time.monotonic() - looked >= every:
                feeder.follow()
                looked = time.monotonic()
            if feeder.step():
                wait = 0.0
            else:
                ready()
        except MadangError as error:
            log.warning("Milvus stays as it is: %s", error.message)
            wait = _RETRY_SECONDS
        except Exception:
            log.exception("Milvus stays as it is")
            wait = _RETRY_SECONDS
        stop.wait(wait)


def wire(host: ServiceHost, settings: FeederSettings) -> None:
    """Start to feed."""
    milvus = MilvusConnection(settings)
    documents, table = settings.open_table(DOCUMENTS), settings.open_table(PROGRESS)
    progress = FeedProgress(settings.open_table(PROGRESS), host.metrics)
    for close in (milvus.close, documents.close, table.close, progress.close):
        host.closing.callback(close)
    progress.start()
    feeder = Feeder(
        settings,
        ModelRegistry(settings.model_registry),
        Analyzer(),
        milvus,
        documents,
        table,
        progress,
    )
    stop = threading.Event()
    host.set_ready(PROGRESS, False)
    arguments = stop, feeder, settings.model_poll_seconds, lambda: host.set_ready(PROGRESS, True)
    thread = threading.Thread(target=feed_until, args=arguments, name="feed", daemon=True)
    host.closing.callback(thread.join, 10.0)
    host.closing.callback(stop.set)  # called first
    thread.start()


if __name__ == "__main__":
    run("feeder", FeederSettings(), wire)
