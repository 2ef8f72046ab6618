"""Completes what is typed so far."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from madang.search.v1 import search_pb2 as pb
from madang_search.hangul import folded, has_hangul, keys, neighbours, to_english, to_korean
from madang_search.nearest import best

_END = "\U0010ffff"
_LONGEST_TYPO = 24
_SHORTEST_TYPO = 3
_MOST_WORDS, _LONGEST_KEYS = 8, 200
"""Words of a phrase that it is found by beside the first, and keys of each."""


class Suggestion(NamedTuple):
    """A phrase, why it is suggested, and how popular it is."""

    text: str
    kind: "pb.SuggestionKind.ValueType"
    popularity: float


class _Sorted:
    """Keys of phrases in order, to be found by how they begin.

    Args:
        entries: keys and the phrase that each stands for.
        popularity: of each phrase.
    """

    def __init__(self, entries: Iterable[tuple[str, int]], popularity: NDArray[np.float64]) -> None:
        ordered = sorted(entries)
        self._keys = [key for key, _ in ordered]
        self._phrases = np.array([phrase for _, phrase in ordered], np.int64)
        self._popularity = popularity[self._phrases]

    def has(self, prefix: str) -> bool:
        """Whether any key begins so."""
        at = bisect_left(self._keys, prefix)
        return at < len(self._keys) and self._keys[at].startswith(prefix)

    def best(self, prefix: str, k: int) -> list[int]:
        """The k most popular phrases whose keys begin so."""
        low, high = bisect_left(self._keys, prefix), bisect_left(self._keys, prefix + _END)
        found: list[int] = self._phrases[low + best(self._popularity[low:high], 2 * k)].tolist()
        return [*dict.fromkeys(found)][:k]


class PhraseBook:
    """Phrases that can be suggested. Immutable.

    Args:
        phrases: each with its popularity.
    """

    def __init__(self, phrases: Mapping[str, float]) -> None:
        self._texts = [*phrases]
        self._popularity = np.array([*phrases.values()], np.float64)
        typed = [keys(text) for text in self._texts]
        self._whole = _Sorted([(key, at) for at, key in enumerate(typed)], self._popularity)
        self._words = _Sorted(
            [(start, at) for at, key in enumerate(typed) for start in _later_words(key)],
            self._popularity,
        )
        alike = [folded(key) for key in typed]
        self._alike = _Sorted([(key, at) for at, key in enumerate(alike)], self._popularity)
        self._near = neighbours()
        self._alphabet = sorted(self._near)

    def __len__(self) -> int:
        return len(self._texts)

    def suggest(self, prefix: str, limit: int) -> list[Suggestion]:
        """The best completions, those of a kind together."""
        prefix = prefix.lstrip()
        typed = keys(prefix)
        found: dict[int, pb.SuggestionKind.ValueType] = {}

        def add(phrases: Iterable[int], kind: "pb.SuggestionKind.ValueType") -> None:
            for phrase in phrases:
                found.setdefault(phrase, kind)

        add(self._whole.best(typed, limit), pb.SUGGESTION_KIND_PREFIX)
        if typed and len(found) < limit:
            add(self._words.best(typed, limit), pb.SUGGESTION_KIND_WORD)
        if typed and not found:
            other = keys(to_english(prefix) if has_hangul(prefix) else to_korean(prefix))
            add(self._whole.best(other, limit), pb.SUGGESTION_KIND_KEYBOARD)
        if typed and not found:
            add(self._alike.best(folded(typed), limit), pb.SUGGESTION_KIND_TYPO)
        if not found and _SHORTEST_TYPO <= len(typed) <= _LONGEST_TYPO:
            meant = self._meant(folded(typed))
            near = (phrase for prefix in meant for phrase in self._alike.best(prefix, limit))
            add(sorted(near, key=lambda at: -self._popularity[at]), pb.SUGGESTION_KIND_TYPO)
        return [
            Suggestion(self._texts[phrase], kind, float(self._popularity[phrase]))
            for phrase, kind in [*found.items()][:limit]
        ]

    def _meant(self, typed: str) -> list[str]:
        """Beginnings that phrases have and that are one slip away, likely slips before others: a
        neighbouring key, two that changed places, one too many; then one too few, any other."""
        has = self._alike.has
        # What comes before the slip must be right.
        right = next((n for n in range(len(typed)) if not has(typed[: n + 1])), len(typed))
        likely, others = [], []
        for at in range(right + 1):
            head, tail = typed[:at], typed[at + 1 :]
            if at < len(typed):
                likely += [head + near + tail for near in self._near.get(typed[at], "")]
                likely.append(head + tail)
                others += [head + any_ + tail for any_ in self._alphabet]
            if at + 1 < len(typed):
                likely.append(head + typed[at + 1] + typed[at] + typed[at + 2 :])
            others += [head + any_ + typed[at:] for any_ in self._alphabet]
        for tried in (likely, others):
            meant = [prefix for prefix in dict.fromkeys(tried) if prefix != typed and has(prefix)]
            if meant:
                return meant
        return []


def _later_words(key: str) -> list[str]:
    """What begins at each word of a phrase but the first, as far as it is of use."""
    starts = [at + 1 for at, letter in enumerate(key) if letter == " "][:_MOST_WORDS]
    return [key[start : start + _LONGEST_KEYS] for start in starts]
