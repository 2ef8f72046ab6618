"""The rankings of a batch, drawn once and shared by all requests until the next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from madang.ranker.v1 import bandit_pb2
from madang_ranker.bandit.priors import segment_prior, surface_prior
from madang_runtime.segments import EVERYBODY

Floats = NDArray[np.float32]
Counts = NDArray[np.uint32]
Rates = NDArray[np.float64]
# Arms without counts share so many draws of the prior, by their ids.
_UNSEEN = 1024
_AT_ONCE, _ELSEWHERE = 4096, 1


@dataclass(frozen=True)
class Segment:
    """One segment's draws.

    Attributes:
        row_of_arm: row of each of the batch's arms, -1 where the segment has no counts of it.
        impressions, rewards: by row.
        rates: float16, shape [rows, rankings]: draws from each arm's Beta posterior.
    """

    row_of_arm: NDArray[np.int32]
    impressions: Counts
    rewards: Counts
    rates: NDArray[np.float16]


@dataclass(frozen=True)
class Drawn:
    """n items' draws: rates [n, rankings], and the counts [n] that they come from."""

    rates: Floats
    impressions: Counts
    rewards: Counts


class BatchDraws:
    """A batch with M draws of each arm and segment.

    The draws of an arm are independent of those of others, column m of all arms is ranking m
    (Thompson, 1933: to rank by draws from the posterior is to choose an arm as often as it is
    believed to be the best). The same batch gives the same draws in every process.
    """

    def __init__(self, batch: bandit_pb2.BanditBatch) -> None:
        self.batch_id = batch.batch_id
        self.rankings = batch.rankings
        self._arm_of = {item_id: arm for arm, item_id in enumerate(batch.item_ids)}
        prior, everybody = _posterior(batch)
        seeds = [batch.seed]
        self._unseen = _draw(np.repeat(prior, _UNSEEN, axis=1), batch.rankings, seeds)
        priors = segment_prior(everybody, batch.pooling) if batch.pooling else prior
        self._segments = {
            s.segment: _segment(s, prior if s.segment == EVERYBODY else priors, batch)
            for s in batch.segments
        }
        # A segment that has no counts of an arm: everybody's counts, but drawn from its prior.
        self._elsewhere: Segment | None = None
        if batch.pooling and (all_counts := self._segments.get(EVERYBODY)):
            rates = _draw(priors, batch.rankings, [batch.seed, _ELSEWHERE])
            self._elsewhere = replace(all_counts, rates=rates[all_counts.row_of_arm >= 0])

    def ranking_of(self, user_id: str, hour: int) -> int:
        """The ranking that a user has in an hour, in [0, rankings)."""
        digest = blake2b(f"{user_id}\x1f{hour}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % self.rankings

    def draw(self, segment: str, item_ids: Sequence[str]) -> Drawn:
        """Look up the draws of items. Those without counts in the segment have draws of its prior
        and everybody's counts; those that nobody has seen have draws of the prior by their id."""
        n = len(item_ids)
        rates = self._unseen[[crc32(i.encode()) % _UNSEEN for i in item_ids]].astype(np.float32)
        impressions, rewards = np.zeros(n, np.uint32), np.zeros(n, np.uint32)
        arms = np.array([self._arm_of.get(i, -1) for i in item_ids], np.int64)
        for known in filter(None, (self._elsewhere, self._segments.get(segment))):
            rows = np.where(arms >= 0, known.row_of_arm[arms], -1)
            counted = rows >= 0
            rates[counted] = known.rates[rows[counted]]
            impressions[counted] = known.impressions[rows[counted]]
            rewards[counted] = known.rewards[rows[counted]]
        return Drawn(rates, impressions, rewards)


def _posterior(batch: bandit_pb2.BanditBatch) -> tuple[Rates, Rates]:
    """α and β of the surface's prior, shape [2, 1], and of everybody's posterior, [2, arms]."""
    counts = np.zeros((2, len(batch.item_ids)))
    for everybody in (s for s in batch.segments if s.segment == EVERYBODY):
        arms, counted = _counts(everybody)
        counts[:, arms] = counted
    configured = np.array([[batch.prior_successes], [batch.prior_failures]])
    prior = surface_prior(configured, counts.sum(axis=1, keepdims=True))
    return prior, prior + counts


def _counts(segment: bandit_pb2.BanditSegment) -> tuple[NDArray[np.uint32], Rates]:
    """The arms that have counts, and their successes and failures, shape [2, k]."""
    impressions = np.frombuffer(segment.impressions, "<u4").astype(np.float64)
    rewards = np.frombuffer(segment.rewards, "<u4")
    # Several rewards may follow from one impression, and a reward may outlive its impression.
    counts = np.stack([rewards, np.maximum(impressions - rewards, 0)])
    return np.frombuffer(segment.arms, "<u4"), counts


def _segment(
    segment: bandit_pb2.BanditSegment, prior: Rates, batch: bandit_pb2.BanditBatch
) -> Segment:
    """Draw a segment's arms; `prior` is α and β of each arm of the batch, or of all."""
    arms, counts = _counts(segment)
    posterior = counts + (prior[:, arms] if prior.shape[1] > 1 else prior)
    row_of_arm = np.full(len(batch.item_ids), -1, np.int32)
    row_of_arm[arms] = np.arange(len(arms), dtype=np.int32)
    return Segment(
        row_of_arm,
        np.frombuffer(segment.impressions, "<u4"),
        np.frombuffer(segment.rewards, "<u4"),
        _draw(posterior, batch.rankings, [batch.seed, crc32(segment.segment.encode())]),
    )


def _draw(posterior: Rates, rankings: int, seed: list[int]) -> NDArray[np.float16]:
    """Draws of Beta posteriors [2, arms], shape [arms, rankings]."""
    rng = np.random.default_rng(seed)
    rates = np.empty((posterior.shape[1], rankings), np.float16)
    for start in range(0, len(rates), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        successes, failures = posterior[:, part, None]
        rates[part] = rng.beta(successes, failures, rates[part].shape)
    return rates


def parse_batch(payload: bytes) -> BatchDraws:
    """The draws of a batch as it lies in the log."""
    return BatchDraws(bandit_pb2.BanditBatch.FromString(payload))
