"""The words and titles of all documents, to correct and to suggest by; fed by a `Follower`."""

import sys
import threading
from collections import Counter
from collections.abc import Mapping

from madang.search.v1 import document_record_pb2
from madang_search.correction import words_of


class Vocabulary:
    """How many documents have each word, and how popular each title is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words: dict[str, tuple[str, ...]] = {}
        self._titles: dict[str, tuple[str, float]] = {}
        self._counts: Counter[str] = Counter()
        self.changes = 0

    def apply(self, changed: Mapping[str, bytes | None], anew: bool) -> None:
        """Take records by document id, None for deleted ones."""
        with self._lock:
            if anew:
                self._words, self._titles, self._counts = {}, {}, Counter()
            for document_id, payload in changed.items():
                self._counts.subtract(self._words.pop(document_id, ()))
                self._titles.pop(document_id, None)
                if payload is not None:
                    document = document_record_pb2.DocumentRecord.FromString(payload).document
                    words = {*words_of(document.title), *words_of(document.body)}
                    self._words[document_id] = tuple(map(sys.intern, words))
                    self._counts.update(words)
                    self._titles[document_id] = (document.title, document.popularity)
            self.changes += 1

    def counts(self) -> Counter[str]:
        """How many documents have each word."""
        with self._lock:
            self._counts = +self._counts  # without words that are no more
            return self._counts.copy()

    def phrases(self) -> dict[str, float]:
        """The titles, each with the popularity of all documents that have it."""
        with self._lock:
            titles = [*self._titles.values()]
        found: dict[str, float] = {}
        for title, popularity in titles:
            found[title] = found.get(title, 0.0) + popularity
        return found
