"""`python -m madang_ranker.consumer`: apply feedback and learn from it, in a process of its own."""

import logging
import math
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from madang.candidate.v1 import candidate_pb2
from madang.feature.v1 import feature_store_pb2_grpc
from madang_ranker.bandit.batches import TABLE, BatchMaker
from madang_ranker.bandit.counting import BanditCounter
from madang_ranker.campaigns.pacing import PACING, Pacer
from madang_ranker.campaigns.spend import CAMPAIGNS, Campaigns, SpendCounter
from madang_ranker.feedback import (
    ARCHIVE_GROUP,
    BANDIT_GROUP,
    GROUP,
    LOG,
    SPEND_GROUP,
    FeedbackConsumer,
)
from madang_ranker.feedback_archive import FeedbackArchiver
from madang_ranker.settings import FeedbackSettings
from madang_ranker.stores.parquet import feedback_frame
from madang_ranker.surfaces import load_surfaces
from madang_runtime.archive import ParquetArchive
from madang_runtime.changelog.base import ChangeLog
from madang_runtime.changelog.follower import Follower
from madang_runtime.changelog.table import LogTable
from madang_runtime.clients import Remote, open_channel
from madang_runtime.segments import SegmentBy
from madang_runtime.server import ServiceHost, run

log = logging.getLogger(__name__)


class ConsumerSettings(FeedbackSettings):
    """Read from `MADANG_CONSUMER_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_CONSUMER_")

    archive_url: str = Field(
        "", description="fsspec URL of the folder that logs feedback as Parquet; empty: none."
    )
    archive_flush_seconds: float = Field(10.0, gt=0, description="How often that is written.")
    surfaces: Path | None = Field(None, description="YAML of surfaces; unset takes the built-in.")
    segments: list[str] = Field(
        [],
        description="INT64 features view.feature of one view that say in which segments a user "
        "is, the most specific first; none: everybody is alike. As svc-candidate has it.",
    )
    bandit_seconds: float = Field(
        600.0, gt=0, description="How often the bandits learn what was counted."
    )
    pacing_seconds: float = Field(
        60.0, gt=0, description="How often it is decided to whom ads with a budget may be shown."
    )
    pacing_hours: list[float] = Field(
        [1.0] * 22 + [0.0] * 2,
        description="When daily budgets should be spent: weights of the 24 hours. The last two are "
        "left for what was not.",
    )
    utc_offset_hours: float = Field(0.0, description="When the days of budgets begin.")
    feature_timeout_seconds: float = Field(
        2.0, gt=0, description="Longest wait for the feature store."
    )

    @field_validator("pacing_hours")
    @classmethod
    def _whole_day(cls, hours: list[float]) -> list[float]:
        if len(hours) != 24 or min(hours) < 0 or not 0 < sum(hours) < math.inf:
            raise ValueError("must be 24 weights, none negative, not all 0")
        return hours


def wire(host: ServiceHost, settings: ConsumerSettings) -> None:
    """Start to apply feedback, to charge ads and pace them, to count for bandits, to archive."""
    channel = open_channel(settings.gateway, settings.max_message_bytes)
    host.closing.callback(channel.close)
    name = f"{socket.gethostname()}-{os.getpid()}"
    store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    surfaces = load_surfaces(settings.surfaces)
    policies = {surface: s.bandit for surface, s in surfaces.items() if s.bandit}
    groups = [GROUP, SPEND_GROUP]
    groups += [BANDIT_GROUP] if policies else []
    groups += [ARCHIVE_GROUP] if settings.archive_url else []
    consumer = FeedbackConsumer(
        _open(host, settings, LOG),
        _open(host, settings, f"{LOG}-rejected"),
        Remote(
            store.RecordActions, "record_actions", settings.feature_timeout_seconds, host.tracer
        ),
        host.metrics,
        name,
        groups,
    )
    campaigns = LogTable(candidate_pb2.Campaign.FromString)
    follower = Follower(settings.open_table(CAMPAIGNS), CAMPAIGNS, campaigns.apply, host.metrics)
    host.closing.callback(follower.close)

    def current() -> Campaigns:
        follower.renew()
        return campaigns.values

    days = settings.utc_offset_hours
    spend = SpendCounter(_open(host, settings, LOG), current, days, name)
    paced = settings.open_table(PACING)
    host.closing.callback(paced.close)
    pacer = Pacer(
        _open(host, settings, LOG),
        paced,
        current,
        settings.pacing_hours,
        days,
        settings.pacing_seconds,
        lambda: spend.age,
    )
    loops = [consumer.run, spend.run, pacer.run]
    if policies:
        counter = BanditCounter(
            _open(host, settings, LOG),
            Remote(store.LookupFeatures, "segments", settings.feature_timeout_seconds, host.tracer),
            SegmentBy(settings.segments),
            policies,
            name,
        )
        batches = settings.open_table(TABLE)
        host.closing.callback(batches.close)
        maker = BatchMaker(_open(host, settings, LOG), batches, policies, settings.bandit_seconds)
        loops += [counter.run, maker.run]
    if settings.archive_url:
        flush = settings.archive_flush_seconds
        archiver = FeedbackArchiver(
            _open(host, settings, LOG, abandoned_after=6 * flush),
            ParquetArchive(settings.archive_url, feedback_frame).write,
            host.metrics,
            name,
            flush,
        )
        loops.append(archiver.run)
    _start(host, *loops)


def _open(
    host: ServiceHost, settings: ConsumerSettings, name: str, abandoned_after: float = 5.0
) -> ChangeLog:
    made = settings.open_log(name, abandoned_after)
    host.closing.callback(made.close)
    return made


def _start(host: ServiceHost, *loops: Callable[[threading.Event], None]) -> None:
    """Run loops in threads until the host stops; one that fails starts again."""
    stop = threading.Event()

    def forever(loop: Callable[[threading.Event], None]) -> None:
        while not stop.is_set():
            try:
                loop(stop)
            except Exception:
                log.exception("starts again")
                stop.wait(1.0)

    threads = [threading.Thread(target=forever, args=(loop,), daemon=True) for loop in loops]
    for thread in threads:
        host.closing.callback(thread.join, 5.0)
        thread.start()
    host.closing.callback(stop.set)  # called first


if __name__ == "__main__":
    run("consumer", ConsumerSettings(), wire)
