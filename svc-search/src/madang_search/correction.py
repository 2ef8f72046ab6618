"""What may have been meant: words that no document has, as those that one has."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from rapidfuzz import process
from rapidfuzz.distance import OSA

from madang_search.hangul import folded, has_hangul, keys, to_english, to_korean

_WORD = re.compile(r"[^\W_]+")
_SHORT = 5
"""Keys up to which one slip is borne; beyond, two."""
_MOST_LOOKED_UP = 8
"""Words of a query that are looked for among all others, a millisecond or two each."""
_REMEMBERED = 4096
"""Words whose nearest are remembered: what people type, they type often."""


def words_of(text: str) -> Iterable[str]:
    """The words of a text as they stand in it, in lower case."""
    return _WORD.findall(text.lower())


class Dictionary:
    """Words by how often they are used.

    Args:
        counts: of each word.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts
        self._words = [*counts]
        self._keys = [folded(keys(word)) for word in self._words]
        self.nearest = lru_cache(_REMEMBERED)(self._nearest)

    def __contains__(self, word: str) -> bool:
        return word in self._counts

    def _nearest(self, word: str) -> str | None:
        """The word that differs by the fewest slips (a key too many, too few, another or two that
        changed places; letters that sound alike are none), the most used one of those; None if none
        is near."""
        typed = folded(keys(word))
        most = 1 if len(typed) <= _SHORT else 2
        if len(typed) < 3:
            return None
        found = process.extract(
            typed, self._keys, scorer=OSA.distance, score_cutoff=most, limit=None
        )
        ranked = [
            (slips, -self._counts[self._words[at]], self._words[at]) for _, slips, at in found
        ]
        return min(ranked)[2] if ranked else None


def correct(query: str, dictionary: Dictionary, known: Callable[[str], bool]) -> str:
    """The query with its unknown words corrected; empty when there is nothing to correct.

    Args:
        known: whether documents are found by a word, though it is not one of theirs.
    """
    out, at, corrected, looked_up = [], 0, False, 0
    for match in _WORD.finditer(query):
        word, better = match[0].lower(), None
        if word not in dictionary and looked_up < _MOST_LOOKED_UP and not known(word):
            looked_up += 1
            better = _better(word, dictionary, known)
        out += [query[at : match.start()], better or match[0]]
        at, corrected = match.end(), corrected or better is not None
    return "".join([*out, query[at:]]) if corrected else ""


def _better(word: str, dictionary: Dictionary, known: Callable[[str], bool]) -> str | None:
    other = to_english(word) if has_hangul(word) else to_korean(word)
    if other != word and (other in dictionary or known(other)):
        return other
    return dictionary.nearest(word) or dictionary.nearest(other)
