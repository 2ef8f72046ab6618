"""The intent catalogue: which entry a query means."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.search.v1 import search_pb2 as pb
from madang_runtime.text.encoder import Encoder
from madang_search.nearest import NearestSearcher

Floats = NDArray[np.float32]
_MOST_PHRASES = 2000


@dataclass(frozen=True)
class Catalogue:
    """The entries as they were at a moment, by id, with the vectors of one encoder.

    Attributes:
        entries: of the catalogue.
        phrases: of all entries.
        vectors: float32 [phrases, d].
        owner: of each phrase, the entry's place: int64 [phrases].
    """

    entries: Sequence[pb.Intent]
    phrases: Sequence[str]
    vectors: Floats
    owner: NDArray[np.int64]

    def match(
        self, nearest: NearestSearcher, query: str, area: str, default: float
    ) -> list[pb.IntentMatch]:
        """The entries of an area by how near their nearest phrase is, nearest first."""
        usable = [not e.disabled and (not area or e.area in ("", area)) for e in self.entries]
        allowed = np.array(usable, bool)[self.owner]
        found = nearest(query, self.vectors, allowed, _MOST_PHRASES)
        matches: dict[int, pb.IntentMatch] = {}
        for row, similarity in zip(found.rows.tolist(), found.similarities.tolist(), strict=True):
            at = int(self.owner[row])
            if at not in matches:
                entry = self.entries[at]
                threshold = entry.threshold or default
                matches[at] = pb.IntentMatch(
                    intent_id=entry.intent_id,
                    path=entry.path,
                    phrase=self.phrases[row],
                    similarity=similarity,
                    threshold=threshold,
                    matched=similarity >= threshold,
                )
        return [*matches.values()]

    def study(self, at: int, default: float) -> pb.ListedIntent:
        """What an entry's phrases say of it, each held out in its turn."""
        entry = self.entries[at]
        own = np.flatnonzero(self.owner == at)
        scores = self.vectors[own] @ self.vectors.T
        scores[np.arange(len(own)), own] = -1.0  # held out
        others = np.flatnonzero(self.owner != at)
        listed = pb.ListedIntent(intent=entry)
        if not len(others):
            return listed
        strangers = scores[:, others].max(0)
        threshold = entry.threshold or default
        listed.captures = float((strangers >= threshold).mean())
        if len(own) > 1:
            friends = scores[:, own].max(1)
            listed.suggested_threshold = separating(friends, strangers)
            rivals = self.owner[others[scores[:, others].argmax(1)]]
            lost = rivals[friends < scores[:, others].max(1)]
            listed.self_accuracy = 1 - len(lost) / len(own)
            if len(lost):
                listed.rival = self.entries[int(np.bincount(lost).argmax())].intent_id
        return listed


def separating(friends: Floats, strangers: Floats) -> float:
    """The threshold that tells friends (at or above it) from strangers best: the mean of the shares
    that it gets right. Of equals, the middle of the widest gap."""
    cuts = np.unique(np.concatenate([friends, strangers]))
    taken = 1 - np.searchsorted(np.sort(friends), cuts) / len(friends)
    refused = np.searchsorted(np.sort(strangers), cuts) / len(strangers)
    right = taken + refused
    tied = np.flatnonzero(right >= right.max() - 1e-9)
    below = np.where(tied > 0, cuts[np.maximum(tied - 1, 0)], cuts[tied])
    widest = int(np.argmax(cuts[tied] - below))
    return float((cuts[tied[widest]] + below[widest]) / 2)


class IntentKeeper:
    """Keeps the catalogue of each encoder; fed by a `Follower`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, pb.Intent] = {}
        # The last two versions: requests that began with the one before may still run.
        self._vectors: dict[Encoder, dict[str, Floats]] = {}
        self._catalogues: Mapping[Encoder, Catalogue] = {}

    def apply(self, changed: Mapping[str, bytes | None], anew: bool) -> None:
        """Take entries by id, None for those that are taken out; all or none."""
        fresh = {
            key: pb.Intent.FromString(payload)
            for key, payload in changed.items()
            if payload is not None
        }
        with self._lock:
            made = {
                encoder: {k: v for k, v in ({} if anew else old).items() if k not in changed}
                | _encoded(encoder, fresh)
                for encoder, old in self._vectors.items()
            }
            kept = {} if anew else {k: v for k, v in self._entries.items() if k not in changed}
            self._entries, self._vectors = kept | fresh, made
            self._publish()

    def attach(self, encoder: Encoder) -> None:
        """Make the vectors of an encoder that is about to serve."""
        with self._lock:
            made = {encoder: _encoded(encoder, self._entries)}
            self._vectors = dict([*self._vectors.items()][-1:]) | made
            self._publish()

    def catalogue(self, encoder: Encoder) -> Catalogue:
        """The entries as they are now, with the vectors of an attached encoder."""
        return self._catalogues[encoder]

    def _publish(self) -> None:
        entries = [self._entries[key] for key in sorted(self._entries)]
        counts = [len(entry.phrases) for entry in entries]
        phrases = [phrase for entry in entries for phrase in entry.phrases]
        self._catalogues = {
            encoder: Catalogue(
                entries,
                phrases,
                np.concatenate(
                    [np.empty((0, encoder.dimension), np.float32)]
                    + [vectors[entry.intent_id] for entry in entries]
                ),
                np.repeat(np.arange(len(entries)), counts),
            )
            for encoder, vectors in self._vectors.items()
        }


def _encoded(encoder: Encoder, entries: Mapping[str, pb.Intent]) -> dict[str, Floats]:
    """The vectors of each entry's phrases, all encoded together."""
    vectors = encoder.encode([phrase for entry in entries.values() for phrase in entry.phrases])
    ends = np.cumsum([len(entry.phrases) for entry in entries.values()])
    return dict(zip(entries, np.split(vectors, ends[:-1]), strict=True)) if entries else {}
