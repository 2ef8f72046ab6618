"""`python -m madang_ranker.consumer`: apply feedback, in a process of its own."""

import os
import socket
import threading

from pydantic_settings import SettingsConfigDict

from madang.feature.v1 import feature_store_pb2_grpc
from madang_ranker.feedback import LOG, FeedbackConsumer
from madang_ranker.settings import FeedbackSettings
from madang_runtime.clients import Remote, open_channel
from madang_runtime.server import ServiceHost, run


class ConsumerSettings(FeedbackSettings):
    """Read from `MADANG_CONSUMER_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_CONSUMER_")


def wire(host: ServiceHost, settings: ConsumerSettings) -> None:
    """Start to apply feedback."""
    channel = open_channel(settings.gateway, settings.max_message_bytes)
    feedback, rejected = settings.open_log(LOG), settings.open_log(f"{LOG}-rejected")
    store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    consumer = FeedbackConsumer(
        feedback,
        rejected,
        Remote(store.RecordActions, "record_actions", 2.0, host.tracer),
        host.metrics,
        f"{socket.gethostname()}-{os.getpid()}",
    )
    stop = threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,), name="consumer")
    for close in (channel.close, feedback.close, rejected.close, thread.join, stop.set):
        host.closing.callback(close)  # the last first
    thread.start()


if __name__ == "__main__":
    run("consumer", ConsumerSettings(), wire)
