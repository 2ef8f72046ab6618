"""Text → the terms by which it is found, alike for documents and queries."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

import Stemmer
from kiwipiepy import Kiwi
from kiwipiepy import __version__ as kiwi_version

from madang_search.hangul import has_hangul

_WORD = re.compile(r"[^\W_]+")
_HANGUL = re.compile(r"[가-힣ㄱ-ㅣ]+")
# Nouns, stems of verbs and adjectives, roots; endings and particles say nothing of the subject.
_CONTENT = ("NN", "NR", "VV", "VA", "XR", "MAG")
_LONGEST_WORD = 64


class Term(NamedTuple):
    """A term, and the characters from which it comes.

    Attributes:
        text: of it: a morpheme, or a stem in lower case.
        start, length: its characters in the text.
    """

    text: str
    start: int
    length: int


class Analyzer:
    """Korean morphemes (Kiwi) and English stems (Snowball). Any thread may use it.

    Attributes:
        version: changes whenever a text may get other terms than before.
    """

    version = f"1 kiwi-{kiwi_version} snowball-{Stemmer.version()}"

    def __init__(self) -> None:
        self._kiwi = Kiwi(num_workers=1, load_multi_dict=False)
        self._kiwi.tokenize("가")  # else the first caller waits for its dictionary

    def terms(self, text: str) -> list[Term]:
        """The terms of a text, as they stand in it."""
        return self.batch([text])[0]

    def batch(self, texts: Sequence[str]) -> list[list[Term]]:
        """The terms of each text."""
        stem = Stemmer.Stemmer("english").stemWord  # it is not for threads to share
        return [self._terms(text, stem) for text in texts]

    def joined(self, texts: Sequence[str]) -> list[str]:
        """The terms of each text with a space after each but the last, as indexes take them."""
        return [" ".join(term.text for term in terms) for terms in self.batch(texts)]

    def _terms(self, text: str, stem: Callable[[str], str]) -> list[Term]:
        morphemes = self._morphemes(text) if has_hangul(text) else []
        words = [
            Term(stem(part.lower()[:_LONGEST_WORD]), start, len(part))
            for start, part in _latin_parts(text)
        ]
        return sorted([*morphemes, *words], key=lambda term: term.start)

    def _morphemes(self, text: str) -> list[Term]:
        found = [
            Term(token.form, token.start, token.len)
            for token in self._kiwi.tokenize(text)
            if token.tag.startswith(_CONTENT) and _HANGUL.fullmatch(token.form)
        ]
        # A word of which no morpheme is known to say anything still stands for itself.
        covered = {at for term in found for at in range(term.start, term.start + term.length)}
        return found + [
            Term(match[0][:_LONGEST_WORD], match.start(), len(match[0]))
            for match in _HANGUL.finditer(text)
            if covered.isdisjoint(range(*match.span()))
        ]


def grams(text: str) -> list[str]:
    """Pairs of neighbouring syllables of the Hangul in a text: what is found when morphemes are cut
    elsewhere than in the query, or spaces are."""
    found = []
    for match in _HANGUL.finditer(text):
        word = match[0]
        found += [word[at : at + 2] for at in range(max(1, len(word) - 1))]
    return found


def normal(text: str) -> str:
    """A text as it is kept and compared: composed (NFC), without control characters, each line
    without spaces at its ends."""
    composed = unicodedata.normalize("NFC", text)
    printable = "".join(
        c if c == "\n" or unicodedata.category(c) != "Cc" else " " for c in composed
    )
    return "\n".join(line.strip() for line in printable.split("\n")).strip()


def _latin_parts(text: str) -> list[tuple[int, str]]:
    """What is no Hangul of each word, and where it starts."""
    return [
        (word.start() + part.start(), part[0])
        for word in _WORD.finditer(text)
        for part in re.finditer(r"[^가-힣ㄱ-ㅣ]+", word[0])
    ]
