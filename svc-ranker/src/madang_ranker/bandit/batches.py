"""Sums the window and publishes it as a batch."""

import logging
import threading
import time
from collections.abc import Mapping
from hashlib import blake2b
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from madang.ranker.v1 import bandit_pb2
from madang_ranker.bandit.counting import IMPRESSION, bucket_name, parse_counter
from madang_ranker.bandit.policy import BanditPolicy
from madang_runtime.changelog.base import ChangeLog
from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.errors import MadangError

log = logging.getLogger(__name__)

Counts = NDArray[np.uint32]
TABLE = "bandit"
"""The compacted log of batches, one a surface."""


class Window:
    """The sum of a surface's buckets. Those that are closed are read once.

    Arms of a segment are numbered as they are first seen; a bucket is then two columns of counts.
    """

    def __init__(self, feedback: ChangeLog, surface: str, policy: BanditPolicy) -> None:
        self._log = feedback
        self._surface = surface
        self._policy = policy
        self._number: dict[tuple[str, str], int] = {}
        self._closed: dict[int, tuple[NDArray[np.int64], Counts]] = {}

    def total(self, now: float) -> tuple[list[tuple[str, str]], Counts]:
        """The window's counts.

        Returns:
            n pairs of segment and item, and their impressions and rewards, shape [n, 2].
        """
        buckets = self._policy.buckets(now)
        # The bucket before the last may still be counted in by a consumer whose clock is late.
        self._closed = {b: c for b, c in self._closed.items() if b in buckets[:-2]}
        parts = []
        for bucket in buckets:
            part = self._closed.get(bucket) or self._read(bucket)
            parts.append(part)
            if bucket in buckets[:-2]:
                self._closed[bucket] = part
        total = np.zeros((len(self._number), 2), np.uint32)
        for numbers, counts in parts:
            total[numbers] += counts
        seen = np.flatnonzero(total.any(axis=1))
        pairs = list(self._number)
        return [pairs[i] for i in seen.tolist()], total[seen]

    def _read(self, bucket: int) -> tuple[NDArray[np.int64], Counts]:
        found: dict[int, list[int]] = {}
        for name, n in self._log.counters(bucket_name(self._surface, bucket)).items():
            kind, segment, item_id = parse_counter(name)
            number = self._number.setdefault((segment, item_id), len(self._number))
            found.setdefault(number, [0, 0])[kind != IMPRESSION] = n
        return np.array(list(found), np.int64), np.array(list(found.values()), np.uint32).reshape(
            -1, 2
        )


class BatchMaker:
    """Publishes a batch a surface whenever its counts have changed.

    Several may run: the last batch stands.

    Args:
        feedback: beside which the counters are.
        batches: takes the batches by surface.
        policies: by surface.
        every: seconds between batches.
    """

    def __init__(
        self,
        feedback: ChangeLog,
        batches: CompactedLog,
        policies: Mapping[str, BanditPolicy],
        every: float,
    ) -> None:
        self._batches = batches
        self._policies = policies
        self._windows = {s: Window(feedback, s, policy) for s, policy in policies.items()}
        self._every = every
        self._made: dict[str, bytes] = {}

    def run(self, stop: threading.Event) -> None:
        """Make batches until `stop`."""
        while True:
            try:
                self.make(time.time())
            except MadangError as error:
                log.warning("bandit batches wait: %s", error.message)
            if stop.wait(self._every):
                return

    def make(self, now: float) -> None:
        """Publish what has changed. Raises: MadangError STORE_UNAVAILABLE."""
        fresh = {}
        for surface, policy in self._policies.items():
            batch = make_batch(policy, *self._windows[surface].total(now))
            if (content := batch.SerializeToString(deterministic=True)) != self._made.get(surface):
                batch.surface = surface
                batch.batch_id = f"{surface}-{int(now)}-{crc32(content):08x}"
                batch.seed = _seed(batch.batch_id)
                batch.made_at.FromMilliseconds(int(now * 1000))
                fresh[surface] = content, batch.SerializeToString()
        if fresh:
            self._batches.write({surface: payload for surface, (_, payload) in fresh.items()})
            self._made |= {surface: content for surface, (content, _) in fresh.items()}


def make_batch(
    policy: BanditPolicy, pairs: list[tuple[str, str]], counts: Counts
) -> bandit_pb2.BanditBatch:
    """A batch of counts [n, 2] of n pairs of segment and item, without surface, id and time."""
    items = {item_id: i for i, item_id in enumerate(sorted({item for _, item in pairs}))}
    arm = np.array([items[item] for _, item in pairs], np.uint32)
    names = [segment for segment, _ in pairs]
    segments, of = np.unique(np.array(names, object), return_inverse=True)
    batch = bandit_pb2.BanditBatch(
        prior_successes=policy.prior_successes,
        prior_failures=policy.prior_failures,
        pooling=policy.pooling,
        rankings=policy.rankings,
        keep=policy.keep,
        fresh=policy.fresh,
        fresh_below=policy.fresh_below,
        item_ids=items,
    )
    for s, segment in enumerate(segments.tolist()):
        rows = np.flatnonzero(of == s)
        rows = rows[np.argsort(arm[rows])]
        batch.segments.add(
            segment=segment,
            arms=arm[rows].astype("<u4").tobytes(),
            impressions=counts[rows, 0].astype("<u4").tobytes(),
            rewards=counts[rows, 1].astype("<u4").tobytes(),
        )
    return batch


def _seed(batch_id: str) -> int:
    return int.from_bytes(blake2b(batch_id.encode(), digest_size=8).digest(), "little")
