"""Keeps what is made of all words and titles, to suggest and to correct by."""

import logging
import threading
import time
from dataclasses import dataclass

from madang_search.correction import Dictionary
from madang_search.suggesting import PhraseBook
from madang_search.vocabulary import Vocabulary

log = logging.getLogger(__name__)
_EVERY = 2.0
_SHARE_OF_TIME = 0.05


@dataclass(frozen=True)
class Lexicon:
    """The words of the documents as they were at a moment.

    Attributes:
        book: titles that can be suggested.
        dictionary: words by which queries are corrected.
    """

    book: PhraseBook
    dictionary: Dictionary


class LexiconKeeper:
    """Makes the lexicon anew in a thread when documents have changed, for at most a twentieth of
    the time.

    Args:
        vocabulary: of the documents as they are now.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._made_of = -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lexicon", daemon=True)
        self.lexicon = Lexicon(PhraseBook({}), Dictionary({}))

    def start(self) -> None:
        """Make the first lexicon, and follow the changes."""
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def refresh(self) -> float:
        """Make it anew if documents have changed, and return how many seconds that took."""
        started, changes = time.monotonic(), self._vocabulary.changes
        if changes != self._made_of:
            book = PhraseBook(self._vocabulary.phrases())
            self.lexicon = Lexicon(book, Dictionary(self._vocabulary.counts()))
            self._made_of = changes
        return time.monotonic() - started

    def _run(self) -> None:
        took = 0.0
        while not self._stop.wait(max(_EVERY, took / _SHARE_OF_TIME)):
            try:
                took = self.refresh()
            except Exception:
                log.exception("the lexicon could not be made anew")
