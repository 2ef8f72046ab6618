"""`python -m madang_ranker.consumer`: apply feedback, in a process of its own."""

import os
import socket
import threading
from collections.abc import Callable

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from madang.feature.v1 import feature_store_pb2_grpc
from madang_ranker.feedback import LOG, FeedbackConsumer
from madang_ranker.feedback_archive import FeedbackArchiver
from madang_ranker.settings import FeedbackSettings
from madang_ranker.stores.parquet import ParquetArchive, feedback_frame
from madang_runtime.changelog.base import ChangeLog
from madang_runtime.clients import Remote, open_channel
from madang_runtime.server import ServiceHost, run


class ConsumerSettings(FeedbackSettings):
    """Read from `MADANG_CONSUMER_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_CONSUMER_")

    archive_url: str = Field(
        "", description="fsspec URL of the folder that logs feedback as Parquet; empty: none."
    )
    archive_flush_seconds: float = Field(10.0, gt=0, description="How often that is written.")


def wire(host: ServiceHost, settings: ConsumerSettings) -> None:
    """Start to apply feedback, and to archive it."""
    channel = open_channel(settings.gateway, settings.max_message_bytes)
    host.closing.callback(channel.close)
    name = f"{socket.gethostname()}-{os.getpid()}"
    store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    consumer = FeedbackConsumer(
        _open(host, settings, LOG),
        _open(host, settings, f"{LOG}-rejected"),
        Remote(store.RecordActions, "record_actions", 2.0, host.tracer),
        host.metrics,
        name,
    )
    _start(host, consumer.run)
    if settings.archive_url:
        flush = settings.archive_flush_seconds
        archiver = FeedbackArchiver(
            _open(host, settings, LOG, abandoned_after=6 * flush),
            ParquetArchive(settings.archive_url, feedback_frame).write,
            host.metrics,
            name,
            flush,
        )
        _start(host, archiver.run)


def _open(
    host: ServiceHost, settings: ConsumerSettings, name: str, abandoned_after: float = 5.0
) -> ChangeLog:
    made = settings.open_log(name, abandoned_after)
    host.closing.callback(made.close)
    return made


def _start(host: ServiceHost, run: Callable[[threading.Event], None]) -> None:
    """Run in a thread until the host stops."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    host.closing.callback(thread.join)
    host.closing.callback(stop.set)  # called first
    thread.start()


if __name__ == "__main__":
    run("consumer", ConsumerSettings(), wire)
